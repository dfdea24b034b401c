"""The catalog's tables in SQLAlchemy Core, derived from the records, for migrations."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa

from clewline.store import rows
from clewline.store.records import KINDS, Record

_TYPES: dict[rows.ColumnType, Any] = {
    "text": sa.Text,
    "integer": sa.Integer,
    "real": sa.Float,
    "packed": sa.LargeBinary,
}
_KEYS = {kind.__name__: (rows.table(kind).name, kind.KEYS) for kind in KINDS}

metadata = sa.MetaData()


def _define(kind: type[Record]) -> None:
    described = rows.table(kind)
    name = described.name
    # A record may stand before what it refers to, as long as both are in one transaction.
    references = [
        sa.ForeignKeyConstraint(
            fields,
            [f"{_KEYS[target][0]}.{key}" for key in _KEYS[target][1]],
            name=f"fk_{name}_{_KEYS[target][0]}",
            deferrable=True,
            initially="DEFERRED",
        )
        for fields, target in kind.REFERENCES
    ]
    sa.Table(
        name,
        metadata,
        *(
            sa.Column(field.name, _TYPES[field.type], nullable=field.nullable)
            for field in described.fields.values()
        ),
        sa.PrimaryKeyConstraint(*kind.KEYS, name=f"pk_{name}"),
        *references,
        *(sa.Index(f"ix_{name}_{'_'.join(fields)}", *fields) for fields in kind.INDEXES),
        sqlite_with_rowid=False,
    )


for _kind in KINDS:
    _define(_kind)
