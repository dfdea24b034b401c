"""Rows that a graph splits and merges keep their own answers, ways and errors."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support import PATIENCE_S

from clewline.errors import FieldProblem, InvalidInput, ModelFailed
from clewline.model.runtime import Outputs
from clewline.model.runtime.outputs import take_rows
from clewline.serve.graph.node import Batch, Node, NodeAnswers
from clewline.serve.graph.nodes.combine import ParallelBranches
from clewline.serve.graph.nodes.route import ArmChoices, answer_by_arms
from clewline.serve.graph.row_trace import row_traces
from clewline.serve.log.frame import RoutePath
from clewline.signature.columns import Columns
from clewline.store.ids import prediction_ids

Grow = Callable[..., Node]
QUIET = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])


class Times:
    """An arm that multiplies, and refuses 13 as a model's own encoder would."""

    def __init__(self, factor: float) -> None:
        self.factor = factor

    def answer(self, batch: Batch) -> NodeAnswers:
        values = batch.columns.numbers[:, 0]
        bad = np.flatnonzero(values == 13).tolist()
        if bad:
            problems = tuple(FieldProblem(row, "x", 13, "another number") for row in bad)
            raise InvalidInput("13", None, problems)
        marks = {f"x{self.factor}": values.astype(np.uint32)}
        way = RoutePath(f"x{self.factor}@1", ((f"x{self.factor}", 1.0),))
        return NodeAnswers(Outputs(values=values * self.factor), (way,), None, marks)


ARMS: Any = [(f"arm-{factor}", Times(factor)) for factor in (1.0, 10.0, 100.0)]


def batch(values: list[float]) -> Batch:
    columns = Columns(np.array(values)[:, np.newaxis], np.empty((len(values), 0), dtype=object))
    return Batch(columns, prediction_ids(len(values)), [f"c-{value}" for value in values])


def chosen(arms: list[int], propensities: list[float] | None = None) -> ArmChoices:
    shares = np.array(propensities or [0.5] * len(arms))
    return ArmChoices("route", np.array(arms), shares, 7, 1.5)


PAIRS = st.lists(
    st.tuples(st.integers(0, 12), st.integers(0, 2), st.sampled_from([0.1, 0.5, 1.0])),
    min_size=1,
    max_size=30,
)


@given(PAIRS)
def test_each_row_gets_the_answer_way_and_mark_of_its_own_arm(
    pairs: list[tuple[int, int, float]],
) -> None:
    values, arms, shares = zip(*pairs, strict=True)
    answered = answer_by_arms(
        batch([float(v) for v in values]), chosen(list(arms), list(shares)), ARMS
    )
    assert answered.outputs.values is not None
    expected = [value * 10**arm for value, arm in zip(values, arms, strict=True)]
    assert answered.outputs.values.tolist() == expected
    found = row_traces(answered, len(pairs))
    for trace, (value, arm, share) in zip(found, pairs, strict=True):
        name = f"x{10.0**arm}"
        assert (trace.path.model, trace.path.arm) == (f"{name}@1", f"arm-{10.0**arm}")
        assert [(c.propensity, c.state) for c in trace.path.choices] == [(share, 7)]
        assert [node for node, _ in trace.path.path] == ["route", name]
        assert trace.checksums == np.array([arm, value], dtype="<u4").tobytes()
    assert len(answered.paths) == len(set(zip(arms, shares, strict=True)))


def test_a_row_that_an_arm_refuses_is_named_by_its_place_in_the_batch() -> None:
    with pytest.raises(InvalidInput) as refused:
        answer_by_arms(batch([1, 2, 13, 4, 13]), chosen([0, 1, 1, 0, 1]), ARMS)
    assert [problem.row for problem in refused.value.fields] == [2, 4]


GRAPH: dict[str, Any] = {
    "kind": "combine",
    "name": "mean",
    "how": "mean",
    "config": {},
    "branches": {
        "routed": {
            "kind": "route",
            "name": "route",
            "how": "weights",
            "config": {"weights": {"a": 0.5, "b": 0.5}},
            "arms": {
                "a": {"kind": "score", "name": "a", "takes": ["x"]},
                "b": {
                    "kind": "route",
                    "name": "inner",
                    "how": "sticky",
                    "config": {},
                    "arms": {
                        "c": {"kind": "score", "name": "c", "bias": 3, "takes": ["x"]},
                        "d": {"kind": "score", "name": "d", "bias": 7, "takes": ["x"]},
                    },
                },
            },
        },
        "plain": {"kind": "score", "name": "plain", "takes": ["x"]},
    },
}


@QUIET
@given(values=st.lists(st.floats(-5, 5), min_size=1, max_size=20), cut=st.integers(0, 20))
def test_a_batch_cut_in_two_is_answered_as_the_whole(
    grow: Grow, values: list[float], cut: int
) -> None:
    node, whole = grow(GRAPH), batch(values)
    together = known(node, whole)
    apart = [
        row
        for piece in (slice(0, cut), slice(cut, None))
        if whole.ids[piece]
        for row in known(
            node, Batch(take_rows(whole.columns, piece), whole.ids[piece], whole.entities[piece])
        )
    ]
    assert together == apart


def known(node: Node, asked: Batch) -> list[tuple[Any, ...]]:
    answered = node.answer(asked)
    assert answered.outputs.values is not None
    values = answered.outputs.values.tolist()
    return [
        (value, trace.path.arm, trace.path.model, trace.path.choices, trace.checksums)
        for value, trace in zip(values, row_traces(answered, len(values)), strict=True)
    ]


