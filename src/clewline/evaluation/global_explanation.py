"""What a model does over all rows: which fields matter, how each acts, and a tree in its place."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import numpy as np

from clewline.errors import InvalidInput, did_you_mean
from clewline.evaluation.answers import EvaluationTask
from clewline.evaluation.asked_model import AskedModel
from clewline.evaluation.columns import EvaluatedColumns
from clewline.evaluation.field_effects import (
    FieldEffect,
    accumulated_local_effects,
    partial_dependence,
)
from clewline.evaluation.field_groups import group_fields
from clewline.evaluation.metrics import Integers
from clewline.evaluation.permutation_importance import (
    OwnImportances,
    PermutationImportance,
    permutation_importance,
)
from clewline.evaluation.surrogate_tree import SurrogateTree, grow_surrogate
from clewline.model_families import family_of
from clewline.signature import dataframes
from clewline.signature.infer import Label

ROWS = 5000
"""Held-out rows that are used at most, drawn uniformly."""

IMPORTANCE_ROWS = 2000
"""Of these the rows whose fields are shuffled."""

DEPENDENCE_ROWS = 500
"""Of these the rows whose answers partial dependence averages."""

FIELDS = 30
"""Fields whose curves are drawn, the most important ones."""

CURVE_LABELS = 5
"""Labels of a classifier of many whose curves are drawn, the most frequent ones."""


class GlobalExplanation(msgspec.Struct, frozen=True, kw_only=True):
    """A model explained over all held-out rows."""

    rows: int
    of_rows: int  # of the test table
    model_rows: int  # that the model answered
    seed: int
    importance: PermutationImportance
    groups_are_given: bool  # False: they were found by association
    effects: list[FieldEffect]  # fields in the order of their importance
    surrogate: SurrogateTree | None


def explain_globally(
    model: Any,
    task: EvaluationTask,
    features: Any,
    columns: EvaluatedColumns,
    *,
    groups: Mapping[str, Sequence[str]] | None = None,
    seed: int = 0,
) -> GlobalExplanation:
    """
    Explain a model over held-out rows, by asking it.

    Args:
        model: Has `predict`; may have `predict_proba`.
        task: Of the evaluation.
        features: The test table without the target.
        columns: Its columns of numbers, date-times and levels.
        groups: Fields that are shuffled together as well, under any names; by default those that
            are associated.
        seed: Of every draw.

    Raises:
        InvalidInput: A group names a column that does not exist.
    """
    table = dataframes.open_table(features)
    fields = _used_fields(model, table.columns)
    columns = {name: columns[name] for name in fields if name in columns}
    named = [tuple(group) for group in (groups or {}).values()]
    for name in (name for group in named for name in group if name not in fields):
        raise InvalidInput(f"The model has no field {name!r}.", did_you_mean(name, fields))
    asked, random = AskedModel(model, task, features), np.random.default_rng(seed)
    mixed: Integers = random.permutation(len(task.truth))[:ROWS]
    sample = np.sort(mixed)
    taken = {name: column.take(sample) for name, column in columns.items()}
    importance = permutation_importance(
        asked,
        task,
        np.sort(mixed[:IMPORTANCE_ROWS]),
        fields,
        named if groups is not None else group_fields(taken),
        seed=seed,
    )
    labels = _curve_labels(task)
    effects: list[FieldEffect] = []
    averaged = np.sort(mixed[:DEPENDENCE_ROWS])
    ordered = [each.fields[0] for each in importance.fields if each.fields[0] in columns]
    for name in ordered[:FIELDS]:
        effects += accumulated_local_effects(asked, columns, name, sample, labels, seed=seed)
        effects += partial_dependence(asked, columns[name], averaged, sample, labels, seed=seed)
    surrogate = grow_surrogate(task, asked.ask(sample), taken, seed=seed)
    own = _own_importances(model, features, sample, importance)
    return GlobalExplanation(
        rows=len(sample),
        of_rows=len(task.truth),
        model_rows=asked.model_rows,
        seed=seed,
        importance=msgspec.structs.replace(importance, own=own),
        groups_are_given=groups is not None,
        effects=effects,
        surrogate=surrogate,
    )


def _used_fields(model: Any, names: Sequence[str]) -> list[str]:
    """Return the columns that a model reads; all if it does not say which."""
    from clewline.model_families import fitted_names_among

    known = fitted_names_among(model, names)
    return list(names) if known is None else [name for name in known if name in names]


def _curve_labels(task: EvaluationTask) -> list[tuple[int, Label | None]]:
    """Return the scores that curves are drawn of: their places, and labels."""
    if not task.labels:
        return [(0, None)]
    if len(task.labels) == 2:
        return [(1, task.labels[1])]
    counts = np.bincount(task.truth.astype(np.int64), minlength=len(task.labels))
    most = np.sort(np.argsort(-counts, kind="stable")[:CURVE_LABELS]).tolist()
    return [(place, task.labels[place]) for place in most]


def _own_importances(
    model: Any, features: Any, rows: Integers, importance: PermutationImportance
) -> OwnImportances | None:
    """Ask the model's family, and compare the order of the fields."""
    family = family_of(model)
    if family is None:
        return None
    found = family.own_importances(model, dataframes.open_table(features)[rows.tolist(), :])
    if found is None:
        return None
    kind, shares = found
    pairs = [(shares.get(each.fields[0], 0.0), each.importance.value) for each in importance.fields]
    correlation = None
    if len(pairs) > 2:
        from scipy.stats import rankdata

        ranks = [rankdata(values) for values in zip(*pairs, strict=True)]
        if all(each.std() > 0 for each in ranks):
            correlation = float(np.corrcoef(ranks)[0, 1])
    ordered = dict(sorted(shares.items(), key=lambda pair: -pair[1]))
    return OwnImportances(kind=kind, shares=ordered, rank_correlation=correlation)
