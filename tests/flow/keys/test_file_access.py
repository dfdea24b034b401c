"""Undeclared reads of a step are noticed."""

import csv
import importlib
import linecache
import os
import socket
import sqlite3
import subprocess
import sys

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.fs
import pyarrow.parquet as pq
import pytest

from clewline.flow.keys import file_access
from clewline.flow.keys.file_access import MemoisedCode, watch_reads
from clewline.flow.keys.opened_files import FolderWatch


@pytest.fixture
def root(tmp_path):
    root = tmp_path / "project"
    (root / "data").mkdir(parents=True)
    frame = pl.DataFrame({"a": [1, 2]})
    frame.write_csv(root / "data" / "in.csv")
    frame.write_parquet(root / "data" / "in.parquet")
    np.save(root / "data" / "in.npy", np.arange(3))
    return root


def reading_csv(path):
    with open(path) as file:
        return list(csv.reader(file))


READERS = {
    "open": ("in.csv", reading_csv),
    "pathlib": ("in.csv", lambda path: path.read_text()),
    "numpy": ("in.npy", np.load),
    "pandas": ("in.csv", pd.read_csv),
    "polars": ("in.csv", lambda path: pl.read_csv(path)),
    "polars, lazily": ("in.parquet", lambda path: pl.scan_parquet(str(path)).collect()),
    "polars, by keyword": ("in.csv", lambda path: pl.read_csv(source=path)),
    "polars, by pattern": ("in.csv", lambda path: pl.read_csv(path.parent / "*.csv")),
    "arrow": ("in.parquet", lambda path: pq.read_table(path)),
    "sqlite": ("in.db", lambda path: sqlite3.connect(path).close()),
}


@pytest.mark.parametrize(("name", "read"), READERS.values(), ids=READERS)
def test_an_undeclared_read_is_named(root, name, read):
    path = root / "data" / name
    if name == "in.db":
        sqlite3.connect(path).close()
        path.write_bytes(b"")
    with watch_reads(root) as reads:
        read(path)
    assert f"data/{name}" in reads.undeclared()
    assert "Path parameter" in reads.undeclared()


@pytest.mark.parametrize("declared", ["data", "data/in.csv"])
def test_a_declared_input_is_no_undeclared_read(root, declared):
    with watch_reads(root) as reads:
        reading_csv(root / "data" / "in.csv")
        pl.read_csv(root / "data" / "in.csv")
    assert reads.undeclared([root / declared]) is None


def test_a_read_outside_of_the_project_is_named_in_full(root, tmp_path):
    (tmp_path / "elsewhere.txt").write_text("x")
    with watch_reads(root) as reads:
        (tmp_path / "elsewhere.txt").read_text()
    assert str(tmp_path / "elsewhere.txt") in reads.undeclared()


def test_a_file_that_the_step_wrote_is_not_an_input(root):
    with watch_reads(root) as reads:
        (root / "made.txt").write_text("x")
        (root / "made.txt").read_text()
    assert reads.undeclared() is None


@pytest.mark.parametrize("mode", ["a", "r+", "a+"])
def test_a_file_that_the_step_added_to_is_an_input_if_it_reads_it(root, mode):
    """What stood in it before is read too."""
    old, new = root / "data" / "in.csv", root / "new.csv"
    with watch_reads(root) as reads:
        if mode != "r+":
            with open(new, mode) as file:
                file.write("a")
            new.read_text()
        with open(old, mode) as file:
            file.write("3\n")
        old.read_text()
    assert [os.path.basename(path) for path in reads.paths()] == ["in.csv"]


def test_a_file_that_the_step_only_adds_to_is_no_input(root):
    with watch_reads(root) as reads, open(root / "data" / "in.csv", "a") as file:
        file.write("3\n")
    assert reads.undeclared() is None


def test_code_packages_the_store_and_the_system_are_no_inputs(root, monkeypatch):
    (root / ".clewline").mkdir()
    (root / ".clewline" / "catalog.db").write_text("x")
    (root / "watched_code.py").write_text("x = 1")
    monkeypatch.syspath_prepend(str(root))
    with watch_reads(root) as reads:
        (root / ".clewline" / "catalog.db").read_text()
        linecache.getline(str(importlib.import_module("watched_code").__file__), 1)
        open("/proc/self/status").close()
        from sklearn.datasets import load_wine

        load_wine()
    assert reads.undeclared() is None


