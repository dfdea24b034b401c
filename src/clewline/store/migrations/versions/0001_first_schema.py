"""The first schema."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "artifact",
        sa.Column("digest", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("format", sa.Text(), nullable=False),
        sa.Column("blob", sa.Text(), nullable=False),
        sa.Column("size_bytes", sa.Integer(), nullable=False),
        sa.Column("rows", sa.Integer(), nullable=True),
        sa.Column("columns", sa.Integer(), nullable=True),
        sa.Column("meta", sa.LargeBinary(), nullable=False),
        sa.Column("created", sa.Float(), nullable=False),
        sa.PrimaryKeyConstraint("digest", name="pk_artifact"),
        sqlite_with_rowid=False,
    )
    op.create_index("ix_artifact_blob", "artifact", ["blob"], unique=False)
    op.create_index("ix_artifact_kind_created", "artifact", ["kind", "created"], unique=False)
    op.create_table(
        "chain_entry",
        sa.Column("seq", sa.Integer(), nullable=False),
        sa.Column("previous", sa.Text(), nullable=False),
        sa.Column("digest", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("body", sa.LargeBinary(), nullable=False),
        sa.Column("created", sa.Float(), nullable=False),
        sa.Column("signature", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("seq", name="pk_chain_entry"),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "edge",
        sa.Column("source", sa.Text(), nullable=False),
        sa.Column("target", sa.Text(), nullable=False),
        sa.Column("role", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("source", "target", "role", name="pk_edge"),
        sqlite_with_rowid=False,
    )
    op.create_index("ix_edge_target", "edge", ["target"], unique=False)
    op.create_table(
        "revision",
        sa.Column("endpoint", sa.Text(), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("spec", sa.LargeBinary(), nullable=False),
        sa.Column("models", sa.LargeBinary(), nullable=False),
        sa.Column("packages", sa.LargeBinary(), nullable=False),
        sa.Column("accepted", sa.LargeBinary(), nullable=False),
        sa.Column("graph", sa.LargeBinary(), nullable=False),
        sa.Column("code", sa.Text(), nullable=True),
        sa.Column("created", sa.Float(), nullable=False),
        sa.PrimaryKeyConstraint("endpoint", "number", name="pk_revision"),
        sqlite_with_rowid=False,
    )
    op.create_index("ix_revision_created", "revision", ["created"], unique=False)
    op.create_table(
        "run",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("pipeline", sa.Text(), nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("params", sa.LargeBinary(), nullable=False),
        sa.Column("seed", sa.Integer(), nullable=True),
        sa.Column("metrics", sa.LargeBinary(), nullable=False),
        sa.Column("command", sa.Text(), nullable=False),
        sa.Column("snapshot", sa.Text(), nullable=True),
        sa.Column("environment", sa.Text(), nullable=True),
        sa.Column("commit", sa.Text(), nullable=True),
        sa.Column("changed", sa.LargeBinary(), nullable=False),
        sa.Column("error", sa.LargeBinary(), nullable=True),
        sa.Column("replay_of", sa.Text(), nullable=True),
        sa.Column("process", sa.Text(), nullable=False),
        sa.Column("started", sa.Float(), nullable=False),
        sa.Column("ended", sa.Float(), nullable=True),
        sa.PrimaryKeyConstraint("id", name="pk_run"),
        sqlite_with_rowid=False,
    )
    op.create_index("ix_run_pipeline_started", "run", ["pipeline", "started"], unique=False)
    op.create_index("ix_run_snapshot", "run", ["snapshot"], unique=False)
    op.create_index("ix_run_started", "run", ["started"], unique=False)
    op.create_index("ix_run_status", "run", ["status"], unique=False)
    op.create_table(
        "live_revision",
        sa.Column("endpoint", sa.Text(), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("moved", sa.Float(), nullable=False),
        sa.Column("unloaded", sa.LargeBinary(), nullable=False),
        sa.ForeignKeyConstraint(
            ["endpoint", "number"],
            ["revision.endpoint", "revision.number"],
            name="fk_live_revision_revision",
            initially="DEFERRED",
            deferrable=True,
        ),
        sa.PrimaryKeyConstraint("endpoint", name="pk_live_revision"),
        sqlite_with_rowid=False,
    )
    op.create_index("ix_live_revision_moved", "live_revision", ["moved"], unique=False)
    op.create_table(
        "model_version",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("package", sa.Text(), nullable=False),
        sa.Column("content", sa.Text(), nullable=False),
        sa.Column("run", sa.Text(), nullable=True),
        sa.Column("step_run", sa.Text(), nullable=True),
        sa.Column("task", sa.Text(), nullable=False),
        sa.Column("runtime", sa.Text(), nullable=False),
        sa.Column("metrics", sa.LargeBinary(), nullable=False),
        sa.Column("equality", sa.LargeBinary(), nullable=False),
        sa.Column("size_bytes", sa.Integer(), nullable=False),
        sa.Column("created", sa.Float(), nullable=False),
        sa.ForeignKeyConstraint(
            ["run"], ["run.id"], name="fk_model_version_run", initially="DEFERRED", deferrable=True
        ),
        sa.PrimaryKeyConstraint("name", "number", name="pk_model_version"),
        sqlite_with_rowid=False,
    )
    op.create_index("ix_model_version_created", "model_version", ["created"], unique=False)
    op.create_index("ix_model_version_package", "model_version", ["package"], unique=False)
    op.create_index("ix_model_version_run", "model_version", ["run"], unique=False)
    op.create_table(
        "seen_file",
        sa.Column("path", sa.Text(), nullable=False),
        sa.Column("digest", sa.Text(), nullable=False),
        sa.Column("run", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(
            ["run"], ["run.id"], name="fk_seen_file_run", initially="DEFERRED", deferrable=True
        ),
        sa.PrimaryKeyConstraint("path", "digest", "run", name="pk_seen_file"),
        sqlite_with_rowid=False,
    )
    op.create_index("ix_seen_file_digest", "seen_file", ["digest"], unique=False)
    op.create_index("ix_seen_file_run", "seen_file", ["run"], unique=False)
    op.create_table(
        "step_run",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("run", sa.Text(), nullable=False),
        sa.Column("index", sa.Integer(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("function", sa.Text(), nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("key", sa.Text(), nullable=True),
        sa.Column("uncacheable", sa.Text(), nullable=True),
        sa.Column("cached_from", sa.Text(), nullable=True),
        sa.Column("inputs", sa.LargeBinary(), nullable=False),
        sa.Column("outputs", sa.LargeBinary(), nullable=False),
        sa.Column("metrics", sa.LargeBinary(), nullable=False),
        sa.Column("files", sa.LargeBinary(), nullable=False),
        sa.Column("logs", sa.Text(), nullable=True),
        sa.Column("wall_s", sa.Float(), nullable=True),
        sa.Column("cpu_s", sa.Float(), nullable=True),
        sa.Column("peak_bytes", sa.Integer(), nullable=True),
        sa.Column("energy_j", sa.Float(), nullable=True),
        sa.Column("error", sa.LargeBinary(), nullable=True),
        sa.Column("started", sa.Float(), nullable=False),
        sa.Column("ended", sa.Float(), nullable=True),
        sa.ForeignKeyConstraint(
            ["run"], ["run.id"], name="fk_step_run_run", initially="DEFERRED", deferrable=True
        ),
        sa.PrimaryKeyConstraint("id", name="pk_step_run"),
        sqlite_with_rowid=False,
    )
    op.create_index("ix_step_run_cached_from", "step_run", ["cached_from"], unique=False)
    op.create_index("ix_step_run_key", "step_run", ["key"], unique=False)
    op.create_index("ix_step_run_name_started", "step_run", ["name", "started"], unique=False)
    op.create_index("ix_step_run_run_index", "step_run", ["run", "index"], unique=False)
    op.create_table(
        "alias",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("alias", sa.Text(), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("moved", sa.Float(), nullable=False),
        sa.ForeignKeyConstraint(
            ["name", "number"],
            ["model_version.name", "model_version.number"],
            name="fk_alias_model_version",
            initially="DEFERRED",
            deferrable=True,
        ),
        sa.PrimaryKeyConstraint("name", "alias", name="pk_alias"),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "artifact_use",
        sa.Column("artifact", sa.Text(), nullable=False),
        sa.Column("step_run", sa.Text(), nullable=False),
        sa.Column("role", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(
            ["step_run"],
            ["step_run.id"],
            name="fk_artifact_use_step_run",
            initially="DEFERRED",
            deferrable=True,
        ),
        sa.PrimaryKeyConstraint("artifact", "step_run", "role", name="pk_artifact_use"),
        sqlite_with_rowid=False,
    )
    op.create_index("ix_artifact_use_step_run", "artifact_use", ["step_run"], unique=False)
    op.create_table(
        "cache_entry",
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("function", sa.Text(), nullable=False),
        sa.Column("step_run", sa.Text(), nullable=False),
        sa.Column("outputs", sa.LargeBinary(), nullable=False),
        sa.Column("parts", sa.Text(), nullable=False),
        sa.Column("created", sa.Float(), nullable=False),
        sa.ForeignKeyConstraint(
            ["step_run"],
            ["step_run.id"],
            name="fk_cache_entry_step_run",
            initially="DEFERRED",
            deferrable=True,
        ),
        sa.PrimaryKeyConstraint("key", name="pk_cache_entry"),
        sqlite_with_rowid=False,
    )
    op.create_index(
        "ix_cache_entry_function_created", "cache_entry", ["function", "created"], unique=False
    )
    op.create_index("ix_cache_entry_step_run", "cache_entry", ["step_run"], unique=False)
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
