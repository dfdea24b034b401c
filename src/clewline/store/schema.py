"""The catalog's tables and the statements that write them, in SQLAlchemy Core."""

from __future__ import annotations

from functools import cache
from typing import Any

from sqlalchemy import (
    Column,
    Float,
    ForeignKeyConstraint,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    PrimaryKeyConstraint,
    Table,
    Text,
)
from sqlalchemy.dialects.sqlite import Insert, insert

from clewline.store import rows
from clewline.store.records import (
    KINDS,
    Alias,
    Artifact,
    ArtifactUse,
    CacheEntry,
    Edge,
    LiveRevision,
    ModelVersion,
    Record,
    Revision,
    Run,
    SeenFile,
    StepRun,
    Token,
)

_TYPES: dict[rows.ColumnType, Any] = {
    "text": Text,
    "integer": Integer,
    "real": Float,
    "packed": LargeBinary,
}

_REFERENCES: dict[type[Record], tuple[tuple[tuple[str, ...], type[Record]], ...]] = {
    StepRun: ((("run",), Run),),
    CacheEntry: ((("step_run",), StepRun),),
    ModelVersion: ((("run",), Run),),
    Alias: ((("name", "number"), ModelVersion),),
    LiveRevision: ((("endpoint", "number"), Revision),),
    ArtifactUse: ((("step_run",), StepRun),),
    SeenFile: ((("run",), Run),),
}

_INDEXES: dict[type[Record], tuple[tuple[str, ...], ...]] = {
    Artifact: (("blob",), ("kind", "created")),
    Run: (("started",), ("pipeline", "started"), ("status",), ("snapshot",)),
    StepRun: (("run", "index"), ("name", "started"), ("key",), ("cached_from",)),
    CacheEntry: (("function", "created"), ("step_run",)),
    ModelVersion: (("run",), ("package",), ("created",)),
    Revision: (("created",),),
    LiveRevision: (("moved",),),
    Edge: (("target",),),
    ArtifactUse: (("step_run",),),
    SeenFile: (("digest",), ("run",)),
}

MUTABLE: frozenset[type[Record]] = frozenset({Run, StepRun, CacheEntry, Alias, LiveRevision, Token})
"""Kinds whose record a later one with the same keys replaces."""

FIRST_COUNTS: frozenset[type[Record]] = frozenset({Artifact, ArtifactUse, Edge, SeenFile})
"""Kinds that say the same thing however often they are said: the first one stays."""

metadata = MetaData()


@cache
def table(kind: type[Record]) -> Table:
    """Return the table of a kind of record."""
    return metadata.tables[rows.table(kind).name]


@cache
def insert_new(kind: type[Record]) -> Insert:
    """Insert, and fail when the keys are taken."""
    return insert(table(kind))


@cache
def upsert(kind: type[Record]) -> Insert:
    """
    Insert; keys that are taken are replaced, left or refused, as the kind requires.

    An upsert, not `INSERT OR REPLACE`: that one deletes, and what refers to the
    row with it.
    """
    if kind in MUTABLE:
        return insert_or_replace(kind)
    if kind in FIRST_COUNTS:
        return insert(table(kind)).on_conflict_do_nothing()
    return insert_new(kind)


@cache
def insert_or_replace(kind: type[Record]) -> Insert:
    """Insert, or replace the record with these keys."""
    statement = insert(table(kind))
    others = [name for name in kind.__struct_fields__ if name not in kind.KEYS]
    if not others:
        return statement.on_conflict_do_nothing()
    return statement.on_conflict_do_update(
        index_elements=list(kind.KEYS), set_={name: statement.excluded[name] for name in others}
    )


def _define(kind: type[Record]) -> None:
    described = rows.table(kind)
    # A record may stand before what it refers to, as long as both are in one transaction.
    references = [
        ForeignKeyConstraint(
            columns,
            [f"{rows.table(target).name}.{key}" for key in target.KEYS],
            name=f"fk_{described.name}_{rows.table(target).name}",
            deferrable=True,
            initially="DEFERRED",
        )
        for columns, target in _REFERENCES.get(kind, ())
    ]
    indexes = [
        Index(f"ix_{described.name}_{'_'.join(names)}", *names) for names in _INDEXES.get(kind, ())
    ]
    Table(
        described.name,
        metadata,
        *(Column(c.name, _TYPES[c.type], nullable=c.nullable) for c in described.fields.values()),
        PrimaryKeyConstraint(*described.keys, name=f"pk_{described.name}"),
        *references,
        *indexes,
        sqlite_with_rowid=False,
    )


for _kind in KINDS:
    _define(_kind)