def test_code_that_is_read_as_text_is_an_input(root):
    (root / "code.py").write_text("x = 1")
    with watch_reads(root) as reads:
        exec((root / "code.py").read_text(), {})
    assert "code.py" in reads.undeclared()


@pytest.mark.parametrize("listed", [os.listdir, lambda path: list(path.glob("*.csv"))])
def test_a_listing_of_a_folder_is_an_undeclared_read(root, listed):
    with watch_reads(root) as reads:
        listed(root / "data")
    assert "read data," in reads.undeclared()
    assert reads.undeclared([root / "data"]) is None


def test_a_folder_that_the_step_created_may_be_listed(root):
    with watch_reads(root) as reads:
        (root / "made").mkdir()
        os.listdir(root / "made")
    assert reads.undeclared() is None


def test_a_program_that_the_project_starts_is_named_since_its_reads_are_not_seen(root):
    with watch_reads(root) as reads:
        subprocess.run(["true"], check=True)
    assert "the program true" in reads.undeclared()


def test_a_program_that_a_package_starts_is_its_own_affair(root):
    from joblib.externals.loky.backend import context

    with watch_reads(root) as reads:
        context._count_physical_cores()
    assert reads.undeclared() is None


def test_nothing_is_noted_outside_of_the_watch(root):
    with watch_reads(root) as reads:
        pass
    reading_csv(root / "data" / "in.csv")
    assert reads.paths() == []


def test_a_library_that_the_step_itself_imports_is_watched_too(root):
    program = (
        "import sys\nfrom pathlib import Path\n"
        "from clewline.flow.keys.file_access import watch_reads\n"
        "assert 'polars' not in sys.modules\n"
        "with watch_reads(Path(sys.argv[1])) as reads:\n"
        "    import polars as pl\n"
        "    pl.read_csv(sys.argv[1] + '/data/in.csv')\n"
        "print(reads.undeclared())\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(root)], capture_output=True, text=True, check=True
    )
    assert "data/in.csv" in done.stdout


# Asked of the kernel


@pytest.fixture
def watched(root):
    """Watches a block with the kernel's help."""
    return lambda **options: watch_reads(root, kernel=True, **options)


def read_in_child(path):
    child = os.fork()
    if child == 0:
        path.read_text()
        os._exit(0)
    os.waitpid(child, 0)


COMPILED = {
    "arrow, a file": ("in.parquet", lambda path: pq.ParquetFile(path).read()),
    "arrow, a dataset": ("in.parquet", lambda path: pq.ParquetDataset(path).read()),
    "arrow, a memory map": ("in.csv", lambda path: pa.memory_map(str(path)).read()),
    "arrow, a map that stays": ("in.csv", lambda path: KEPT.append(pa.memory_map(str(path)))),
    "arrow, a file system": (
        "in.csv",
        lambda path: pa.fs.LocalFileSystem().open_input_file(str(path)).read(),
    ),
    "sqlite, attached": (
        "in.db",
        lambda path: sqlite3.connect(":memory:").execute(f"ATTACH '{path}' AS t").fetchall(),
    ),
    "a child process": ("in.csv", read_in_child),
    "a program of a package": ("in.csv", lambda path: os.waitpid(spawned(path), 0)),
}
KEPT = []


def spawned(path):
    """A process that no audit event tells of, as multiprocessing's are."""
    command = [sys.executable, "-c", f"open({str(path)!r}).read()"]
    return _posixsubprocess_exec(command)


def _posixsubprocess_exec(command):
    from multiprocessing.util import spawnv_passfds

    return spawnv_passfds(os.fsencode(command[0]), command, [])


@pytest.mark.parametrize(("name", "read"), COMPILED.values(), ids=COMPILED)
def test_a_read_without_an_audit_event_is_named(root, watched, name, read):
    path = root / "data" / name
    if name == "in.db":
        with sqlite3.connect(path) as database:
            database.execute("CREATE TABLE t (x)")
        database.close()
    os.utime(path, (1, 1))
    with watched() as reads:
        read(path)
    KEPT.clear()
    assert f"opened data/{name}" in reads.undeclared()
    assert reads.undeclared([root / "data"]) is None


