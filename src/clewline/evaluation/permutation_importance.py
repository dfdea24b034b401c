"""
Permutation importance: how much worse are the answers if the values of a field are shuffled?

Source:
    Breiman, Random forests (Machine Learning 45, 2001). Groups of fields that are shuffled
    together: Gregorutti, Michel, Saint-Pierre, Grouped variable importance with random forests
    (Computational Statistics & Data Analysis 90, 2015).
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import numpy as np

from clewline.evaluation.answers import EvaluationTask, ModelPredictions
from clewline.evaluation.asked_model import AskedModel
from clewline.evaluation.metrics import Floats, Integers, Interval, bootstrap_intervals

REPEATS = 10
RESAMPLES = 200


class FieldImportance(msgspec.Struct, frozen=True):
    """How much a metric loses when fields are shuffled, together if there are several."""

    fields: tuple[str, ...]
    importance: Interval
    """Loss of the metric (growth of an error); covers the test rows and the shuffles."""


class OwnImportances(msgspec.Struct, frozen=True, kw_only=True):
    """What a model says itself of its fields, from its training."""

    kind: str  # impurity, gain, …
    shares: dict[str, float]  # of each field: together at most 1, largest first
    rank_correlation: float | None  # Spearman's, with the permutation importances


class PermutationImportance(msgspec.Struct, frozen=True, kw_only=True):
    """The importance of each field, and of groups of associated fields."""

    metric: str
    repeats: int
    rows: int
    fields: list[FieldImportance]  # the most important first
    groups: list[FieldImportance]
    own: OwnImportances | None = None


def permutation_importance(
    asked: AskedModel,
    task: EvaluationTask,
    rows: Integers,
    fields: Sequence[str],
    groups: Sequence[Sequence[str]] = (),
    *,
    repeats: int = REPEATS,
    seed: int = 0,
) -> PermutationImportance:
    """
    Shuffle each field, and each group of fields, of held-out rows.

    A field that others can stand in for seems unimportant alone; its group does not.

    Args:
        asked: The model and its rows.
        task: Has the truth of all rows.
        rows: The rows that are used.
        fields: Each is shuffled alone.
        groups: The fields of each are shuffled together.
        repeats: Number of shuffles.
        seed: Of the shuffles and of the bootstrap.
    """
    truth = _task_of(task, rows)
    before = asked.ask(rows)
    found: dict[tuple[str, ...], Interval] = {}
    random = np.random.default_rng(seed)
    for names in dict.fromkeys([*((name,) for name in fields), *(tuple(g) for g in groups)]):
        shuffled = np.concatenate([random.permutation(rows) for _ in range(repeats)])
        after: ModelPredictions = asked.ask(np.tile(rows, repeats), names, shuffled)
        found[names] = headline_loss(truth, before, after, repeats, seed)
    listed = [FieldImportance(names, interval) for names, interval in found.items()]
    listed.sort(key=lambda each: -each.importance.value)
    single = {(name,) for name in fields}
    return PermutationImportance(
        metric=task.headline,
        repeats=repeats,
        rows=len(rows),
        fields=[each for each in listed if each.fields in single],
        groups=[each for each in listed if each.fields not in single],
    )


def _task_of(task: EvaluationTask, rows: Integers) -> EvaluationTask:
    """Return the task of some of its rows."""
    return EvaluationTask(task.task, task.truth[rows], task.labels, task.headline, task.objective)


def headline_loss(
    task: EvaluationTask,
    before: ModelPredictions,
    after: ModelPredictions,
    repeats: int,
    seed: int,
) -> Interval:
    """Compare the answers to shuffled rows, `repeats` times n, with those to the rows."""
    rows = len(task.truth)
    ours = task.headline_measure(before)
    theirs = [
        task.headline_measure(
            ModelPredictions(
                after.choices[at * rows : (at + 1) * rows],
                None
                if after.probabilities is None
                else after.probabilities[at * rows : (at + 1) * rows],
            )
        )
        for at in range(repeats)
    ]
    sign, random = -1.0 if task.headline == "rmse" else 1.0, np.random.default_rng(seed)
    is_first = True

    def loss(weights: Floats) -> dict[str, float]:
        nonlocal is_first  # of the sample itself, each shuffle counts once
        drawn = range(repeats) if is_first else random.integers(0, repeats, repeats).tolist()
        is_first = False
        base = ours(weights)
        return {"loss": sign * (base - float(np.mean([theirs[at](weights) for at in drawn])))}

    found = bootstrap_intervals(loss, rows, seed=seed, resamples=RESAMPLES)
    return found.get("loss", Interval(0.0, 0.0, 0.0))
