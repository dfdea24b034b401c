"""The store as a whole: order of durability, full and read-only disks, versions."""

from __future__ import annotations

import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from support import start_process, wait_for

from clewline.errors import (
    Conflict,
    Fault,
    NotFound,
    NotStorable,
    StoreFull,
    StoreNewer,
    StoreReadOnly,
)
from clewline.store import lineage
from clewline.store.blobs import LARGE_OVER
from clewline.store.digest import Digest, digest_bytes
from clewline.store.doctor import check_store, fix_store
from clewline.store.reader import VERSIONS, CatalogReader
from clewline.store.records import Edge, ModelVersion, Record, Run, StepRun
from clewline.store.ref import resolve
from clewline.store.store import Store
from clewline.store.upgrade import is_current

if TYPE_CHECKING:
    from conftest import Disk


def run(identifier: str = "a" * 12, **fields: object) -> Run:
    given = {"pipeline": "income", "status": "running", "started": 1.0, **fields}
    return Run(id=identifier, **given)


def step(index: int, logs: Digest | None = None, run: str = "a" * 12) -> StepRun:
    name = f"{index:05d}-work"
    return StepRun(
        id=f"{run}/{name}", run=run, index=index, name="work", status="done", logs=logs, started=1.0
    )


# Opening


def test_a_store_that_is_made_again_keeps_what_it_has(root: Path) -> None:
    with Store.create(root) as store:
        store.record(run())
    with Store.create(root) as store:
        assert store.catalog.count(Run) == 1


def test_folders_that_a_copy_of_the_store_left_out_are_made_again(root: Path) -> None:
    with Store.create(root) as store:
        kept = store.blobs.put(b"x")
        store.blobs.flush()
    shutil.rmtree(root / "blobs")
    for name in ("locks", "tmp"):
        shutil.rmtree(root / name)
    with Store.open(root, write=False) as store:
        assert not store.blobs.has(kept)
    assert [finding.code for finding in check_store(root)] == []
    with Store.open(root) as store:
        assert store.blobs.get(store.blobs.put(b"x")) == b"x"
        store.blobs.flush()


def test_a_folder_without_a_store_is_not_found(root: Path) -> None:
    with pytest.raises(NotFound, match="clewline init"):
        Store.open(root)
    with pytest.raises(NotFound, match="clewline init"):
        CatalogReader(root / "catalog.db")


def test_a_newer_catalog_is_left_alone(store: Store) -> None:
    with closing(sqlite3.connect(store.catalog.path)) as connection, connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
    for attempt in (
        lambda: Store.open(store.root),
        lambda: Store.open(store.root, write=False),
        lambda: CatalogReader(store.catalog.path).count(Run),
        lambda: Store.create(store.root),
    ):
        with pytest.raises(StoreNewer, match="9999"):
            attempt()


def test_a_catalog_whose_making_was_cut_short_is_made_whole(store: Store) -> None:
    path = store.catalog.path
    store.close()
    for suffix in ("", "-wal", "-shm"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)
    sqlite3.connect(path).close()
    assert not is_current(path)
    with Store.open(store.root) as again:
        again.record(run())
        assert is_current(path)


def test_what_is_no_catalog_is_a_fault(store: Store) -> None:
    store.close()
    store.catalog.path.write_bytes(b"no catalog at all" * 1000)
    with pytest.raises(Fault, match="not a database"):
        Store.open(store.root)


def test_the_migrations_make_the_schema_that_the_code_knows(store: Store) -> None:
    from alembic.autogenerate import compare_metadata
    from alembic.config import Config
    from alembic.migration import MigrationContext
    from alembic.script import ScriptDirectory

    from clewline.store.migrations.schema import metadata
    from clewline.store.upgrade import SCRIPTS, engine

    config = Config()
    config.set_main_option("script_location", str(SCRIPTS))
    scripts = ScriptDirectory.from_config(config)
    assert [script.revision for script in scripts.walk_revisions()][::-1] == list(VERSIONS)
    database = engine(store.catalog.path)
    with database.begin() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, metadata) == []
    database.dispose()


# Full and read-only


def test_a_store_on_a_read_only_mount_is_read_and_not_written(disk: Disk) -> None:
    root = disk.place / ".clewline"
    with Store.create(root) as store:
        digest = store.blobs.put(b"hello")
        store.record(run())
    disk.seal()
    with pytest.raises(StoreReadOnly, match="cannot be written"):
        Store.open(root)
    store = Store.open(root, write=False)
    assert store.catalog.get(Run, "a" * 12) == run()
    assert store.blobs.get(digest) == b"hello"
    reader = store.catalog.reader
    assert lineage.why(reader, resolve(reader, "aaaa")).ref == "a" * 12
    assert [finding.code for finding in check_store(root)] == ["orphan_blobs"]
    with pytest.raises(StoreReadOnly):
        fix_store(root)
    with pytest.raises(StoreReadOnly):
        store.record(run("b" * 12))
    store.blobs.put(b"new")
    for write in (store.blobs.flush, lambda: store.record(run("b" * 12)), store.close):
        with pytest.raises(StoreReadOnly):
            write()


