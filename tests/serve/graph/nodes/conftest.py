"""Graphs made by hand, with the nodes and the router of a plug-in."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from clewline.project import Project
from clewline.serve.graph.builder import Builder
from clewline.serve.graph.functions import FunctionFiles, functions_of
from clewline.serve.graph.node import Node
from clewline.serve.model_cache.loaded_models import SharedModels
from clewline.store.digest import Digest
from clewline.store.records import Revision

Grow = Callable[..., Node]
Tree = dict[str, Any]

FUNCTIONS = b"""
def shifted(table):
    return table.with_columns(x=table["x"] + 1)

def shifted_rows(rows, by=1):
    return [{**row, "x": row["x"] + by} for row in rows]

def shifted_pandas(table):
    return table.assign(x=table["x"] + 1)

def shifted_array(array):
    array[:, 0] += 1
    return array

def renamed(rows):
    return [{"x": row["a"], "y": float(row["b"] == "high"), "unused": None} for row in rows]

def wrong(rows):
    return [{"x": "one" if row["x"] == 3 else 0.0, "y": 0.0} for row in rows]

def short(rows):
    return rows[1:]

def leaves(given):
    raise SystemExit(3)

def interrupts(given):
    raise KeyboardInterrupt

def doubled(rows):
    return [{"value": 2 * row["value"]} for row in rows]

def sure(table):
    return table.with_columns(label=table["label"].replace("no", "yes"))

def unheard(rows):
    return [{**row, "label": "maybe"} for row in rows]

def least(tables):
    names = list(tables)
    return min(tables.values(), key=lambda table: 0) if len(names) == 1 else [
        min(rows, key=lambda row: row["value"]) for rows in zip(*tables.values())
    ]
"""


@pytest.fixture(autouse=True)
def _plugged(plug_in: None) -> None:
    """Every test here may name the nodes of the plug-in."""


@pytest.fixture
def grow(tmp_path: Path) -> Iterator[Grow]:
    """Make the node of a tree; everything is closed at the end."""
    built: list[Builder] = []
    functions = functions_of(FunctionFiles({"nodes.py": FUNCTIONS}))

    def make(tree: Tree, *, is_live: bool = True, **how: Any) -> Node:
        revision = Revision(
            endpoint=how.pop("endpoint", "demo"),
            number=1,
            spec={},
            models={},
            packages={"score@1": Digest("ab" * 32)},
            graph=tree,
            created=how.pop("created", 1_795_000_000.0),
        )
        build = Builder(revision, SharedModels(Project(tmp_path, "demo", "0" * 16)),
                        functions=functions, **how)  # fmt: skip
        build.is_live = is_live
        built.append(build)
        return build.node(tree)

    yield make
    for build in built:
        build.close()
    functions.close()
