"""Undeclared reads of a step are noticed."""

import csv
import importlib
import linecache
import os
import sqlite3
import subprocess
import sys

import numpy as np
import pandas as pd
import polars as pl
import pyarrow.parquet as pq
import pytest

from clewline.flow.keys.file_access import watch_reads


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