def test_a_catalog_left_by_a_killed_process_is_read_on_a_read_only_mount(disk: Disk) -> None:
    """Its last writes stand in the write-ahead log alone."""
    root = disk.place / ".clewline"
    Store.create(root).close()
    script = """
import os, signal, sys
from pathlib import Path
from clewline.store.records import Run
from clewline.store.store import Store
store = Store.open(Path(sys.argv[1]))
store.record(Run(id="a" * 12, pipeline="p", status="done", started=1.0))
os.kill(os.getpid(), signal.SIGKILL)
"""
    killed = subprocess.run([sys.executable, "-c", script, str(root)])
    assert killed.returncode == -signal.SIGKILL
    disk.seal()
    reader = CatalogReader(root / "catalog.db")
    assert reader.count(Run) == 1
    reader.close()


def test_on_a_full_disk_nothing_is_half_recorded(small_disk: Path) -> None:
    with Store.create(small_disk / ".clewline") as store:
        store.record(run())
        done = 0

        def fill() -> None:
            nonlocal done
            while True:
                store.record(step(2 * done, store.blobs.put(os.urandom(3000))), step(2 * done + 1))
                done += 1

        with pytest.raises(StoreFull, match="full"):
            fill()
        assert store.catalog.count(StepRun) == 2 * done
        for each in store.catalog.find(StepRun, limit=None):
            assert each.logs is None or store.blobs.has(each.logs)
        subprocess.run(["mount", "-o", "remount,size=16M", str(small_disk)], check=True)
        store.record(step(2 * done))
        assert store.catalog.count(StepRun) == 2 * done + 1
        assert [finding.code for finding in check_store(store.root)] == []


LIMITED = """
import os, resource, sys
from pathlib import Path
from clewline.errors import StoreFull
from clewline.store.records import Run
from clewline.store.store import Store
store = Store.open(Path(sys.argv[1]))
resource.setrlimit(resource.RLIMIT_FSIZE, (400_000, resource.RLIM_INFINITY))
done = 0
try:
    while True:
        snapshot = store.blobs.put(os.urandom(500))
        store.record(*(Run(id=f"{done:08d}-{n}", pipeline="p" * 1000, status="done",
                           snapshot=snapshot, started=1.0) for n in range(2)))
        done += 1
except StoreFull as error:
    print(error)
count = store.catalog.count(Run)
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
store.record(Run(id="last", pipeline="p", status="done", started=1.0))
sys.exit(f"{count} records of {done} pairs" if count != 2 * done else 0)
"""


