"""The catalog's tables and the statements that write them, in SQLAlchemy Core."""

from __future__ import annotations

from functools import cache
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.sqlite import Insert, insert

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


@cache
def insert_new(kind: type[Record]) -> Insert:
    """Insert, and fail when the keys are taken."""
    return insert(metadata.tables[rows.table(kind).name])


@cache
def insert_or_replace(kind: type[Record]) -> Insert:
    """
    Insert, or replace the record with these keys.

    An upsert, not `INSERT OR REPLACE`: that one deletes the row, and what refers to it.
    """
    statement = insert_new(kind)
    others = [name for name in kind.__struct_fields__ if name not in kind.KEYS]
    if not others:
        return statement.on_conflict_do_nothing()
    return statement.on_conflict_do_update(
        index_elements=list(kind.KEYS), set_={name: statement.excluded[name] for name in others}
    )


@cache
def insert_as_kind(kind: type[Record]) -> Insert:
    """Insert; keys that are taken are replaced, ignored or refused, as the kind requires."""
    if kind.ON_CONFLICT == "replace":
        return insert_or_replace(kind)
    statement = insert_new(kind)
    return statement.on_conflict_do_nothing() if kind.ON_CONFLICT == "ignore" else statement


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
