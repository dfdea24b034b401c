"""Graphs of nodes in revisions, tokens, what routers have learned."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

EMPTY, FALSE = "x'80'", "x'c2'"  # MessagePack


def upgrade() -> None:
    op.add_column(
        "revision",
        sa.Column("graph", sa.LargeBinary(), nullable=False, server_default=sa.text(EMPTY)),
    )
    op.add_column("revision", sa.Column("code", sa.Text(), nullable=True))
    op.add_column(
        "live_revision",
        sa.Column("unloaded", sa.LargeBinary(), nullable=False, server_default=sa.text(FALSE)),
    )
    op.create_index("ix_live_revision_moved", "live_revision", ["moved"], unique=False)
    op.create_table(
        "token",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("digest", sa.Text(), nullable=False),
        sa.Column("roles", sa.LargeBinary(), nullable=False),
        sa.Column("note", sa.Text(), nullable=False),
        sa.Column("created", sa.Float(), nullable=False),
        sa.Column("expires", sa.Float(), nullable=True),
        sa.Column("revoked", sa.Float(), nullable=True),
        sa.PrimaryKeyConstraint("id", name="pk_token"),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "router_state",
        sa.Column("endpoint", sa.Text(), nullable=False),
        sa.Column("node", sa.Text(), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("content", sa.LargeBinary(), nullable=False),
        sa.Column("created", sa.Float(), nullable=False),
        sa.PrimaryKeyConstraint("endpoint", "node", "number", name="pk_router_state"),
        sqlite_with_rowid=False,
    )