def test_where_files_may_not_grow_nothing_is_half_recorded(store: Store) -> None:
    """A limit on the size of files fails like a disk without space."""
    command = [sys.executable, "-c", LIMITED, str(store.root)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert "is full" in done.stdout
    assert store.catalog.get(Run, "last") is not None
    assert {finding.code for finding in check_store(store.root)} <= {"orphan_blobs"}


# Order and kill


WRITER = """
import sys
from pathlib import Path
from clewline.store.records import Run, StepRun
from clewline.store.store import Store
store, run = Store.open(Path(sys.argv[1])), sys.argv[2]
store.record(Run(id=run, pipeline="p", status="running", started=1.0))
recorder = store.recorder()
for i in range(1_000_000):
    logs = store.blobs.put(f"{run} {i}".encode() * 40)
    recorder.add(StepRun(id=f"{run}/{i:05d}-s", run=run, index=i, name="s", status="done",
                         logs=logs, started=1.0))
    if i % 50 == 0:
        recorder.drain()
        print(i, flush=True)
"""


def test_killed_writers_leave_no_record_without_its_blob_and_lose_none(store: Store) -> None:
    """Two processes record at once and are killed at any moment, three times over."""
    promised: dict[str, int] = {}
    for round_ in range(3):
        names = [f"{round_}{n}".ljust(12, "0") for n in range(2)]
        writers = [
            start_process(
                [sys.executable, "-c", WRITER, str(store.root), name], stdout=subprocess.PIPE
            )
            for name in names
        ]
        for writer in writers:
            assert writer.stdout is not None
            for _ in range(2 + round_):
                writer.stdout.readline()
        for writer in writers:
            os.kill(writer.pid, signal.SIGKILL)
        for name, writer in zip(names, writers, strict=True):
            lines = writer.communicate()[0].splitlines(keepends=True)
            whole = [int(line) for line in lines if line.endswith(b"\n")]
            promised[name] = max(whole, default=50 * (1 + round_))
    with Store.open(store.root) as again:
        for name, index in promised.items():
            steps = again.catalog.find(StepRun, run=name, order="index", limit=None)
            assert [each.index for each in steps] == list(range(len(steps)))
            assert len(steps) > index
            assert all(again.blobs.get(each.logs or Digest("")) for each in steps)
        again.record(run("f" * 12, status="done"))
        kinds = {finding.code for finding in check_store(store.root)}
        assert kinds <= {
            "unfinished_blob",
            "unfinished_pack",
            "unfinished_run",
            "orphan_blobs",
            "stale_lock",
        }


def test_a_record_is_written_only_after_its_blobs(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So a power loss between the two leaves a blob too many, never one too few."""
    order: list[str] = []
    flush, transaction = store.blobs.flush, store.catalog.transaction
    monkeypatch.setattr(store.blobs, "flush", lambda: (order.append("blobs"), flush())[1])
    monkeypatch.setattr(
        store.catalog, "transaction", lambda **how: (order.append("records"), transaction(**how))[1]
    )
    store.record(run())
    recorder = store.recorder()
    recorder.add(step(0, store.blobs.put(b"log")))
    recorder.drain()
    assert order == ["blobs", "records", "blobs", "records"]
    assert store.catalog.get(StepRun, step(0).id) == step(0, digest_bytes(b"log"))


# The recorder


def test_the_recorder_keeps_the_order(store: Store) -> None:
    with store.recorder() as recorder:
        for status in ("running", "failed", "interrupted", "done"):
            recorder.add(run(status=status))
    found = store.catalog.get(Run, "a" * 12)
    assert found is not None
    assert found.status == "done"


def test_a_transaction_sees_what_the_recorder_was_given_before(store: Store) -> None:
    recorder = store.recorder()
    recorder.add(run())
    with store.catalog.transaction() as transaction:
        assert transaction.count(Run) == 1
    recorder.add(run("b" * 12))
    store.record(step(0, run="b" * 12))
    assert store.catalog.count(Run) == 2


def test_the_recorder_tells_what_was_refused_and_writes_the_rest(store: Store) -> None:
    recorder = store.recorder()
    recorder.add(run())
    recorder.add(step(0), step(1, run="0" * 12))
    recorder.add(step(2))
    with pytest.raises(NotFound, match="refers to"):
        recorder.drain()
    recorder.drain()
    assert [each.index for each in store.catalog.find(StepRun)] == [2]


@pytest.mark.parametrize(
    ("spoilt", "error"),
    [
        (step(0, Digest("odd\udc80")), NotStorable),
        (run("c" * 12, metrics={"odd\udc80": 1.0}), NotStorable),
        (Edge(source="step:b/00-b", target="run:b", role="back"), ValueError),
    ],
    ids=["text", "packed", "an edge that leads back"],
)
def test_a_record_that_can_never_be_written_stops_no_other(
    store: Store, spoilt: Record, error: type[Exception]
) -> None:
    recorder = store.recorder()
    recorder.add(run())
    recorder.add(spoilt)
    with pytest.raises(error):
        recorder.drain()
    recorder.add(step(1))
    recorder.drain()
    assert (store.catalog.count(Run), store.catalog.count(StepRun)) == (1, 1)


def test_a_forked_child_waits_for_nothing_of_its_parent_and_adds_nothing_to_it(
    store: Store,
) -> None:
    recorder = store.recorder()
    with store.catalog.transaction():
        recorder.add(run())
        wait_for(lambda: recorder._is_writing)
        if (child := os.fork()) == 0:
            signal.alarm(10)
            recorder.drain()
            try:
                recorder.add(run("b" * 12))
            except RuntimeError:
                recorder.close()
                os._exit(0)
            os._exit(1)
    assert os.waitpid(child, 0)[1] == 0
    recorder.drain()
    assert [each.id for each in store.catalog.find(Run)] == ["a" * 12]


def test_a_refusal_is_told_by_the_next_drain_however_late(store: Store) -> None:
    recorder = store.recorder()
    recorder.add(step(0))
    wait_for(lambda: recorder.error is not None)
    recorder.add(run())
    with pytest.raises(NotFound, match="refers to"):
        recorder.drain()
    assert store.catalog.count(Run) == 1


def test_the_recorder_keeps_what_found_no_space(small_disk: Path) -> None:
    with Store.create(small_disk / ".clewline") as store:
        store.record(run())
        with store.recorder() as recorder:
            for i in range(400):
                recorder.add(step(i, store.blobs.put(os.urandom(4000))))
            for _ in range(2):
                with pytest.raises(StoreFull):
                    recorder.drain()
            assert store.catalog.count(StepRun) < 400
            subprocess.run(["mount", "-o", "remount,size=16M", str(small_disk)], check=True)
            recorder.drain()
            assert store.catalog.count(StepRun) == 400


def test_closing_a_store_that_finds_no_space_lets_go_of_everything(small_disk: Path) -> None:
    store = Store.create(small_disk / ".clewline")
    store.record(run(), step(0, store.blobs.put(b"log")))
    recorders = [store.recorder() for _ in range(3)]
    for i, recorder in enumerate(recorders):
        recorder.add(step(i + 1, store.blobs.put(os.urandom(700_000))))
    with pytest.raises(StoreFull):
        store.close()
    assert not any(recorder._thread.is_alive() for recorder in recorders)
    subprocess.run(["mount", "-o", "remount,size=16M", str(small_disk)], check=True)
    with Store.open(small_disk / ".clewline") as again:
        again.record(step(9, again.blobs.put(b"another log")))
        assert len(list((again.blobs.root / "packs").glob("*.pack"))) == 1


def test_closing_the_store_records_what_was_added(root: Path) -> None:
    store = Store.create(root)
    recorder = store.recorder()
    recorder.add(run(), *(step(i) for i in range(500)))
    store.close()
    with pytest.raises(RuntimeError, match="closed"):
        recorder.add(run())
    assert CatalogReader(store.catalog.path).count(StepRun) == 500


def test_many_threads_may_record_at_once(store: Store) -> None:
    recorder = store.recorder()
    store.record(run())

    def work(thread: int) -> None:
        for i in range(50):
            recorder.add(step(thread * 100 + i, store.blobs.put(b"%d %d" % (thread, i))))
        recorder.drain()

    threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert store.catalog.count(StepRun) == 200


def test_a_version_that_is_there_is_not_registered_anew(store: Store, line: object) -> None:
    there = store.catalog.get(ModelVersion, "income", 1)
    assert there is not None
    with pytest.raises(Conflict, match="never changes"):
        store.record(ModelVersion(**{**_fields(there), "run": None}))


def _fields(version: ModelVersion) -> dict[str, object]:
    return {name: getattr(version, name) for name in version.__struct_fields__}


# Permissions and locks


def test_only_the_owner_can_read_the_store_whatever_the_umask(root: Path) -> None:
    before = os.umask(0)
    try:
        with Store.create(root) as store:
            store.blobs.put(b"small")
            store.blobs.put(b"large" * LARGE_OVER)
            store.record(run())
            paths = [root, *root.rglob("*")]
            open_to_others = [path for path in paths if path.stat().st_mode & 0o077]
    finally:
        os.umask(before)
    assert open_to_others == []
    assert {"catalog.db", "catalog.db-wal", "catalog.db-shm"} <= {path.name for path in paths}


def test_opening_a_store_again_leaves_sqlites_locks_alone(store: Store) -> None:
    """A process that closes any descriptor of a file loses its POSIX locks on it."""

    def locks() -> list[str]:
        files = [store.root / name for name in ("catalog.db", "catalog.db-shm")]
        inodes = {str(path.stat().st_ino) for path in files}
        lines = Path("/proc/locks").read_text().splitlines()
        return sorted(
            line.partition(": ")[2]
            for line in lines
            if f" {os.getpid()} " in line and line.split()[5].rpartition(":")[2] in inodes
        )

    store.record(run())
    held = locks()
    assert held
    Store.open(store.root).close()
    assert locks() == held
    Store.open(store.root, write=False).close()
    assert locks() == held


def test_a_reader_notices_that_its_catalog_was_replaced_or_deleted(
    store: Store, tmp_path: Path
) -> None:
    with Store.create(tmp_path / "other") as other:
        other.record(run("b" * 12))
        other.close()
    reader = CatalogReader(store.catalog.path)
    version = reader.data_version()
    assert reader.count(Run) == 0
    assert reader.data_version() == version
    (tmp_path / "other" / "catalog.db").replace(store.catalog.path)
    assert reader.data_version() != version
    assert reader.count(Run) == 1
    store.catalog.path.unlink()
    with pytest.raises(Fault, match="was deleted while it was in use"):
        reader.data_version()


def test_recording_does_not_wait_for_the_import_of_sqlalchemy(store: Store) -> None:
    script = (
        "import sys; from pathlib import Path; from clewline.store.store import Store; "
        "from clewline.store.records import Run; store = Store.open(Path(sys.argv[1])); "
        "store.record(Run(id='e' * 12, pipeline='p', status='done', started=1.0)); store.close(); "
        "sys.exit(' '.join({'sqlalchemy', 'alembic'} & sys.modules.keys()) or 0)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(store.root)], capture_output=True, text=True
    )
    assert (done.returncode, done.stderr) == (0, "")
