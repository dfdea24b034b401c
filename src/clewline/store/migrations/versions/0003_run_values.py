"""The parameters and metrics of runs as rows, by which runs are searched."""

import json
import math
from collections.abc import Iterator, Mapping
from typing import Any

import msgspec
import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

RUNS_AT_ONCE = 500


def upgrade() -> None:
    op.create_table(
        "run_value",
        *(sa.Column(name, sa.Text(), nullable=False) for name in ("kind", "name", "run")),
        sa.Column("number", sa.Float(), nullable=True),
        sa.Column("text", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("kind", "name", "run", name="pk_run_value"),
        sa.ForeignKeyConstraint(
            ["run"], ["run.id"], name="fk_run_value_run", initially="DEFERRED", deferrable=True
        ),
        sqlite_with_rowid=False,
    )
    op.drop_index("ix_run_started", "run")
    op.create_index("ix_run_started_pipeline_status", "run", ["started", "pipeline", "status"])
    connection = op.get_bind()
    # In the order of the table: each row goes to its end, where any place else costs a page.
    connection.exec_driver_sql("CREATE TEMP TABLE unsorted AS SELECT * FROM run_value")
    last = ""
    while True:
        runs = connection.exec_driver_sql(
            "SELECT id, seed, params, metrics FROM run WHERE id > ? ORDER BY id LIMIT ?",
            (last, RUNS_AT_ONCE),
        ).fetchall()
        if not runs:
            break
        last = runs[-1][0]
        rows = [row for run in runs for row in _values(*run)]
        if rows:
            connection.exec_driver_sql("INSERT INTO unsorted VALUES (?, ?, ?, ?, ?)", rows)
    connection.exec_driver_sql("INSERT INTO run_value SELECT * FROM unsorted ORDER BY 1, 2, 3")
    connection.exec_driver_sql("DROP TABLE unsorted")


def _values(
    run: str, seed: int | None, packed_params: bytes, packed_metrics: bytes
) -> Iterator[tuple[Any, ...]]:
    try:
        params = msgspec.msgpack.decode(packed_params)
        metrics = msgspec.msgpack.decode(packed_metrics)
    except msgspec.DecodeError:
        return  # whoever reads this run is told that its row was changed; no search finds it
    if seed is not None:
        params.setdefault("seed", seed)
    for kind, values in (("param", _flat(params)), ("metric", metrics)):
        for name, value in values.items():
            number = text = None
            if type(value) in (int, float) and not math.isnan(value):
                number = float(value)
            else:
                text = (
                    str(value) if isinstance(value, str | float) else json.dumps(value, default=str)
                )
            yield kind, name, run, number, None if text is None else text[:1000]


def _flat(params: Mapping[str, Any], within: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in params.items():
        if isinstance(value, dict) and value:
            flat |= _flat(value, f"{within}{key}.")
        else:
            flat[f"{within}{key}"] = value
    return flat
