"""Whatever is changed in the catalog without the private key is found, and nothing acts on it."""

from __future__ import annotations

import asyncio
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import msgspec
import pytest

from clewline.errors import ClewlineError
from clewline.model.doctor import model_findings
from clewline.model.promote import promote
from clewline.model.registry import Registry
from clewline.model.sealed_records import SEALED_KINDS
from clewline.project import Project
from clewline.serve import access, revision
from clewline.serve.access import TokenChecker
from clewline.serve.endpoint_file import read_endpoint
from clewline.serve.endpoint_server import EndpointServer
from clewline.store.records import (
    KINDS,
    Alias,
    LiveRevision,
    ModelVersion,
    Record,
    Revision,
    Token,
)
from clewline.store.rows import RecordField, table
from clewline.store.store import Store

NOT_SEALED = {
    "Artifact": "its digest is the content's, and no server reads it",
    "Run": "history; only `why`, `impact` and a replay that a person starts read it",
    "StepRun": "as Run",
    "CacheEntry": "the step cache; only a run that a person starts reads it",
    "ChainEntry": "the chain itself: it seals itself, which the tests of the chain show",
    "RouterState": "learned by servers without the private key; it chooses among sealed arms",
    "Edge": "history, as Run",
    "ArtifactUse": "history, as Run",
    "SeenFile": "history, as Run",
}
"""The kinds of records that the signed chain does not hold, and why."""

GARBAGE = b"\xc1 no MessagePack, \xff no text"

UNSEALED_FIELDS = {
    ("LiveRevision", "moved"): "only says when to look; a wrong time delays that by 10 s",
    ("LiveRevision", "unloaded"): "an operator's switch, which servers without the key write",
}


@pytest.fixture(scope="module")
def sealed(tmp_path_factory, make_loans) -> Path:
    """A project with a version, an alias, an endpoint, a live revision and a token."""
    root = tmp_path_factory.mktemp("sealed")
    project = make_loans(root).project
    with Store.open(project.store_root) as store:
        promote(Registry(project, store), "income@1", "champion")
        access.add_token(project, store, ["predict"], note="sealed", expires=4e9)
    return root


@pytest.fixture
def project(sealed: Path, tmp_path: Path) -> Project:
    from clewline import project

    shutil.copytree(sealed, tmp_path / "copy")
    return project.load(tmp_path / "copy")


def columns() -> list[tuple[type[Record], RecordField]]:
    return [
        (kind, field)
        for kind in SEALED_KINDS
        for field in table(kind).fields.values()
        if field.name not in kind.UNSEALED_FIELDS
    ]


def test_every_kind_of_record_is_sealed_or_stands_here_with_the_reason() -> None:
    assert {kind.__name__ for kind in KINDS if not kind.SEALED} == set(NOT_SEALED)
    left_out = {(kind.__name__, field) for kind in KINDS for field in kind.UNSEALED_FIELDS}
    assert left_out == set(UNSEALED_FIELDS)


@pytest.mark.parametrize(
    ("kind", "field"),
    [pytest.param(*each, id=f"{each[0].__name__}.{each[1].name}") for each in columns()],
)
@pytest.mark.parametrize("how", ["other", "garbage"])
def test_a_changed_column_is_found_and_refused(
    project: Project, kind: type[Record], field: RecordField, how: str
) -> None:
    change(project, kind, field, (lambda value: GARBAGE) if how == "garbage" else other(field))
    found = model_findings(project)
    assert {each.code for each in found} & {"changed_record", "unsealed_record"}, found
    assert all(each.values["fix"] for each in found if "fix" in each.values)
    if kind in (Revision, LiveRevision):
        assert isinstance(served(project), ClewlineError)
    if kind is Token:
        assert not accepted(project)
    if kind in (ModelVersion, Alias):
        model = "income@1" if kind is ModelVersion else "income@champion"
        with pytest.raises(ClewlineError):
            apply(project, f"model: {model}\ntimeout_ms: 7")


def change(project: Project, kind: type[Record], field: RecordField, how: Any) -> None:
    """Change a column of the first record of a kind, as anyone who can write the file may."""
    name, keys = table(kind).name, table(kind).keys
    columns = ", ".join(f'"{each}"' for each in (*keys, field.name))
    with closing(sqlite3.connect(project.store_root / "catalog.db")) as connection:
        *key, before = connection.execute(
            f"SELECT {columns} FROM {name} ORDER BY {columns}"
        ).fetchone()
        where = " AND ".join(f'"{each}" = ?' for each in keys)
        update = f'UPDATE {name} SET "{field.name}" = ? WHERE {where}'
        assert connection.execute(update, (how(before), *key)).rowcount == 1
        connection.commit()


def other(field: RecordField) -> Any:
    """Return a function that makes another value of a column, which a record can have."""

    def make(value: Any) -> Any:
        if field.type == "packed":
            content = msgspec.msgpack.decode(value)
            more = [*content, "operate"] if isinstance(content, list) else {**content, "more": 1}
            return msgspec.msgpack.encode(more)
        if value is None:
            return "ab" * 32 if field.type == "text" else 1
        return f"{value}0" if field.type == "text" else value + 7

    return make


def served(project: Project, name: str = "income") -> Any:
    """Return what a server that starts now answers with: a revision, or the reason why none."""

    async def ask() -> Any:
        server = EndpointServer(project)
        await server.open()
        try:
            found: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
            server.when_loaded(server.get(name), found.set_result)
            return await found
        except ClewlineError as error:
            return error
        finally:
            await server.close(1.0)

    return asyncio.run(ask())


def accepted(project: Project) -> list[str]:
    checker = TokenChecker(project)
    checker.open()
    checker.close()
    return list(checker._known)


def apply(project: Project, text: str) -> str:
    (project.endpoints / "income.yaml").write_text(f"endpoint: income\n{text}\n")
    with Store.open(project.store_root) as store:
        return revision.apply(project, store, read_endpoint(project, "income")).revision.ref


def test_what_is_in_order_is_served_and_accepted(project: Project) -> None:
    assert served(project).loaded.ref == "income#1"
    assert len(accepted(project)) == 1
    assert model_findings(project) == []
