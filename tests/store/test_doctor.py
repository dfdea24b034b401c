"""What the doctor names, and what it leaves alone."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from clewline.errors import NotFound
from clewline.serve.doctor import finding_text
from clewline.store.blobs import LARGE_OVER
from clewline.store.digest import Digest
from clewline.store.doctor import Finding, check_store, fix_store
from clewline.store.locks import hold_lock, this_process
from clewline.store.records import Artifact, CacheEntry, Record, RouterState, Run, StepRun
from clewline.store.rows import table
from clewline.store.store import Store

if TYPE_CHECKING:
    from conftest import Line


@pytest.fixture
def closed(line: Line) -> Store:
    """A store with a line in it that nobody has open."""
    line.store.record(
        Artifact(
            digest=Digest("1" * 64),
            kind="table",
            format="ipc",
            blob=line.store.blobs.put(b"large" * LARGE_OVER),
            size_bytes=5 * LARGE_OVER,
            created=1.0,
        )
    )
    line.store.close()
    return line.store


def pack(store: Store) -> Path:
    return next((store.root / "blobs" / "packs").glob("*.pack"))


def loose(store: Store) -> Path:
    return next(path for path in (store.root / "blobs" / "loose").rglob("*") if path.is_file())


def flip(path: Path, offset: int) -> None:
    path.chmod(0o644)
    data = bytearray(path.read_bytes())
    data[offset] ^= 1
    path.write_bytes(data)


def codes(found: list[Finding]) -> list[str]:
    for finding in found:
        assert all(part.endswith(".") for part in finding_text(finding)[1:])
    return sorted(finding.code for finding in found)


def test_a_sound_store_gives_no_finding(closed: Store) -> None:
    assert check_store(closed.root) == []


def test_no_store_is_not_found(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="clewline init"):
        check_store(tmp_path)


@pytest.mark.parametrize("where", [pack, loose], ids=["packed", "loose"])
def test_a_flipped_byte_is_named(closed: Store, where: object) -> None:
    path = where(closed)  # type: ignore[operator]
    flip(path, path.stat().st_size - 1)
    found = check_store(closed.root)
    assert codes(found) == ["damaged_blob"]
    assert path.name in finding_text(found[0])[1]
    assert check_store(closed.root, deep=False) == []


def test_a_flipped_byte_in_a_header_is_named_with_the_blob_that_it_costs(closed: Store) -> None:
    flip(pack(closed), 20)
    assert codes(check_store(closed.root)) == ["damaged_pack", "missing_blob"]


def test_a_damaged_blob_that_was_stored_again_is_no_finding(closed: Store) -> None:
    path = loose(closed)
    flip(path, 5)
    assert codes(check_store(closed.root)) == ["damaged_blob"]
    with Store.open(closed.root) as store:
        store.blobs.put(b"large" * LARGE_OVER)
    assert check_store(closed.root) == []


def test_a_missing_blob_is_named_with_who_needs_it(closed: Store) -> None:
    loose(closed).unlink()
    found = check_store(closed.root, deep=False)
    assert codes(found) == ["missing_blob"]
    assert "the table of artifact 111111111111" in finding_text(found[0])[1]


def test_a_blob_that_no_record_names_is_an_orphan(closed: Store) -> None:
    with Store.open(closed.root) as store:
        orphan = store.blobs.put(b"nobody's")
        # A live writer may be about to record it.
        store.blobs.flush()
        assert check_store(closed.root) == []
    found = check_store(closed.root)
    assert codes(found) == ["orphan_blobs"]
    assert orphan[:12] in finding_text(found[0])[1]


def test_what_a_snapshot_mentions_is_no_orphan_and_may_be_needed(line: Line) -> None:
    file = line.store.blobs.put(b"print()")
    snapshot = line.store.blobs.put(b'{"files": {"a.py": "%s"}}' % file.encode())
    line.store.record(line.run(id="0" * 12, snapshot=snapshot))
    line.store.close()
    assert check_store(line.store.root) == []
    gone = Digest("2" * 64)
    found = check_store(line.store.root, inside={"snapshot": lambda data: [gone]})
    assert codes(found) == ["missing_blob"]
    assert "code snapshot of run 0000" in finding_text(found[0])[1]


def test_the_end_of_a_pack_that_was_being_written_is_named_and_fixed(closed: Store) -> None:
    with pack(closed).open("ab") as file:
        file.write(pack(closed).read_bytes()[:60])
    found = check_store(closed.root)
    assert codes(found) == ["unfinished_pack"]
    fix_store(closed.root)
    assert check_store(closed.root) == []


KILLED = """
import os, signal, sys
from pathlib import Path
from clewline.store.locks import hold_lock, this_process
from clewline.store.records import Run, StepRun
from clewline.store.store import Store
store = Store.open(Path(sys.argv[1]))
store.record(
    Run(id="d" * 12, pipeline="p", status="running", process=this_process(), started=1.0),
    StepRun(id="d" * 12 + "/00-s", run="d" * 12, index=0, name="s", status="running", started=1.0),
)
store.blobs.put(b"aside" * 1_000_000)
with hold_lock(store.root / "locks" / "catalog", timeout_s=1):
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_what_a_killed_process_leaves_is_named_and_fixed(closed: Store) -> None:
    killed = subprocess.run([sys.executable, "-c", KILLED, str(closed.root)])
    assert killed.returncode == -signal.SIGKILL
    found = check_store(closed.root)
    assert codes(found) == ["stale_lock", "unfinished_blob", "unfinished_run"]
    assert any("Run dddddddddddd of p" in finding_text(finding)[1] for finding in found)
    fix_store(closed.root)
    assert check_store(closed.root) == []
    with Store.open(closed.root) as store:
        statuses = [store.catalog.find(kind, order="-started") for kind in (Run, StepRun)]
        assert all(any(each.status == "interrupted" for each in found) for found in statuses)


