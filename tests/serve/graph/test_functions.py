"""Functions of a graph are recorded with all that they reach, and loaded from that alone."""

from __future__ import annotations

import gc
import sys
import traceback
import weakref
from pathlib import Path
from typing import Any

import pytest

from clewline.errors import InvalidConfig, NotFound
from clewline.project import Project
from clewline.serve.graph import functions
from clewline.store.store import Store


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """A project whose `nodes.py` reaches a helper, a package, and a library."""
    Store.create(tmp_path / ".clewline").close()
    write(
        tmp_path,
        {
            "nodes.py": (
                "import polars as pl\n"
                "from helpers import add\n"
                "import lib.deep.more as more\n"
                "def tidy(table: pl.DataFrame) -> pl.DataFrame: return add(table)\n"
                "def late(rows: list[dict]):\n"
                "    import lazy\n"
                "    return lazy.VALUE\n"
                "class Prep:\n"
                "    def __init__(self, by=1): self.by = by; self.calls = 0\n"
                "    def __call__(self, table: 'np.ndarray'):\n"
                "        self.calls += 1\n"
                "        return table * self.by + self.calls\n"
                "NUMBER = 3\n"
            ),
            "helpers.py": "STEP = 1\ndef add(value): return value + STEP\n",
            "lazy.py": "VALUE = 'late'\n",
            "lib/__init__.py": "",
            "lib/deep/more.py": "from . import sister\nfrom .sister import NAME\n",
            "lib/deep/sister.py": "NAME = 'sister'\n",
            "other.py": "raise SystemExit('nobody reaches this')\n",
            "README.md": "words",
        },
    )
    return Project(tmp_path, "loans", "0")


def write(root: Path, files: dict[str, str]) -> None:
    for path, text in files.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(text)


def test_a_snapshot_holds_what_the_functions_reach_and_nothing_else(project: Project) -> None:
    found = functions.read_functions(project, ["nodes.py:tidy"])
    reached = ["helpers.py", "lazy.py", "lib/__init__.py", "lib/deep/more.py"]
    assert sorted(found.files) == sorted([*reached, "lib/deep/sister.py", "nodes.py"])
    before = found.digest
    write(project.root, {"README.md": "other words", "other.py": "pass\n"})
    assert functions.read_functions(project, ["nodes.py:tidy"]).digest == before
    write(project.root, {"lib/deep/sister.py": "NAME = 'brother'\n"})
    assert functions.read_functions(project, ["nodes.py:tidy"]).digest != before


def test_what_is_called_comes_from_the_snapshot_and_two_of_them_live_side_by_side(
    project: Project,
) -> None:
    with Store.open(project.store_root) as store:
        first = functions.read_functions(project, ["nodes.py:tidy"]).store(store.blobs)
        write(project.root, {"helpers.py": "STEP = 10\ndef add(value): return value + STEP\n"})
        second = functions.read_functions(project, ["nodes.py:tidy"]).store(store.blobs)
    for path in ("helpers.py", "nodes.py", "lazy.py"):
        (project.root / path).unlink()
    old, new = functions.load_functions(project, first), functions.load_functions(project, second)
    assert (old.get("nodes.py:tidy")(1), new.get("nodes.py:tidy")(1)) == (2, 11)
    assert old.get("nodes.py:late")([]) == "late"
    assert not {"nodes", "helpers", "lazy"} & set(sys.modules)
    again = functions.load_functions(project, first)
    old.close()
    old.close()
    assert again.get("nodes.py:late")([]) == "late"
    again.close()
    new.close()
    assert not [name for name in sys.modules if name.startswith("clewline_code_")]


def test_a_class_is_built_once_with_its_config_and_called(project: Project) -> None:
    with_code = functions.functions_of(functions.read_functions(project, ["nodes.py:Prep"]))
    made = with_code.get("nodes.py:Prep", {"by": 10})
    assert (made(1), made(1)) == (11, 12)
    assert with_code.get("nodes.py:Prep", {"by": 10}) is made
    assert with_code.get("nodes.py:Prep")(1) == 2
    with pytest.raises(InvalidConfig, match=r"built with config .*: TypeError"):
        with_code.get("nodes.py:Prep", {"of": 1})
    with pytest.raises(InvalidConfig, match="NUMBER is a int, which cannot be called"):
        with_code.get("nodes.py:NUMBER")
    with pytest.raises(InvalidConfig, match="NUMBER is a int, which cannot be called"):
        with_code.frame("nodes.py:NUMBER")
    with pytest.raises(NotFound, match=r"no function or class 'tidi'. Did you mean 'tidy'"):
        with_code.get("nodes.py:tidi")
    with_code.close()