def test_a_plan_made_before_the_step_reads_within_it(root, watched):
    plan = pl.scan_csv(root / "data" / "in.csv")
    with watched() as reads:
        plan.collect()
    assert "data/in.csv" in reads.undeclared()


def test_what_compiled_code_writes_is_not_an_input(root, watched):
    with watched() as reads:
        for _ in range(2):
            pl.DataFrame({"a": [1]}).write_parquet(root / "out.parquet")
            pq.ParquetFile(root / "out.parquet").read()
            pl.read_parquet(root / "out.parquet")
        (root / "deep" / "er").mkdir(parents=True)
        pl.DataFrame({"a": [1]}).write_parquet(root / "deep" / "er" / "out.parquet")
        pl.read_parquet(root / "deep" / "er" / "*.parquet")
    assert reads.undeclared() is None


def test_a_file_that_compiled_code_writes_anew_is_not_an_input(root, watched):
    os.utime(root / "data" / "in.parquet", (1, 1))
    with watched() as reads:
        pl.DataFrame({"a": [1]}).write_parquet(root / "data" / "in.parquet")
        pl.read_parquet(root / "data" / "in.parquet")
    assert reads.undeclared() is None


def test_a_file_that_is_read_before_it_is_written_is_an_input(root, watched):
    for write in (pl.DataFrame({"a": [1]}).write_parquet, lambda path: path.write_text("x")):
        with watched() as reads:
            pl.read_parquet(root / "data" / "in.parquet")
            write(root / "data" / "in.parquet")
        assert "read data/in.parquet" in reads.undeclared()


def test_a_file_in_a_folder_made_meanwhile_is_watched(root, watched):
    with watched():
        (root / "new").mkdir()
        pl.DataFrame({"a": [1]}).write_parquet(root / "new" / "in.parquet")
    with watched() as reads:
        pq.ParquetFile(root / "new" / "in.parquet").read()
    assert "new/in.parquet" in reads.undeclared()


def test_a_folder_behind_a_link_is_watched(root, watched, tmp_path):
    (tmp_path / "store" / "deep").mkdir(parents=True)
    (tmp_path / "store" / "deep" / "in.csv").write_text("x")
    (root / "linked").symlink_to(tmp_path / "store")
    (root / "linked" / "back").symlink_to(root)
    (root / "up").symlink_to(tmp_path)
    with watched() as reads:
        pa.OSFile(str(root / "linked" / "deep" / "in.csv")).read()
    assert "store/deep/in.csv" in reads.undeclared()


def test_a_named_file_outside_of_the_project_is_watched(root, watched, tmp_path):
    named, other = tmp_path / "named.parquet", tmp_path / "other.parquet"
    for path in (named, other):
        pl.DataFrame({"a": [1]}).write_parquet(path)
    with watched(places=[str(named)]) as reads:
        pq.ParquetFile(other).read()
    assert reads.undeclared() is None
    with watched(places=[str(named)]) as reads:
        pq.ParquetFile(named).read()
    assert str(named) in reads.undeclared()


def test_a_declared_folder_of_many_files_does_not_flood_the_kernel(root, watched):
    many = root / "many"
    many.mkdir()
    for index in range(6000):
        (many / str(index)).write_bytes(b"")
    with watched(declared=[many]) as reads:
        for index in range(6000):
            os.close(os.open(many / str(index), os.O_RDONLY))
    assert reads.undeclared([many]) is None
    with watched() as reads:  # it is watched again
        pa.memory_map(str(root / "data" / "in.csv"))
    assert "in.csv" in reads.undeclared()


def test_too_many_opened_files_are_said(root, watched):
    with watched() as reads:
        reads.note_event("", 0)
    assert "max_queued_events" in reads.undeclared()


def test_a_kernel_that_refuses_is_said(root, watched, monkeypatch):
    monkeypatch.setattr(file_access, "_kernel", {})
    monkeypatch.setattr(FolderWatch, "add", lambda watch, *_: watch._fail("inotify_add_watch"))
    with watched() as reads:
        pass
    assert "inotify_add_watch failed" in reads.undeclared()


