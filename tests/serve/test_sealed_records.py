"""Whatever is changed in the catalog without the private key is found, and nothing acts on it."""

from __future__ import annotations

import asyncio
import random
import shutil
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
from support import PATIENCE_S, process, tmpfs, wait_until

from clewline import project as projects
from clewline.errors import ClewlineError, IntegrityError, StoreFull
from clewline.model import registry_chain
from clewline.model.doctor import fix_models, model_findings, seal_models
from clewline.model.package import PackageMetadata
from clewline.model.promote import promote
from clewline.model.registry import Registry
from clewline.model.sealed_records import SEALED_KINDS, SealedRecords
from clewline.project import Project
from clewline.serve import access, revision
from clewline.serve.access import TokenChecker
from clewline.serve.endpoint_file import read_endpoint
from clewline.serve.endpoint_server import EndpointServer
from clewline.serve.graph.functions import FunctionFiles
from clewline.serve.log import seals
from clewline.serve.log.check import check_log, fix_log
from clewline.serve.log.seals import check_seals, closed_files, fix_seals
from clewline.serve.predict import predict
from clewline.serve.request.predict_request import PredictRequest, PredictResponse
from clewline.serve.served_endpoint import ServedRevision
from clewline.store.catalog import Catalog, Transaction
from clewline.store.doctor import check_store, fix_store
from clewline.store.records import (
    KINDS,
    Alias,
    ChainEntry,
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
    "RunValue": "made of Run, to be searched",
    "CacheEntry": "the step cache; only a run that a person starts reads it",
    "ChainEntry": "the chain itself: it seals itself, which the tests of the chain show",
    "RouterState": "learned by servers without the private key; it chooses among sealed arms",
    "ExplanationRecord": "made again from what is sealed; its digest tells a change from that",
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
    shutil.copytree(sealed, tmp_path / "copy")
    return projects.load(tmp_path / "copy")


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


def sql(project: Project, statement: str, *values: Any) -> None:
    with closing(sqlite3.connect(project.store_root / "catalog.db")) as connection:
        connection.execute(statement, values)
        connection.commit()


def test_code_that_somebody_without_the_key_put_into_a_revision_does_not_run(
    project: Project,
) -> None:
    """The code is in the store, under its digest; only the revision's record is changed."""
    path = project.root / "ran"
    foreign = FunctionFiles({"nodes.py": f"open({str(path)!r}, 'w').close()\n".encode()})
    with Store.open(project.store_root) as store:
        digest = foreign.store(store.blobs)
        store.blobs.flush()
    sql(project, "UPDATE revision SET code = ?", digest)
    refused = served(project)
    assert isinstance(refused, IntegrityError)
    assert "revision income#1 is not the one in the signed chain: code changed" in refused.message
    assert "Apply the endpoint again" in str(refused)
    assert not path.exists()
    assert apply(project, "model: income@1") == "income#2"
    assert served(project).loaded.ref == "income#2"


def test_a_running_server_keeps_what_was_in_order_and_refuses_the_rest(project: Project) -> None:
    apply(project, "model: income@2")

    async def main() -> None:
        server = EndpointServer(project)
        await server.open()
        try:
            await follow(project, server)
        finally:
            await server.close(1.0)

    async def follow(project: Project, server: EndpointServer) -> None:
        endpoint = server.get("income")
        sql(project, "UPDATE live_revision SET number = 1")
        await wait_until(lambda: endpoint.failure is not None)
        assert "live revision income is not the one in the signed chain" in str(endpoint.failure)
        assert endpoint.serving is not None
        assert endpoint.serving.loaded.ref == "income#2"
        sql(project, "UPDATE live_revision SET unloaded = ?", GARBAGE)
        await wait_until(lambda: "cannot be read" in str(endpoint.failure))
        assert endpoint.serving.loaded.ref == "income#2"
        sql(project, "UPDATE live_revision SET number = 2, unloaded = ?", b"\xc2")
        await wait_until(lambda: endpoint.failure is None)
        await asyncio.to_thread(apply, project, "model: income@1")
        await wait_until(lambda: endpoint.serving.loaded.ref == "income#3")
        # A backup that is newer than what the server knows, in place of the file.
        await asyncio.to_thread(replace_by_newer, project)
        await wait_until(lambda: endpoint.serving.loaded.ref == "income#4")

    asyncio.run(main())


def replace_by_newer(project: Project) -> None:
    """Put another file in place of the catalog: a copy in which another revision is live."""
    catalog = project.store_root / "catalog.db"
    elsewhere = project.root / "elsewhere"
    shutil.copytree(project.root, elsewhere, ignore=lambda *_: ["elsewhere"])
    other = projects.load(elsewhere)
    apply(other, "model: income@2")
    with closing(sqlite3.connect(other.store_root / "catalog.db")) as copy:
        copy.execute("PRAGMA journal_mode=DELETE")
    for ending in ("-wal", "-shm"):
        catalog.with_name(f"{catalog.name}{ending}").unlink(missing_ok=True)
    (other.store_root / "catalog.db").rename(catalog)


def test_an_older_catalog_under_a_running_process_is_noticed(project: Project) -> None:
    catalog = project.store_root / "catalog.db"
    with Store.open(project.store_root) as store:
        older = catalog.with_name("older")
        with closing(sqlite3.connect(older)) as copy, closing(sqlite3.connect(catalog)) as now:
            now.backup(copy)
        made = access.add_token(project, store, ["predict"])
        records = SealedRecords(project, store.catalog)
        assert records.get(Token, made.token.id) == made.token
        with closing(sqlite3.connect(older)) as copy, closing(sqlite3.connect(catalog)) as now:
            copy.backup(now)
        with pytest.raises(IntegrityError, match="was changed or removed while this process ran"):
            records.find(Token)
    assert len(accepted(project)) == 1  # one that starts later cannot know


def test_a_token_from_elsewhere_or_revoked_no_more_does_not_count(project: Project) -> None:
    with Store.open(project.store_root) as store:
        made = access.add_token(project, store, ["operate"])
        (other,) = [each for each in store.catalog.find(Token) if each.id != made.token.id]
        access.revoke_token(project, store, made.token.id)
        assert accepted(project) == sorted([other.id, made.token.id])
        sql(project, "UPDATE token SET revoked = NULL WHERE id = ?", made.token.id)
        assert accepted(project) == [other.id]
        forged = msgspec.structs.replace(made.token, id="0" * 12)
        store.record(forged)
        assert accepted(project) == [other.id]
        codes = [finding.code for finding in model_findings(project)]
        assert sorted(codes) == ["changed_record", "unsealed_record"]
        project.private_key.rename(project.root / "key")
        access.revoke_token(project, store, other.id)  # works without the key, unsealed
        assert accepted(project) == []
        (project.root / "key").rename(project.private_key)
        access.revoke_token(project, store, other.id)
        assert accepted(project) == [other.id]  # known, as a revoked one


def test_a_kill_between_any_two_transactions_leaves_nothing_unsealed(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    transaction, count = Catalog.transaction, 0

    @contextmanager
    def checked(catalog: Catalog, **how: Any) -> Iterator[Transaction]:
        nonlocal count
        with transaction(catalog, **how) as inside:
            yield inside
        count += 1
        assert SealedRecords(project, catalog).problems() == []

    monkeypatch.setattr(Catalog, "transaction", checked)
    with Store.open(project.store_root) as store:
        registry = Registry(project, store)
        about = {"runtime": "onnx", "task": "binary", "target": "income", "created": 0.0}
        files = {**registry.open("income@1").files, "note.txt": b"another"}
        new = registry.add(files, PackageMetadata(name="income", number=0, **about))
        promote(registry, new.ref, "champion")
        apply(project, f"model: {new.ref}")
        revision.rollback(project, store, "income")
        token = access.add_token(project, store, ["predict"]).token
        access.revoke_token(project, store, token.id)
    assert count >= 6


def test_what_a_broken_chain_no_longer_vouches_for_is_refused_until_it_is_applied_again(
    project: Project,
) -> None:
    """The link that is gone may have revoked a token, or moved an endpoint."""
    with Store.open(project.store_root) as store:
        access.add_token(project, store, ["predict"])
        sql(project, "UPDATE chain_entry SET body = ? WHERE seq = 2", msgspec.msgpack.encode({}))
        refused = served(project)
        assert "broken at link 2" not in str(refused)  # the endpoint was sealed after it
        last = store.catalog.count(ChainEntry)
        sql(project, "DELETE FROM chain_entry WHERE seq = ?", last - 1)
        refused = served(project)
        assert f"broken at link {last}" in str(refused)
        assert len(accepted(project)) == 1  # the one that was added after the break
        assert [each.name for each in registered(project)] == []
        assert seal_models(project)  # a person has looked at them
        assert len(accepted(project)) == 2
        assert served(project).loaded.ref == "income#1"


@pytest.mark.parametrize("field", table(ChainEntry).fields.values(), ids=lambda field: field.name)
@pytest.mark.parametrize("how", ["other", "garbage", "number"])
@pytest.mark.parametrize("order", ["ASC", "DESC"])
def test_a_changed_column_of_a_link_is_found_and_what_was_sealed_later_is_served(
    project: Project, field: RecordField, how: str, order: str
) -> None:
    with closing(sqlite3.connect(project.store_root / "catalog.db")) as connection:
        query = f"SELECT seq, {field.name} FROM chain_entry ORDER BY seq {order}"
        seq, before = connection.execute(query).fetchone()
        values = {"garbage": GARBAGE, "number": b"\x05" if field.type == "packed" else 5.5}
        value = other(field)(before) if how == "other" else values[how]
        update = f"UPDATE chain_entry SET {field.name} = ? WHERE seq = ?"
        connection.execute(update, (value, seq))
        connection.commit()
    codes = {finding.code for finding in model_findings(project)}
    assert codes & {"rewritten_registry", "unverifiable_registry"}
    # What was sealed after a broken link is in order. A link with another number comes last.
    later = order == "ASC" and field.name != "seq"
    assert isinstance(served(project), ServedRevision if later else ClewlineError)
    assert bool(accepted(project)) is later


def registered(project: Project) -> list[ModelVersion]:
    with Store.open(project.store_root) as store:
        return SealedRecords(project, store.catalog).find(ModelVersion, refused=[])


def test_nothing_is_sealed_after_a_link_that_is_not_signed(project: Project) -> None:
    with Store.open(project.store_root) as store:
        (last,) = store.catalog.find(ChainEntry, order="-seq", limit=1)
        forged = registry_chain.next_link(last, "applied", {"records": {}}, SealerOfSomebodyElse())
        store.record(forged)
        with pytest.raises(IntegrityError, match=f"Link {forged.seq}, the last of the signed"):
            access.add_token(project, store, ["predict"])
        token = store.catalog.find(Token)[0]
        with pytest.raises(IntegrityError, match="nothing can be sealed"):
            access.revoke_token(project, store, token.id)
        assert store.catalog.get(Token, token.id).revoked is not None  # all the same
    assert accepted(project) == []


class SealerOfSomebodyElse:
    public = "A" * 43 + "="

    def sign(self, message: bytes) -> bytes:
        return bytes(64)


def test_a_store_of_an_older_version_is_refused_until_a_person_seals_it(project: Project) -> None:
    with closing(sqlite3.connect(project.store_root / "catalog.db")) as connection:
        connection.execute("DELETE FROM chain_entry")
        connection.commit()
    codes = {finding.code for finding in model_findings(project)}
    assert codes == {"unsealed_record"}
    assert "clewline doctor --seal" in str(served(project))
    assert accepted(project) == []
    names = seal_models(project)
    assert "revision income#1" in names
    assert "alias income@champion" in names
    assert model_findings(project) == []
    assert served(project).loaded.ref == "income#1"
    assert seal_models(project) == []


def test_two_writers_at_once_leave_a_whole_chain(project: Project) -> None:
    def add(note: int) -> None:
        with Store.open(project.store_root) as store:
            for _ in range(5):
                access.add_token(project, store, ["predict"], note=str(note))

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(add, range(4)))
    assert len(accepted(project)) == 21
    assert model_findings(project) == []


def test_a_server_seals_the_segments_that_it_closes(project: Project) -> None:
    async def main() -> None:
        server = EndpointServer(project)
        await server.open()
        request = PredictRequest(b'{"age": 40, "hours": 38.5, "job": "nurse"}')
        done: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        predict(server, server.get("income"), request, done.set_result)
        assert isinstance(await done, PredictResponse)
        await server.close(PATIENCE_S)

    asyncio.run(main())
    assert len(closed_files(project)) == 1
    with Store.open(project.store_root) as store:
        assert len(SealedRecords(project, store.catalog).file_digests()) == 1
    assert check_seals(project) == []


WRITE = """
import itertools, sys
from pathlib import Path
from clewline import project
from clewline.model.package import PackageMetadata
from clewline.model.registry import Registry
from clewline.serve import access, revision
from clewline.serve.endpoint_file import parse_endpoint
from clewline.serve.log.compact import compact
from clewline.serve.log.frame import LoggedBatch, LoggedRequest
from clewline.serve.log.seals import closed_files, seal_files
from clewline.serve.log.writer import LogWriter
from clewline.store.ids import prediction_ids
from clewline.store.store import Store

here = project.load(Path(sys.argv[1]))
with Store.open(here.store_root) as store:
    registry = Registry(here, store)
    files = registry.open("income@1").files
    about = dict(runtime="onnx", task="binary", target="income", created=0.0)
    for turn in itertools.count():
        metadata = PackageMetadata(name="income", number=0, **about)
        new = registry.add({**files, "note.txt": str((sys.argv[2], turn)).encode()}, metadata)
        text = f"endpoint: income\\nmodel: {new.ref}\\n".encode()
        revision.apply(here, store, parse_endpoint(text, Path("endpoints/income.yaml")))
        token = access.add_token(here, store, ["predict"]).token
        access.revoke_token(here, store, token.id)
        with LogWriter(here.log) as log:
            ids = prediction_ids(1)
            request = LoggedRequest(format="json", body=b'{"age": 1}', count=1)
            answer = b'{"label": "<=50K"}'
            frame = LoggedBatch(
                ids=ids[0], endpoint="income", revision=1, model=new.ref, package=new.package,
                time=0.0, requests=[request], answers=[answer], path=[],
            )
            log.write_now(frame)
        seal_files(here, closed_files(here))
        seal_files(here, compact(here.log).files, again=True)
        print(turn, flush=True)
"""


def test_a_kill_at_any_moment_leaves_a_whole_chain_and_nothing_that_a_fix_does_not_clear(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(seals, "YOUNG_S", -1.0)
    command = [sys.executable, "-c", WRITE, project.root]
    for kill in range(3):
        with process([*command, str(kill)], stdout=subprocess.PIPE, text=True) as writer:
            for _ in range(1 + kill):
                assert writer.stdout.readline(), "the writer failed"
            time.sleep(random.Random(kill).random() / 5)
        writer.wait()
        found = check_store(project.store_root) + model_findings(project) + check_seals(project)
        left = {each.code for each in found if not (each.fixable or each.harmless)}
        assert left <= {"unregistered_package"}, found  # its catalog may be an older one
        fix_store(project.store_root)
        fix_log(project)
        fix_seals(project)
        for each in found:
            if each.code == "unregistered_package":
                shutil.rmtree(each.values["path"])
        fix_models(project)
        found = check_store(project.store_root) + model_findings(project)
        found += check_seals(project) + check_log(project)
        assert [each for each in found if not each.harmless] == []


def until_full(write: Callable[[int], object]) -> None:
    """Write until the pages that are left are used up."""

    def repeat() -> None:
        for turn in range(10_000):
            write(turn)

    with pytest.raises(StoreFull):
        repeat()


def test_a_full_disk_seals_all_of_a_change_or_nothing(sealed: Path, tmp_path: Path) -> None:
    with tmpfs(tmp_path, "size=6m"):
        shutil.copytree(sealed, tmp_path / "copy")
        project = projects.load(tmp_path / "copy")
        with Store.open(project.store_root) as store:
            (tmp_path / "filler").write_bytes(bytes(shutil.disk_usage(tmp_path).free))
            until_full(lambda _: access.add_token(project, store, ["predict"]))
            until_full(lambda turn: apply(project, f"model: income@{turn % 2 + 1}"))
        (tmp_path / "filler").unlink()
        assert model_findings(project) == []
        assert isinstance(served(project), ServedRevision)
        assert apply(project, "model: income@2")
        assert model_findings(project) == []