def test_a_stale_lock_locks_nobody_out(closed: Store) -> None:
    path = closed.root / "locks" / "catalog"
    host, _, start = this_process().rsplit(":", 2)
    path.write_text(f"{host}:999999999:{start}")
    assert codes(check_store(closed.root)) == ["stale_lock"]
    with Store.open(closed.root) as store:
        store.record(Run(id="e" * 12, pipeline="p", status="done", started=1.0))
    assert check_store(closed.root) == []


def test_what_living_processes_hold_is_left_alone(closed: Store) -> None:
    with Store.open(closed.root) as store:
        run = Run(id="e" * 12, pipeline="p", status="running", process=this_process(), started=1.0)
        store.record(run)
        store.blobs.put(b"aside" * LARGE_OVER)
        with hold_lock(closed.root / "locks" / "own", timeout_s=1):
            assert check_store(closed.root) == []
        fix_store(closed.root)
        assert store.catalog.get(Run, run.id) == run


def test_a_record_that_refers_to_nothing_is_named(closed: Store) -> None:
    with closing(sqlite3.connect(closed.catalog.path)) as connection, connection:
        connection.execute("DELETE FROM run")
    found = check_store(closed.root)
    assert codes(found) == ["dangling_records", "orphan_blobs"]
    assert "step_run → run" in finding_text(found[0])[1]


def test_a_flipped_byte_in_the_catalog_is_named(closed: Store) -> None:
    path = closed.catalog.path
    with closing(sqlite3.connect(path)) as connection:
        size = connection.execute("PRAGMA page_size").fetchone()[0]
        page = connection.execute(
            "SELECT rootpage FROM sqlite_master WHERE name = 'ix_edge_target'"
        ).fetchone()[0]
    flip(path, (page - 1) * size + 5)
    assert "damaged_catalog" in codes(check_store(closed.root))
    assert os.path.getsize(path) % size == 0


@pytest.mark.parametrize(
    ("kind", "column"),
    [
        (kind, field.name)
        for kind in (Artifact, CacheEntry, RouterState, Run, StepRun)
        for field in table(kind).fields.values()
        if field.type == "packed"
    ],
)
def test_a_record_that_cannot_be_read_is_a_finding_and_the_rest_is_checked(
    closed: Store, kind: type[Record], column: str
) -> None:
    with closing(Store.open(closed.root)) as store:
        step = store.catalog.find(StepRun, limit=1)[0].id
        parts = store.blobs.put(b"parts")
        store.record(
            CacheEntry(key="k", function="f", step_run=step, outputs=[], parts=parts, created=1.0),
            RouterState(endpoint="e", node="n", number=1, content={"a": 1}, created=1.0),
        )
    with closing(sqlite3.connect(closed.root / "catalog.db")) as connection:
        connection.execute(f"UPDATE {table(kind).name} SET {column} = ?", (b"\xc1",))
        connection.commit()
    assert "damaged_record" in {finding.code for finding in check_store(closed.root)}