# Questions, connections, memoised


@pytest.fixture
def asking(root, monkeypatch):
    """A module of the project that asks about a file."""
    (root / "asking_code.py").write_text(
        "import functools, os\nfrom pathlib import Path\n\n"
        "def by_stat(path): os.stat(path)\n"
        "def by_exists(path): Path(path).exists()\n"
        "def by_path_exists(path): os.path.exists(path)\n"
        "def by_size(path): os.path.getsize(path)\n"
        "def resolved(path): return Path(path).resolve()\n"
        "def made(path): Path(path).mkdir(exist_ok=True); Path(path).is_dir()\n"
        "@functools.lru_cache\ndef remembered(path): return Path(path).read_text()\n"
    )
    monkeypatch.syspath_prepend(str(root))
    yield importlib.import_module("asking_code")
    del sys.modules["asking_code"]


@pytest.mark.parametrize("way", ["by_stat", "by_exists", "by_path_exists", "by_size"])
def test_a_question_about_a_file_is_named(root, asking, way):
    with watch_reads(root) as reads:
        getattr(asking, way)(root / "data" / "in.csv")
    assert "asked about data/in.csv" in reads.undeclared()
    assert reads.undeclared([root / "data"]) is None


def test_a_question_about_a_file_that_is_not_there_is_named(root, asking):
    with watch_reads(root) as reads:
        asking.by_exists(root / "override.csv")
    assert "asked about override.csv" in reads.undeclared()


def test_a_file_that_is_missing_is_an_input(root):
    with watch_reads(root) as reads, pytest.raises(FileNotFoundError):
        (root / "override.csv").read_text()
    assert "asked about override.csv" in reads.undeclared()


def test_a_link_that_is_resolved_is_an_input(root, asking):
    (root / "now").symlink_to("data/in.csv")
    with watch_reads(root) as reads:
        asking.resolved(root / "now")
    assert "asked about" in reads.undeclared()


def test_questions_about_what_the_step_makes_are_no_inputs(root, asking):
    with watch_reads(root) as reads:
        asking.resolved(root / "data")
        asking.made(root / "made")
        asking.made(root / "made")
        asking.by_exists(root / "out")
        asking.by_exists(root)
        (root / "out").mkdir()
        (root / "out" / "x").write_text("x")
    assert reads.undeclared() is None


def test_a_connection_is_named(root):
    with socket.socket() as server, watch_reads(root) as reads:
        server.bind(("127.0.0.1", 0))
        server.listen()
        socket.create_connection(server.getsockname()).close()
    assert "connected to 127.0.0.1:" in reads.undeclared()


def test_an_address_that_compiled_code_reads_is_named(root):
    with watch_reads(root) as reads, pytest.raises(Exception):  # noqa: B017
        pl.read_parquet("s3://127.0.0.1:1/x.parquet", storage_options={"max_retries": "0"})
    assert "connected to s3://127.0.0.1:1/x.parquet" in reads.undeclared()


def test_what_a_memoised_function_has_read_before_counts_again(root, asking):
    memoised = MemoisedCode(asking.__file__, "remembered")
    asking.remembered(root / "data" / "in.csv")
    with watch_reads(root) as reads:
        asking.remembered(root / "data" / "in.csv")
        reads.note_memoised([memoised])
    assert "read data/in.csv" in reads.undeclared()


def test_what_a_memoised_function_reads_is_remembered_up_to_a_limit(root, asking, monkeypatch):
    monkeypatch.setattr(file_access, "MOST_REMEMBERED", 3)
    memoised = MemoisedCode(asking.__file__, "remembered")
    for number in range(9):
        (root / "data" / str(number)).write_text("x")
    undeclared = []
    for number in range(9):
        asking.remembered(root / "data" / str(number))
        with watch_reads(root) as reads:
            reads.note_memoised([memoised])
        undeclared.append(reads.undeclared([root / "data"]))
    assert undeclared[:3] == [None] * 3
    assert "remembered in asking_code.py has read more than 3 files" in undeclared[3]
    assert undeclared[3:] == [undeclared[3]] * 6
    assert len(file_access._remembered[memoised]) == 4