def test_a_function_says_by_its_annotation_what_it_takes(project: Project) -> None:
    write(
        project.root,
        {
            "plain.py": (
                "from __future__ import annotations\n"
                "from typing import TYPE_CHECKING\n"
                "if TYPE_CHECKING:\n    import pandas as pd\n"
                "def a(table: pd.DataFrame): ...\n"
                "def b(table): ...\n"
                "def c(rows: list[dict[str, object]]): ...\n"
                "def d(rows: int): ...\n"
            )
        },
    )
    with_code = functions.functions_of(
        functions.read_functions(project, ["nodes.py:Prep", "plain.py:a"])
    )
    names = ("nodes.py:tidy", "nodes.py:Prep", "nodes.py:late", *(f"plain.py:{c}" for c in "abcd"))
    frames = [with_code.frame(name) for name in names]
    assert frames == ["polars", "numpy", "rows", "pandas", None, "rows", None]
    with_code.close()


@pytest.mark.parametrize(
    ("files", "error", "message"),
    [
        ({}, NotFound, "There is no file nods.py. Did you mean nodes.py"),
        ({"nods.py": "def f(:"}, InvalidConfig, "nods.py:1 is not valid Python"),
        ({"nods.py": "import importlib\nimportlib.import_module('a')"}, InvalidConfig, "nods.py:2"),
        ({"nods.py": "import outside_of_it"}, InvalidConfig, "imports outside_of_it, which is"),
    ],
)
def test_code_that_no_snapshot_can_hold_is_refused(
    project: Project,
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
    files: dict[str, str],
    error: type[Exception],
    message: str,
) -> None:
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    write(elsewhere, {"outside_of_it.py": ""})
    monkeypatch.syspath_prepend(str(elsewhere))
    write(project.root, files)
    with pytest.raises(error, match=message):
        functions.read_functions(project, ["nods.py:f"])


def test_a_file_that_raises_is_named_and_its_lines_stand_in_the_traceback(
    project: Project,
) -> None:
    write(project.root, {"bad.py": "def f(rows):\n    return rows.nope  # here\n\n1 / 0\n"})
    with_code = functions.functions_of(functions.read_functions(project, ["bad.py:f"]))
    with pytest.raises(InvalidConfig, match="cannot be loaded: ZeroDivisionError") as caught:
        with_code.get("bad.py:f")
    told = "".join(traceback.format_exception(caught.value))
    assert "1 / 0" in told
    assert "bad.py@" in told
    with_code.close()


@pytest.mark.parametrize("raised", ["BaseException('no')", "SystemExit(3)", "GeneratorExit"])
def test_code_that_raises_what_is_no_exception_is_named_as_well(
    project: Project, raised: str
) -> None:
    name = raised.partition("(")[0]
    write(
        project.root,
        {
            "bad.py": f"raise {raised}\n",
            "built.py": f"class Prep:\n    def __init__(self):\n        raise {raised}\n",
        },
    )
    with_code = functions.functions_of(
        functions.read_functions(project, ["bad.py:f", "built.py:Prep"])
    )
    with pytest.raises(InvalidConfig, match=f"bad.py cannot be loaded: {name}"):
        with_code.get("bad.py:f")
    with pytest.raises(InvalidConfig, match=f"built with no arguments: {name}"):
        with_code.get("built.py:Prep")
    with_code.close()


def test_code_is_read_back_whole(project: Project) -> None:
    found = functions.read_functions(project, ["nodes.py:tidy"])
    with Store.open(project.store_root) as store:
        digest = found.store(store.blobs)
    assert digest == found.digest
    assert functions.stored_files(project, digest) == found


def test_closed_code_leaves_memory_without_a_collection(project: Project) -> None:
    """Servers of many endpoints freeze what the collector walks, so it would find none of it."""
    text = "import numpy as np\nTABLE = np.zeros(9)\ndef look(value): return TABLE[value]\n# %d\n"
    gone: list[weakref.ref[Any]] = []
    gc.collect()
    gc.disable()
    try:
        for state in range(50):
            write(project.root, {"tables.py": text % state})
            with_code = functions.functions_of(
                functions.read_functions(project, ["tables.py:look"])
            )
            look = with_code.get("tables.py:look")
            assert look(3) == 0
            gone += [weakref.ref(look), weakref.ref(look.__globals__["TABLE"])]
            del look
            with_code.close()
            assert not [each for each in gone if each() is not None]
    finally:
        gc.enable()
