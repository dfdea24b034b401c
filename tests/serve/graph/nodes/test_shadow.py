"""Shadows are asked beside the answer: compared, logged, counted, and dropped first."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from support import PATIENCE_S, wait_for

from clewline.model.runtime import Outputs
from clewline.serve.graph.node import Batch, Node, NodeAnswers
from clewline.serve.log.reader import get_prediction
from clewline.serve.shadow_runner import PIECE_ROWS, ShadowRunner, compare_outputs
from clewline.signature.columns import Columns
from clewline.store.ids import id_text, prediction_ids

Grow = Callable[..., Node]


def batch(values: list[float]) -> Batch:
    numbers = np.array([[value, 0.0] for value in values])
    columns = Columns(numbers, np.empty((len(values), 0), dtype=object))
    return Batch(columns, prediction_ids(len(values)), [None] * len(values))


def score(name: str, bias: float = 0.0, **more: Any) -> dict[str, Any]:
    return {"kind": "score", "name": name, "bias": bias, "takes": ["x", "y"], **more}


def shadowed(**shadows: dict[str, Any]) -> dict[str, Any]:
    return {
        "kind": "shadow", "name": "shadow", "of": score("m"), "shadows": shadows, "config": {}
    }  # fmt: skip


def said(folder: Path, identifier: bytes) -> dict[str, Any]:
    found: dict[str, Any] = msgspec.json.decode(get_prediction(folder, id_text(identifier)).answer)[
        "shadows"
    ]
    return found


def test_each_shadow_is_compared_with_what_was_answered(tmp_path: Path, grow: Grow) -> None:
    shadows = ShadowRunner(tmp_path)
    node = grow(shadowed(same=score("a"), other=score("b", 0.5)), shadowing=shadows)
    asked = batch([float(i) for i in range(2 * PIECE_ROWS + 5)])
    answered = node.answer(asked)
    shadows.close()
    same, other = shadows.counts["demo", "same"], shadows.counts["demo", "other"]
    rows = len(asked.ids)
    assert (same.agreed, same.differed, other.agreed, other.differed) == (rows, 0, 0, rows)
    assert (same.difference.total, other.difference.total) == (0.0, rows * 0.5)
    assert sum(same.seconds.counts) == 3
    assert answered.outputs.values is not None
    for identifier, value in zip(asked.ids, answered.outputs.values.tolist(), strict=True):
        row = said(tmp_path, identifier)
        assert row["same"]["agrees"]
        assert row["other"]["value"] == value + 0.5
        assert row["other"]["difference"] == 0.5


def test_the_answer_is_that_of_the_node_alone(tmp_path: Path, grow: Grow) -> None:
    shadows = ShadowRunner(tmp_path)
    node = grow(shadowed(other=score("b", 9)), shadowing=shadows)
    answered = node.answer(batch([1.0]))
    shadows.close()
    assert answered.outputs.values is not None
    assert answered.outputs.values.tolist() == [1.0]
    assert [node for node, _ in answered.paths[0].path] == ["m"]


def test_a_shadow_that_fails_is_counted_and_fails_nothing_else(
    tmp_path: Path, grow: Grow, caplog: pytest.LogCaptureFixture
) -> None:
    shadows = ShadowRunner(tmp_path)
    node = grow(shadowed(bad=score("a", fails=3.0), good=score("b")), shadowing=shadows)
    asked = batch([3.0, 1.0])
    for one in (asked, batch([3.0])):
        node.answer(one)
    shadows.close()
    assert (shadows.counts_of("demo", "bad").failed, shadows.counts_of("demo", "good").agreed) == (
        3,
        3,
    )
    assert said(tmp_path, asked.ids[1])["bad"] == {"error": "The node 'a' raised RuntimeError."}
    assert len([record for record in caplog.records if "shadow bad" in record.message]) == 1


def test_what_finds_the_queue_full_is_dropped_at_once_and_counted(
    tmp_path: Path, grow: Grow
) -> None:
    shadows = ShadowRunner(tmp_path, queue_rows=4)
    node: Any = grow(shadowed(held=score("a")), shadowing=shadows)
    inside, go = threading.Event(), threading.Event()
    below = node._group.shadows["held"]
    answer = below.answer

    def held(asked: Batch) -> NodeAnswers:
        inside.set()
        assert go.wait(PATIENCE_S)
        found: NodeAnswers = answer(asked)
        return found

    below.answer = held
    node.answer(batch([1.0]))
    assert inside.wait(PATIENCE_S)  # the one is being asked, and none waits
    for _ in range(3):
        node.answer(batch([1.0, 2.0]))
    assert shadows.counts_of("demo", "held").dropped == 2
    go.set()
    shadows.close()
    assert shadows.counts_of("demo", "held").agreed == 5
    node.answer(batch([1.0]))  # after the end
    assert shadows.counts_of("demo", "held").dropped == 3


def test_a_shadow_that_hangs_holds_up_no_other_endpoints(tmp_path: Path, grow: Grow) -> None:
    shadows = ShadowRunner(tmp_path, queue_rows=2)
    node: Any = grow(shadowed(held=score("a")), shadowing=shadows)
    other = grow(shadowed(free=score("b")), shadowing=shadows, endpoint="other")
    go = threading.Event()

    def held(_: Batch) -> NodeAnswers:
        assert go.wait(PATIENCE_S)
        raise RuntimeError

    node._group.shadows["held"].answer = held
    for _ in range(4):
        node.answer(batch([1.0, 2.0]))
    try:
        for rows in range(2, 12, 2):
            other.answer(batch([1.0, 2.0]))
            wait_for(lambda rows=rows: shadows.counts_of("other", "free").agreed == rows)
    finally:
        go.set()
    shadows.close()
    assert shadows.counts_of("other", "free").dropped == 0
    assert shadows.counts_of("demo", "held").dropped >= 2


def test_the_thread_of_an_endpoint_without_shadows_ends(tmp_path: Path, grow: Grow) -> None:
    shadows = ShadowRunner(tmp_path)
    for _ in range(2):  # the next revision gets another one
        node = grow(shadowed(s=score("a")), shadowing=shadows)
        node.answer(batch([1.0]))
        node.close()
        wait_for(lambda: "clewline-shadow" not in [t.name for t in threading.enumerate()])
    shadows.close()
    assert shadows.counts_of("demo", "s").agreed == 2


def test_shadows_of_a_revision_that_is_closed_are_given_back_when_none_is_asked(
    tmp_path: Path, grow: Grow
) -> None:
    shadows = ShadowRunner(tmp_path)
    tree = score("a")
    node: Any = grow(shadowed(held=tree), shadowing=shadows)
    inside, go = threading.Event(), threading.Event()
    below = node._group.shadows["held"]
    answer = below.answer

    def held(asked: Batch) -> NodeAnswers:
        inside.set()
        assert go.wait(PATIENCE_S)
        assert "closed" not in tree
        found: NodeAnswers = answer(asked)
        return found

    below.answer = held
    node.answer(batch([1.0]))
    assert inside.wait(PATIENCE_S)
    node.answer(batch([1.0, 2.0]))
    node._builder.close()
    assert "closed" not in tree
    go.set()
    shadows.close()
    tally = shadows.counts_of("demo", "held")
    assert (tree["closed"], tally.agreed + tally.dropped) == (1, 3)


def test_shadows_are_not_asked_about_a_trial_or_in_a_replay(tmp_path: Path, grow: Grow) -> None:
    shadows = ShadowRunner(tmp_path)
    grow(shadowed(s=score("a")), shadowing=shadows, is_live=False).answer(batch([1.0]))
    grow(shadowed(s=score("a"))).answer(batch([1.0]))
    shadows.close()
    assert not shadows.counts
    assert not list(tmp_path.rglob("*.frames"))


def test_labels_agree_or_not_and_differ_by_their_probabilities() -> None:
    ours = Outputs(choices=np.array([0, 1]), probabilities=np.array([[0.9, 0.1], [0.4, 0.6]]))
    theirs = Outputs(choices=np.array([0, 0]), probabilities=np.array([[0.8, 0.2], [0.6, 0.4]]))
    agrees, differences = compare_outputs(ours, theirs)
    assert agrees.tolist() == [True, False]
    assert np.allclose(differences, [0.1, 0.2])
    alone = Outputs(choices=np.array([0, 1]))
    assert [found.tolist() for found in compare_outputs(theirs, alone)] == [
        [True, False],
        [0.0, 1.0],
    ]


def test_numbers_agree_within_a_millionth_and_arrays_by_their_greatest_difference() -> None:
    agrees, _ = compare_outputs(
        Outputs(values=np.array([1e9, 1.0])), Outputs(values=np.array([1e9 + 1, 1.1]))
    )
    assert agrees.tolist() == [True, False]
    arrays = np.array([[[1.0, 2.0]], [[3.0, 4.0]]])
    moved = np.add(arrays, [[0.0, 0.5]])
    agrees, differences = compare_outputs(Outputs(tensor=arrays), Outputs(tensor=moved))
    assert (agrees.tolist(), differences.tolist()) == ([False, False], [0.5, 0.5])


@pytest.mark.parametrize("asked", [False, True])
@pytest.mark.parametrize("is_closed", [False, True])
def test_a_group_is_closed_once_nobody_waits_for_its_shadows(
    tmp_path: Path, grow: Grow, asked: bool, is_closed: bool
) -> None:
    shadows, tree = ShadowRunner(tmp_path), score("a")
    node = grow(shadowed(same=tree), shadowing=shadows)
    if asked:
        node.answer(batch([1.0]))
    if is_closed:
        shadows.close()
    node.close()
    shadows.close()
    assert tree["closed"] == 1


def test_a_shadow_that_ends_the_process_does_not_end_the_others(tmp_path: Path, grow: Grow) -> None:
    shadows = ShadowRunner(tmp_path)
    leaves = {"kind": "transform", "name": "leaves", "function": "nodes.py:leaves",
              "frame": "rows", "then": score("c")}  # fmt: skip
    node = grow(shadowed(leaves=leaves, other=score("b")), shadowing=shadows)
    for _ in range(2):
        node.answer(batch([1.0]))
    shadows.close()
    assert shadows.counts["demo", "leaves"].failed == 2
    assert shadows.counts["demo", "other"].agreed == 2


def test_arrays_with_the_same_infinities_and_nans_agree() -> None:
    ours = np.array([[np.nan, np.inf, 1.0], [np.nan, np.inf, 1.0], [0.0, np.inf, 1.0]])
    theirs = np.array([[np.nan, np.inf, 1.0], [0.0, np.inf, 1.0], [0.0, -np.inf, 1.0]])
    agrees, differences = compare_outputs(Outputs(tensor=ours), Outputs(tensor=theirs))
    assert agrees.tolist() == [True, False, False]
    assert differences[0] == 0.0
