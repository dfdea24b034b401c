"""Explanations of predictions."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

TEXTS = ("id", "prediction", "kind", "model", "package", "revision", "status", "content", "made_by")


def upgrade() -> None:
    op.create_table(
        "explanation_record",
        *(sa.Column(name, sa.Text(), nullable=False) for name in TEXTS),
        *(sa.Column(name, sa.LargeBinary(), nullable=False) for name in ("options", "body")),
        *(sa.Column(name, sa.Float(), nullable=False) for name in ("created", "seconds")),
        sa.PrimaryKeyConstraint("id", name="pk_explanation_record"),
        sqlite_with_rowid=False,
    )
    for name in ("prediction", "model", "revision", "created"):
        op.create_index(f"ix_explanation_record_{name}", "explanation_record", [name])
