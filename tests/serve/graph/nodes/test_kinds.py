"""Every kind of node keeps the contract, alone and inside of others."""

from __future__ import annotations

import signal
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from clewline.errors import InvalidConfig, ModelFailed
from clewline.serve.graph.node import Batch, Node
from clewline.signature.columns import Columns
from clewline.store.ids import prediction_ids
from clewline.testing.node import NodeContract

Tree = dict[str, Any]


def score(name: str, bias: float = 0.0, **more: Any) -> Tree:
    return {"kind": "score", "name": name, "bias": bias, "takes": ["x", "y"], **more}


def sorted_(name: str, *labels: str, bias: float = 0.0) -> Tree:
    return score(name, bias, labels=list(labels or ("no", "yes")))


def call(kind: str, function: str, frame: str, **more: Any) -> Tree:
    return {
        "kind": kind,
        "name": function,
        "function": f"nodes.py:{function}",
        "frame": frame,
    } | more


def route(how: str, config: Tree, name: str = "route", **arms: Tree) -> Tree:
    return {"kind": "route", "name": name, "how": how, "config": config, "arms": arms}


def combine(how: str, config: Tree | None = None, **branches: Tree) -> Tree:
    return {
        "kind": "combine",
        "name": how,
        "how": how,
        "config": config or {},
        "branches": branches,
    }


def batch(values: list[float]) -> Batch:
    numbers = np.array([[value, 0.0] for value in values])
    columns = Columns(numbers, np.empty((len(values), 0), dtype=object))
    return Batch(columns, prediction_ids(len(values)), [None] * len(values))


HALF = {"weights": {"a": 0.5, "b": 0.5}}
RULES = {
    "rules": [{"if": [{"field": "x", "is": ">", "value": 3}], "arm": "b"}],
    "otherwise": "a",
}
FIELDS = [{"name": "a", "kind": "number", "nullable": True, "bounds": [0, 9]},
          {"name": "b", "kind": "category", "levels": ["high", "low"]}]  # fmt: skip

TREES: dict[str, Callable[[], Tree]] = {
    "a user's node": lambda: score("m"),
    "weights": lambda: route("weights", HALF, a=score("a"), b=score("b", 1)),
    "sticky": lambda: route("sticky", {}, a=score("a"), b=score("b", 1)),
    "rules": lambda: route("rules", RULES, a=score("a"), b=score("b", 1)),
    "a user's router": lambda: route("greedy", {}, a=score("a"), b=score("b", 1)),
    "arms that take other fields": lambda: route(
        "weights", HALF, a=score("a"), b=score("b", takes=["z", "x"])
    ),
    "arms with labels in another order": lambda: route(
        "weights", HALF, a=sorted_("a"), b=sorted_("b", "yes", "no")
    ),
    "a route in a route": lambda: route(
        "weights",
        HALF,
        a=route("sticky", {}, name="inner", c=score("c"), d=score("d", 2)),
        b=score("b"),
    ),
    "mean": lambda: combine(
        "mean", {"weights": {"a": 0.3, "b": 0.7}}, a=sorted_("a"), b=sorted_("b")
    ),
    "mean of numbers": lambda: combine("mean", a=score("a"), b=score("b", 3)),
    "vote": lambda: combine(
        "vote", a=sorted_("a"), b=sorted_("b", bias=9), c=sorted_("c", bias=-9)
    ),
    "function": lambda: combine(
        "function", {"function": "nodes.py:least", "frame": "rows"}, a=score("a"), b=score("b", -3)
    ),
    "a route in a combination": lambda: combine(
        "mean", a=route("weights", HALF, a=score("c"), b=score("d", 1)), b=score("b", 3)
    ),
    "before, polars": lambda: call("transform", "shifted", "polars", then=score("m")),
    "before, pandas": lambda: call("transform", "shifted_pandas", "pandas", then=score("m")),
    "before, numpy": lambda: call("transform", "shifted_array", "numpy", then=score("m")),
    "before, rows": lambda: call(
        "transform", "shifted_rows", "rows", config={"by": 2}, then=score("m")
    ),
    "before, of other fields": lambda: call(
        "transform", "renamed", "rows", fields=FIELDS, then=score("m")
    ),
    "after": lambda: call("after", "doubled", "rows", of=score("m")),
    "after, of labels": lambda: call("after", "sure", "polars", of=sorted_("m")),
    "shadow": lambda: {
        "kind": "shadow",
        "name": "shadow",
        "of": score("m"),
        "shadows": {"s": score("s", takes=["y"])},
        "config": {},
    },
}


