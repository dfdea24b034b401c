"""The catalog in SQLite."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from support import start_process

from clewline.errors import StoreReadOnly
from clewline.store import locks
from clewline.store.catalog import Catalog
from clewline.store.locks import process_state
from clewline.store.records import Run
from clewline.store.store import Store
from clewline.testing.catalog import CatalogContract


class TestCatalog(CatalogContract):
    """Our catalog keeps the contract of catalogs."""

    def open(self, folder: Path) -> Catalog:
        return Store.create(folder / ".clewline").catalog


def run(identifier: str) -> Run:
    return Run(id=identifier, pipeline="income", status="running", started=1.0)


def test_a_writer_waits_for_one_that_pauses_and_never_shows_a_locked_database(
    store: Store,
) -> None:
    began, go_on = threading.Event(), threading.Event()

    def pause() -> None:
        other = sqlite3.connect(store.catalog.path, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        began.set()
        go_on.wait()
        other.execute("COMMIT")
        other.close()

    def write() -> None:
        store.record(run("a" * 12))

    pausing, writing = threading.Thread(target=pause), threading.Thread(target=write)
    pausing.start()
    began.wait()
    writing.start()
    assert store.catalog.count(Run) == 0  # readers do not wait
    writing.join(timeout=0.2)
    assert writing.is_alive()
    go_on.set()
    writing.join()
    pausing.join()
    assert store.catalog.count(Run) == 1


WRITER = """
import sys
from pathlib import Path
from typing import Any
from clewline.store.records import Run
from clewline.store.store import Store
with Store.open(Path(sys.argv[1])) as store:
    for i in range(30):
        with store.catalog.transaction() as transaction:
            count = transaction.count(Run)
            run = Run(id=f"{count:012d}", pipeline=sys.argv[2], status="done", started=1.0)
            transaction.add(run)
"""


def test_processes_that_write_at_once_lose_nothing_and_see_no_lock(store: Store) -> None:
    processes = [
        start_process([sys.executable, "-c", WRITER, str(store.root), str(n)]) for n in range(3)
    ]
    assert [process.wait() for process in processes] == [0, 0, 0]
    assert store.catalog.count(Run) == 90
    assert [store.catalog.count(Run, pipeline=str(n)) for n in range(3)] == [30, 30, 30]


def test_what_a_transaction_read_holds_until_its_end_against_any_writer(store: Store) -> None:
    """Also against one that is not ours and knows nothing of our lock."""
    other = sqlite3.connect(store.catalog.path, timeout=0, isolation_level=None)
    with store.catalog.transaction() as transaction:
        assert transaction.count(Run) == 0
        with pytest.raises(sqlite3.OperationalError, match="locked"):
            other.execute("BEGIN IMMEDIATE")
    other.execute("BEGIN IMMEDIATE")
    other.execute("ROLLBACK")
    other.close()


def test_a_transaction_inside_a_transaction_is_our_mistake(store: Store) -> None:
    with (
        store.catalog.transaction(),
        pytest.raises(RuntimeError, match="inside a transaction"),
        store.catalog.transaction(),
    ):
        pass


def test_a_forked_child_reads_over_a_connection_of_its_own(store: Store) -> None:
    store.record(run("a" * 12))
    assert store.catalog.count(Run) == 1
    script = """
import os, sys
from pathlib import Path
from typing import Any
from clewline.store.records import Run
from clewline.store.store import Store
store = Store.open(Path(sys.argv[1]))
store.record(Run(id="b" * 12, pipeline="p", status="done", started=1.0))
store.blobs.put(b"parent"); store.blobs.flush()
if (child := os.fork()) == 0:
    store.blobs.put(b"child")
    store.record(Run(id="c" * 12, pipeline="p", status="done", started=1.0))
    os._exit(0 if store.catalog.count(Run) == 3 else 1)
status = os.waitpid(child, 0)[1]
store.blobs.put(b"parent again")
store.record(Run(id="d" * 12, pipeline="p", status="done", started=1.0))
sys.exit(status)
"""
    assert subprocess.run([sys.executable, "-c", script, str(store.root)]).returncode == 0
    assert store.catalog.count(Run) == 4
    assert len(list(store.blobs.digests())) == 3


def test_a_catalog_without_the_right_to_write_says_so(store: Store, tmp_path: Path) -> None:
    absent = Catalog(store.catalog.path, tmp_path / "nowhere" / "lock")
    with pytest.raises(FileNotFoundError), absent.transaction():
        pass
    path = tmp_path / "gone" / "catalog.db"
    path.parent.mkdir()
    path.write_bytes(store.catalog.path.read_bytes())
    gone = Catalog(path, tmp_path / "lock")
    path.unlink()
    path.parent.rmdir()
    with pytest.raises(StoreReadOnly, match="cannot be written"), gone.transaction():
        pass


def test_a_lock_names_its_holder_while_it_is_held_and_nobody_after(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with locks.hold_lock(path, timeout_s=1):
        assert process_state(locks.lock_holder(path) or "") == "alive"
        assert locks.is_locked(path)
    assert locks.lock_holder(path) is None
    assert not locks.is_locked(path)


def test_a_lock_is_free_when_its_holder_gives_it_back_whatever_was_forked_meanwhile(
    tmp_path: Path,
) -> None:
    """A worker of a step may live as long as the run, and holds what was open at its birth."""
    path = tmp_path / "lock"
    with locks.hold_lock(path, timeout_s=1):
        if (child := os.fork()) == 0:
            signal.pause()
    try:
        with locks.hold_lock(path, timeout_s=0):
            assert locks.is_locked(path)
        assert not locks.is_locked(path)
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


KILLED = """
import os, signal, sys
from pathlib import Path
from typing import Any
from clewline.store.records import Run
from clewline.store.store import Store
store = Store.open(Path(sys.argv[1]))
with store.catalog.transaction(durability="process") as transaction:
    transaction.add(Run(id="a" * 12, pipeline="p", status="done", started=1.0))
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_what_a_transaction_wrote_without_a_sync_survives_kill_9(store: Store) -> None:
    killed = subprocess.run([sys.executable, "-c", KILLED, str(store.root)])
    assert killed.returncode == -signal.SIGKILL
    assert store.catalog.get(Run, "a" * 12) is not None


def test_a_transaction_syncs_as_it_says_and_by_default_always(store: Store) -> None:
    normal, full = 1, 2

    def synchronous(**how: Any) -> Any:
        with store.catalog.transaction(**how) as transaction:
            return transaction.connection().execute("PRAGMA synchronous").fetchone()[0]

    assert synchronous() == full
    assert synchronous(durability="process") == normal
    assert synchronous() == full
