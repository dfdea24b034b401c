"""The first schema."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

TYPES = {"text": sa.Text, "integer": sa.Integer, "real": sa.Float, "blob": sa.LargeBinary}

# table → its keys; its columns, a type with `?` where they may be null
TABLES = {
    "artifact": (
        "digest",
        "digest:text kind:text format:text blob:text size_bytes:integer rows:integer? "
        "columns:integer? meta:blob created:real",
    ),
    "chain_entry": (
        "seq",
        "seq:integer previous:text digest:text kind:text body:blob created:real signature:text",
    ),
    "edge": (
        "source target role",
        "source:text target:text role:text",
    ),
    "revision": (
        "endpoint number",
        "endpoint:text number:integer spec:blob models:blob packages:blob accepted:blob "
        "graph:blob code:text? created:real",
    ),
    "run": (
        "id",
        "id:text pipeline:text status:text params:blob seed:integer? metrics:blob "
        "command:text snapshot:text? environment:text? commit:text? changed:blob error:blob? "
        "replay_of:text? process:text started:real ended:real?",
    ),
    "live_revision": (
        "endpoint",
        "endpoint:text number:integer moved:real unloaded:blob",
    ),
    "model_version": (
        "name number",
        "name:text number:integer package:text content:text run:text? step_run:text? "
        "task:text runtime:text metrics:blob equality:blob size_bytes:integer created:real",
    ),
    "seen_file": (
        "path digest run",
        "path:text digest:text run:text",
    ),
    "step_run": (
        "id",
        "id:text run:text index:integer name:text function:text status:text key:text? "
        "uncacheable:text? cached_from:text? inputs:blob outputs:blob metrics:blob files:blob "
        "logs:text? wall_s:real? cpu_s:real? peak_bytes:integer? energy_j:real? error:blob? "
        "started:real ended:real?",
    ),
    "alias": (
        "name alias",
        "name:text alias:text number:integer moved:real",
    ),
    "artifact_use": (
        "artifact step_run role",
        "artifact:text step_run:text role:text",
    ),
    "cache_entry": (
        "key",
        "key:text function:text step_run:text outputs:blob parts:text created:real",
    ),
    "token": (
        "id",
        "id:text digest:text roles:blob note:text created:real expires:real? revoked:real?",
    ),
    "router_state": (
        "endpoint node number",
        "endpoint:text node:text number:integer content:blob created:real",
    ),
}

# table, its columns, the table that they refer to, whose keys they hold
REFERENCES = (
    ("live_revision", "endpoint number", "revision"),
    ("model_version", "run", "run"),
    ("seen_file", "run", "run"),
    ("step_run", "run", "run"),
    ("alias", "name number", "model_version"),
    ("artifact_use", "step_run", "step_run"),
    ("cache_entry", "step_run", "step_run"),
)

# table → its indexes, each of one column or several
INDEXES = {
    "artifact": "blob kind+created",
    "edge": "target",
    "revision": "created",
    "run": "pipeline+started snapshot started status",
    "live_revision": "moved",
    "model_version": "created package run",
    "seen_file": "digest run",
    "step_run": "cached_from key name+started run+index",
    "artifact_use": "step_run",
    "cache_entry": "function+created step_run",
}


def upgrade() -> None:
    for name, (keys, columns) in TABLES.items():
        described = [column.partition(":") for column in columns.split()]
        op.create_table(
            name,
            *(
                sa.Column(column, TYPES[kind.rstrip("?")](), nullable=kind.endswith("?"))
                for column, _, kind in described
            ),
            sa.PrimaryKeyConstraint(*keys.split(), name=f"pk_{name}"),
            *(
                sa.ForeignKeyConstraint(
                    own.split(),
                    [f"{target}.{key}" for key in TABLES[target][0].split()],
                    name=f"fk_{name}_{target}",
                    initially="DEFERRED",
                    deferrable=True,
                )
                for source, own, target in REFERENCES
                if source == name
            ),
            sqlite_with_rowid=False,
        )
    for name, indexes in INDEXES.items():
        for fields in (index.split("+") for index in indexes.split()):
            op.create_index(f"ix_{name}_{'_'.join(fields)}", name, fields)
