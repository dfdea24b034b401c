"""
A small tree that imitates a model, and how well it does so on rows that it has not seen.

Source:
    Craven, Shavlik, Extracting tree-structured representations of trained networks (NIPS 1995).
"""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np

from clewline.evaluation.answers import EvaluationTask, ModelPredictions
from clewline.evaluation.columns import EvaluatedColumns
from clewline.evaluation.field_groups import level_codes
from clewline.evaluation.metrics import Floats, Interval, bootstrap_intervals
from clewline.signature import timestamps
from clewline.signature.infer import Label

DEPTH = 4
LEAF_SHARE = 0.01
LEVELS = 20
"""Levels of a field that the tree may ask about, the most frequent ones."""

RESAMPLES = 200


class SurrogateNode(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """A node: a leaf, or a condition on one field."""

    rows: int  # of those that the tree was grown on
    answer: Label | float  # the most frequent label, or the mean value, of the model's answers
    field: str | None = None  # None: a leaf
    at_most: Any | None = None  # the condition holds for numbers or date-times up to this …
    level: Any | None = None  # … or for this level
    null_holds: bool = False  # whether it holds for null; of a level that is null: always
    holds: int | None = None  # place of the node where the condition holds
    otherwise: int | None = None


class SurrogateTree(msgspec.Struct, frozen=True, kw_only=True):
    """A tree grown on a model's answers."""

    nodes: list[SurrogateNode]  # the root first
    fidelity: Interval
    """On other rows: share of equal labels; of a regression R² with the model's values."""
    fidelity_of_one_answer: float  # of the most frequent label; of a regression 0
    grown_on: int
    tested_on: int


class _Question(msgspec.Struct, frozen=True):
    field: str
    level: Any = None
    is_level: bool = False
    is_datetime: bool = False


def grow_surrogate(
    task: EvaluationTask,
    answers: ModelPredictions,
    columns: EvaluatedColumns,
    *,
    seed: int = 0,
) -> SurrogateTree | None:
    """
    Grow a tree on the model's answers to half of the rows, and compare it on the other half.

    Args:
        task: Of the evaluation.
        answers: Of the model to n rows.
        columns: Of the same rows.
        seed: Of the split and of the bootstrap.

    Returns:
        None if there are fewer than 20 rows or no columns.
    """
    rows = len(answers.choices)
    matrix, questions = tree_matrix(columns, rows)
    if rows < 20 or not questions:
        return None
    from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor

    mixed = np.random.default_rng(seed).permutation(rows)
    grown, tested = mixed[: rows // 2], mixed[rows // 2 :]
    kind = DecisionTreeClassifier if task.labels else DecisionTreeRegressor
    tree = kind(max_depth=DEPTH, min_samples_leaf=LEAF_SHARE, random_state=seed)
    tree.fit(matrix[grown], answers.choices[grown])
    guessed, wanted = tree.predict(matrix[tested]), answers.choices[tested]
    if task.labels:
        hits = np.equal(guessed, wanted).astype(np.float64)
        most = np.bincount(answers.choices[grown].astype(np.int64)).argmax()
        constant = float(np.equal(wanted, most).mean())

        def fidelity(weights: Floats) -> dict[str, float]:
            return {"fidelity": float((weights * hits).sum() / weights.sum())}
    else:
        constant = 0.0

        def fidelity(weights: Floats) -> dict[str, float]:
            mean = (weights * wanted).sum() / weights.sum()
            spread = float((weights * (wanted - mean) ** 2).sum())
            missed = float((weights * (wanted - guessed) ** 2).sum())
            return {"fidelity": 1 - missed / spread if spread > 0 else float(missed == 0)}

    found = bootstrap_intervals(fidelity, len(tested), seed=seed, resamples=RESAMPLES)
    return SurrogateTree(
        nodes=_nodes(tree, task, questions),
        fidelity=found["fidelity"],
        fidelity_of_one_answer=constant,
        grown_on=len(grown),
        tested_on=len(tested),
    )


def tree_matrix(columns: EvaluatedColumns, rows: int) -> tuple[Floats, list[_Question]]:
    """Return numbers as they are, and a column of 0 and 1 for each frequent level, for a tree."""
    parts: list[Floats] = []
    questions: list[_Question] = []
    for name, column in columns.items():
        if column.is_numeric:
            parts.append(column.values)
            questions.append(_Question(name, is_datetime=column.is_datetime))
            continue
        codes = level_codes(column)
        for code in range(min(int(codes.max()) + 1, LEVELS) if rows else 0):
            is_level = codes == code
            parts.append(is_level.astype(np.float64))
            questions.append(
                _Question(name, column.cells(np.flatnonzero(is_level)[:1])[0], is_level=True)
            )
    return (np.stack(parts, axis=1) if parts else np.empty((rows, 0))), questions


def _nodes(tree: Any, task: EvaluationTask, questions: list[_Question]) -> list[SurrogateNode]:
    """Return the nodes of a scikit-learn tree."""
    grown = tree.tree_
    found = []
    for at in range(grown.node_count):
        value = grown.value[at].reshape(-1)
        answer: Any = float(value[0])
        if task.labels:
            answer = task.labels[int(tree.classes_[int(value.argmax())])]
        rows, left = int(grown.n_node_samples[at]), int(grown.children_left[at])
        if left < 0:
            found.append(SurrogateNode(rows=rows, answer=answer))
            continue
        question, right = questions[int(grown.feature[at])], int(grown.children_right[at])
        threshold: Any = float(grown.threshold[at])
        if question.is_datetime:
            threshold = timestamps.format_microseconds(threshold)
        if question.is_level:  # the right side has the level
            facts: dict[str, Any] = {"level": question.level, "holds": right, "otherwise": left}
            facts["null_holds"] = question.level is None
        else:
            facts = {"at_most": threshold, "holds": left, "otherwise": right}
            facts["null_holds"] = bool(grown.missing_go_to_left[at])
        found.append(SurrogateNode(rows=rows, answer=answer, field=question.field, **facts))
    return found


def follow_surrogate(tree: SurrogateTree, row: dict[str, Any]) -> Label | float:
    """Return what the tree answers to a row: field → value, date-times as texts of UTC."""
    node = tree.nodes[0]
    while node.field is not None:
        value = row.get(node.field)
        if node.at_most is None:
            is_met = value == node.level
        else:
            is_met = node.null_holds if value is None else value <= node.at_most
        place = node.holds if is_met else node.otherwise
        assert place is not None, "a condition has two sides"
        node = tree.nodes[place]
    return node.answer