def test_nested_arms_are_joined_and_every_choice_is_kept(grow: Grow) -> None:
    node = grow(GRAPH["branches"]["routed"])
    ways = node.answer(batch([float(i) for i in range(64)])).paths
    assert {way.arm for way in ways} == {"a", "b/c", "b/d"}
    for way in ways:
        assert [choice.node for choice in way.choices] == ["route", "inner"][: 1 + ("/" in way.arm)]


def test_an_arm_with_its_labels_in_another_order_answers_in_that_of_the_first(
    grow: Grow,
) -> None:
    arms = {
        name: {"kind": "score", "name": name, "takes": ["x"], "labels": labels}
        for name, labels in (("a", ["no", "yes"]), ("b", ["yes", "no"]))
    }
    route = {"kind": "route", "name": "route", "how": "sticky", "config": {}, "arms": arms}
    values = np.linspace(-5, 5, 64)
    answered = grow(route).answer(batch(values.tolist()))
    assert len(answered.paths) == 2
    outputs = answered.outputs
    assert outputs.choices is not None
    assert outputs.probabilities is not None
    assert outputs.choices.tolist() == (values > 0).astype(int).tolist()
    assert np.allclose(outputs.probabilities[:, 1], 1 / (1 + np.exp(-values)))


def test_what_a_function_makes_must_fit_what_follows(grow: Grow) -> None:
    tree = {"kind": "transform", "name": "t", "function": "nodes.py:wrong", "frame": "rows",
            "then": {"kind": "score", "name": "m", "takes": ["x", "y"]}}  # fmt: skip
    asked = Batch(
        Columns(np.array([[1.0, 0.0], [3.0, 0.0]]), np.empty((2, 0), dtype=object)),
        prediction_ids(2),
        [None, None],
    )
    with pytest.raises(ModelFailed, match=r"does not fit the next node: .*row 1, field 'x': 'one'"):
        grow(tree).answer(asked)
    with pytest.raises(ModelFailed, match="got 2 rows and gave 1 rows"):
        grow({**tree, "function": "nodes.py:short"}).answer(asked)
    with pytest.raises(ModelFailed, match="'t' raised AttributeError"):
        grow({**tree, "function": "nodes.py:shifted"}).answer(asked)


def test_a_label_that_the_endpoint_does_not_have_is_no_answer(grow: Grow) -> None:
    of = {"kind": "score", "name": "m", "takes": ["x"], "labels": ["no", "yes"]}
    tree = {"kind": "after", "name": "after", "function": "nodes.py:unheard", "frame": "rows"}
    with pytest.raises(ModelFailed, match="Row 0: the label is 'maybe'"):
        grow({**tree, "of": of}).answer(batch([1.0]))


class Waits:
    """A branch that answers only while another one is answering."""

    def __init__(self, meet: threading.Barrier) -> None:
        self.meet = meet

    def answer(self, asked: Batch) -> NodeAnswers:
        self.meet.wait(PATIENCE_S)
        return Times(1.0).answer(asked)


def test_branches_that_cost_much_run_beside_each_other() -> None:
    with ThreadPoolExecutor(1) as threads:
        both: Any = [Waits(threading.Barrier(2))] * 2
        branches = ParallelBranches(both, threads)
        for cost in branches._costs:
            cost.observe(1, 0.01)
        assert len(branches.answer(batch([1.0]))) == 2


def test_cheap_branches_run_here_one_after_another() -> None:
    with ThreadPoolExecutor(1) as threads:
        names: list[str] = []

        class Named(Times):
            def answer(self, asked: Batch) -> NodeAnswers:
                names.append(threading.current_thread().name)
                return super().answer(asked)

        both: Any = [Named(1.0), Named(2.0)]
        branches = ParallelBranches(both, threads)
        for _ in range(5):
            branches.answer(batch([1.0]))
        assert set(names) == {threading.current_thread().name}


def test_branches_in_branches_need_no_more_threads_than_there_are() -> None:
    with ThreadPoolExecutor(1) as threads:

        class Inner:
            def __init__(self, depth: int) -> None:
                below: Any = [Inner(depth - 1) if depth else Times(1.0) for _ in range(2)]
                self.branches = ParallelBranches(below, threads)
                for cost in self.branches._costs:
                    cost.observe(1, 0.01)

            def answer(self, asked: Batch) -> NodeAnswers:
                return self.branches.answer(asked)[1]

        values = Inner(3).answer(batch([5.0])).outputs.values
        assert values is not None
        assert values.tolist() == [5.0]


def test_when_a_branch_fails_the_others_are_at_rest_before_it_is_told() -> None:
    running = threading.Event()

    class Slow(Times):
        def answer(self, asked: Batch) -> NodeAnswers:
            running.set()
            found = super().answer(asked)
            running.clear()
            return found

    class Fails(Times):
        def answer(self, asked: Batch) -> NodeAnswers:
            raise ModelFailed("no")

    with ThreadPoolExecutor(1) as threads:
        both: Any = [Fails(1.0), Slow(1.0)]
        branches = ParallelBranches(both, threads)
        for cost in branches._costs:
            cost.observe(1, 0.01)
        with pytest.raises(ModelFailed):
            branches.answer(batch([1.0]))
        assert not running.is_set()
