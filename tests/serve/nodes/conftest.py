"""Graphs made by hand, with nodes and a router of a user's own, installed as a plug-in is."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from fairlead.project import Project
from fairlead.serve.code import Code, of_code
from fairlead.serve.graph import Builder, Node
from fairlead.serve.pool import ModelPool
from fairlead.store.digest import Digest
from fairlead.store.records import Revision

Grow = Callable[..., Node]
Tree = dict[str, Any]

PLUG_IN = '''
import numpy as np
from fairlead.model.runtime import Outputs
from fairlead.serve.answered import Answered
from fairlead.serve.frame import Way
from fairlead.signature.field import Field, Output, Signature


class Score:
    """Adds its fields and a bias: a number, or by its sign and size one of two labels."""

    def __init__(self, tree):
        fields = tuple(Field(name=name, kind="number", bounds=(-5, 5)) for name in tree["takes"])
        labels = tuple(tree.get("labels", ()))
        task = "binary" if labels else "regression"
        output = Output(name="y", task=task, labels=labels or None)
        self.signature = Signature(fields=fields, output=output)
        self._tree = tree
        rows = [{name: i - place for place, name in enumerate(tree["takes"])} for i in range(9)]
        self.background = repr(rows).replace("'", '"').encode()

    @classmethod
    def build(cls, tree, build):
        return cls(tree)

    def answer(self, batch):
        if (batch.columns.numbers == self._tree.get("fails")).any():
            raise RuntimeError("no answer to that")
        total = np.full(len(batch.ids), float(self._tree.get("bias", 0)))
        for column in batch.columns.numbers.T:
            total = total + column
        way = (Way(f"{self._tree['name'].replace('/', '-')}@1", ((self._tree["name"], 1.0),)),)
        if self.signature.output.labels is None:
            return Answered(Outputs(values=total), way)
        high = 1 / (1 + np.exp(-total))
        first = self.signature.output.labels[0] == "no"
        shares = np.column_stack([1 - high, high] if first else [high, 1 - high])
        return Answered(Outputs(choices=shares.argmax(axis=1), probabilities=shares), way)

    def close(self):
        self._tree["closed"] = self._tree.get("closed", 0) + 1


class Greedy:
    """A bandit: the arm that the state says is best, another with the probability epsilon."""

    learns = True

    def __init__(self, arms):
        self._arms = arms

    @classmethod
    def build(cls, config, setting):
        return cls(setting.arms)

    def choose(self, batch, state):
        from fairlead.serve.routers.draws import draws

        learned = {"epsilon": 1.0, "best": 0} if state is None else state.content
        epsilon, best = learned["epsilon"], learned["best"]
        share = epsilon / len(self._arms)
        shares = np.full(len(self._arms), share)
        shares[best] += 1 - epsilon
        chosen = np.searchsorted(np.cumsum(shares), draws("greedy", batch.ids) * shares.sum())
        return chosen, shares[chosen]
'''

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


@pytest.fixture(scope="session", autouse=True)
def plug_in(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Install a distribution that offers a kind of node and a kind of router."""
    folder = tmp_path_factory.mktemp("plug-in")
    (folder / "score_plug_in.py").write_text(PLUG_IN)
    about = folder / "score_plug_in-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: score-plug-in\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text(
        "[fairlead.nodes]\nscore = score_plug_in:Score\n"
        "[fairlead.routers]\ngreedy = score_plug_in:Greedy\n"
    )
    sys.path.insert(0, str(folder))
    yield
    sys.path.remove(str(folder))


@pytest.fixture
def grow(tmp_path: Path) -> Iterator[Grow]:
    """Make the node of a tree; everything is closed at the end."""
    built: list[Builder] = []
    functions = of_code(Code({"nodes.py": FUNCTIONS}))

    def make(tree: Tree, *, is_live: bool = True, **how: Any) -> Node:
        revision = Revision(
            endpoint="demo",
            number=1,
            spec={},
            models={},
            packages={"score@1": Digest("ab" * 32)},
            graph=tree,
            created=how.pop("created", 1_795_000_000.0),
        )
        build = Builder(revision, ModelPool(Project(tmp_path, "demo", "0" * 16)),
                        functions=functions, **how)  # fmt: skip
        build.is_live = is_live
        built.append(build)
        return build.node(tree)

    yield make
    for build in built:
        build.close()
    functions.close()