class TestKinds(NodeContract):
    @pytest.fixture(params=TREES)
    def node(self, request: pytest.FixtureRequest, grow: Callable[..., Node]) -> Node:
        tree = TREES[request.param]()
        if "other fields" in request.param and "before" in request.param:
            return grow({**tree, "fields": [{**FIELDS[0], "nullable": False}, FIELDS[1]]})
        return grow(tree)


@pytest.mark.parametrize(
    ("tree", "message"),
    [
        (route("weights", HALF, a=score("a"), b=sorted_("b")), "a number, and one of 'no', 'yes'"),
        (route("weights", HALF, a=score("a"), b=score("a")), "Two nodes of demo are called 'a'"),
        (route("weights", HALF), "has no arms"),
        (route("rules", RULES, a=score("a", takes=["y"]), b=score("b", takes=["y"])), "field 'x'"),
        (combine("vote", a=score("a"), b=score("b")), "gets a number, which it cannot use"),
        (call("transform", "shifted", "arrow", then=score("m")), "the frame 'arrow'"),
        (
            {
                "kind": "shadow",
                "name": "shadow",
                "of": score("m"),
                "shadows": {"s": score("s", takes=["z"])},
            },
            "takes the field 'z' as number, but the answering node has no such field",
        ),
    ],
)
def test_what_does_not_fit_together_is_refused(
    grow: Callable[..., Node], tree: Tree, message: str
) -> None:
    with pytest.raises(InvalidConfig, match=message):
        grow(tree)


def test_a_mean_of_numbers_weighs_them(grow: Callable[..., Node]) -> None:
    tree = combine("mean", {"weights": {"a": 3, "b": 1}}, a=score("a"), b=score("b", 8))
    outputs = grow(tree).answer(batch([0.0, 1.0])).outputs
    assert outputs.values is not None
    assert outputs.values.tolist() == [2.0, 3.0]


def test_a_mean_of_shares_and_a_vote_weigh_their_branches(grow: Callable[..., Node]) -> None:
    weights = {"weights": {"a": 1, "b": 1, "c": 6}}
    sides = {"a": 9.0, "b": 9.0, "c": -9.0}  # two are sure of "yes", the third of "no"

    def shares(how: str, config: Tree) -> list[float]:
        branches = {name: sorted_(name, bias=bias) for name, bias in sides.items()}
        outputs = grow(combine(how, config, **branches)).answer(batch([0.0])).outputs
        assert outputs.probabilities is not None
        return [round(float(share), 2) for share in outputs.probabilities[0]]

    for how in ("mean", "vote"):
        assert shares(how, weights) == [0.75, 0.25]
        assert shares(how, {}) == [0.33, 0.67]


def test_every_node_is_closed_once(grow: Callable[..., Node]) -> None:
    trees = [score("a"), score("b"), score("s")]
    tree = {
        "kind": "shadow",
        "name": "shadow",
        "of": route("weights", HALF, a=trees[0], b=trees[1]),
        "shadows": {"s": trees[2]},
    }
    node: Any = grow(tree)
    node._builder.close()
    assert [one["closed"] for one in trees] == [1, 1, 1]


LEAVING: dict[str, Callable[[str], Tree]] = {
    "transform": lambda name: call("transform", name, "rows", then=score("m")),
    "after": lambda name: call("after", name, "rows", of=score("m")),
    "combine": lambda name: combine(
        "function",
        {"function": f"nodes.py:{name}", "frame": "rows"},
        a=score("a"),
        b=score("b"),
    ),
}


@pytest.mark.parametrize("kind", LEAVING)
def test_a_function_that_ends_the_process_fails_its_rows_instead(
    grow: Callable[..., Node], kind: str
) -> None:
    with pytest.raises(ModelFailed, match="raised SystemExit"):
        grow(LEAVING[kind]("leaves")).answer(batch([1.0]))
    interrupting = grow(LEAVING[kind]("interrupts"))
    with pytest.raises(KeyboardInterrupt):  # at a terminal it is a person's
        interrupting.answer(batch([1.0]))
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)  # as a server's workers have it
    try:
        with pytest.raises(ModelFailed, match="raised KeyboardInterrupt"):
            interrupting.answer(batch([1.0]))
    finally:
        signal.signal(signal.SIGINT, before)
