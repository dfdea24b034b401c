"""The test of a model or a rule: the truth, what counts as right, what a model answered."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clewline.errors import InvalidInput
from clewline.evaluation import metrics
from clewline.evaluation.baseline import Objective
from clewline.evaluation.boosters import estimator_of, refusals
from clewline.evaluation.metrics import Floats, Measure
from clewline.evaluation.texts import takes_texts
from clewline.signature import dataframes
from clewline.signature.field import Task

Label = str | int | float | bool
RARE = 0.9
"""Where one label holds a larger share of the rows, accuracy says little of a classifier."""

LARGEST = 1e150
"""Of a target; errors are squared and added up."""


@dataclass(frozen=True, slots=True)
class ModelPredictions:
    """What a model or a rule said to the test rows."""

    choices: Floats  # label indices or values, shape (n,)
    probabilities: Floats | None = None  # shape (n, labels)


@dataclass(frozen=True, slots=True)
class EvaluationTask:
    """The truth of the test rows, and what is asked of answers to them."""

    task: Task
    truth: NDArray[np.generic]  # label indices or values, shape (n,)
    labels: tuple[Label, ...]  # empty for a regression
    headline: str
    goal: Objective

    def measure(self, answers: ModelPredictions) -> Measure:
        """Make the measure of answers to these rows."""
        if self.task == "regression":
            return metrics.regression(self.truth.astype(np.float64), answers.choices)
        truth, chosen = self.truth.astype(np.int64), answers.choices.astype(np.int64)
        if self.task == "binary":
            return metrics.binary(truth, chosen, answers.probabilities)
        return metrics.multiclass(truth, chosen, len(self.labels), answers.probabilities)

    def gain(self, answers: ModelPredictions, rule: ModelPredictions) -> Measure:
        """Make the measure of how much better answers are than a rule's, on the same rows."""
        ours, theirs = self.measure(answers), self.measure(rule)
        sign = -1.0 if self.headline == "rmse" else 1.0
        absent = float("nan")

        def measure(weights: Floats) -> dict[str, float]:
            better = ours(weights).get(self.headline, absent)
            return {"gain": sign * (better - theirs(weights).get(self.headline, absent))}

        return measure

    def read(self, values: Sequence[Any], table: str) -> NDArray[np.generic]:
        """Turn targets of another table into label indices or values."""
        if self.task == "regression":
            return _quantities(values, table)
        return _indices(values, self.labels, table)


def ask_model(
    model: Any, features: Any, targets: Sequence[Any]
) -> tuple[EvaluationTask, ModelPredictions]:
    """
    Ask a model about the test rows.

    Args:
        model: Has `predict`; a classifier has `classes_`, and may have `predict_proba`.
        features: The test table without the target.
        targets: The target, one a row.

    Raises:
        InvalidInput: No rows, a target that is missing, or answers that do not fit.
    """
    if not len(targets):
        raise InvalidInput("The test table has no rows, so nothing can be measured.")
    model = estimator_of(model)
    known = getattr(model, "classes_", None)
    if known is not None and not len(known):  # a pipeline that ends in a regressor of CatBoost
        known = None
    if isinstance(known, list):
        raise InvalidInput(
            f"The model answers {len(known)} targets at once.", "Evaluate one model a target."
        )
    if known is None:
        truth = _quantities(targets, "test")
        said = _one_each(_asked(model.predict, model, features, len(targets))).astype(np.float64)
        if not (np.abs(said) <= LARGEST).all():
            raise InvalidInput(
                f"The model answers with numbers that are not finite, or > {LARGEST}."
            )
        return EvaluationTask("regression", truth, (), "rmse", Objective()), ModelPredictions(said)
    return _labelled(model, features, targets, _plain(known))


def _labelled(
    model: Any, features: Any, targets: Sequence[Any], known: tuple[Label, ...]
) -> tuple[EvaluationTask, ModelPredictions]:
    strange = {target for target in targets if target is not None} - set(known)
    if not set(targets) & set(known):
        raise InvalidInput(
            f"The model knows the labels {list(known)}, and the target holds none of them "
            f"but {sorted(strange, key=repr)[:5]}.",
            "Evaluate on the target that the model was trained on.",
        )
    labels = (*known, *sorted(strange, key=repr))
    said = _one_each(_asked(model.predict, model, features, len(targets))).tolist()
    answers = ModelPredictions(
        _indices(said, labels, "answers").astype(np.float64),
        _probabilities(model, features, len(targets), len(labels)),
    )
    truth = _indices(targets, labels, "test")
    return _trial(truth, labels, answers.probabilities is not None), answers


def _trial(truth: NDArray[np.int64], labels: tuple[Label, ...], scored: bool) -> EvaluationTask:
    counts = np.bincount(truth, minlength=len(labels)).astype(np.float64)
    task: Task = "binary" if len(labels) == 2 else "multiclass"
    if counts.max() <= RARE * counts.sum() or (counts > 0).sum() < 2:
        return EvaluationTask(task, truth, labels, "accuracy", Objective(len(labels)))
    present = counts > 0
    weights = np.divide(counts.sum(), counts, out=np.zeros_like(counts), where=present)
    headline = "roc_auc" if task == "binary" and scored else "balanced_accuracy"
    return EvaluationTask(
        task, truth, labels, headline, Objective(len(labels), weights / present.sum())
    )


def _asked(
    answer: Callable[[Any], Any], model: Any, features: Any, rows: int
) -> NDArray[np.generic]:
    """Ask about a table, or about an array where the model was fitted on one without names."""
    try:
        said = np.asarray(answer(_as_fitted(model, features)))
    except refusals() as error:
        raise InvalidInput(
            f"The model refuses the test rows: {error}",
            "Test it on a table like the one that it was trained on; an encoder takes levels that "
            'it has not seen when it is made with handle_unknown="ignore".',
        ) from error
    if len(said) != rows:
        raise InvalidInput(f"The model gave {len(said)} answers to {rows} rows.")
    return said


def _as_fitted(model: Any, features: Any) -> Any:
    """The columns that the model was fitted on; an array where those had no names."""
    table = dataframes.open_table(features)
    if takes_texts(model) and len(table.columns) == 1:
        return table[table.columns[0]].to_list()
    names = getattr(model, "feature_names_in_", None)
    if names is None:
        return table.to_numpy() if hasattr(model, "n_features_in_") else features
    for name in names:
        dataframes.require_column(table, name)
    return table.select([str(name) for name in names]).to_native()


def _one_each(said: NDArray[np.generic]) -> NDArray[np.generic]:
    """One answer a row; scikit-learn gives a column when it was fitted on a column."""
    if said.size != len(said):
        raise InvalidInput(
            f"The model gave answers of shape {said.shape}: {said.shape[1]} to each row.",
            "Evaluate one model a target.",
        )
    return said.reshape(-1)


def _probabilities(model: Any, features: Any, rows: int, labels: int) -> Floats | None:
    if not hasattr(model, "predict_proba"):
        return None
    said = _asked(model.predict_proba, model, features, rows).astype(np.float64)
    unknown = labels - said.shape[1]  # labels of the test that the model has never seen
    return np.pad(said, ((0, 0), (0, unknown)))


def _indices(values: Sequence[Any], labels: tuple[Label, ...], table: str) -> NDArray[np.int64]:
    place = {label: index for index, label in enumerate(labels)}
    try:
        return np.array([place[value] for value in values], dtype=np.int64)
    except KeyError as error:
        raise InvalidInput(
            f"The {table} hold the label {error.args[0]!r}, which is none of {list(labels)}.",
            "Drop rows without a target." if error.args[0] is None else None,
        ) from error


def _quantities(values: Sequence[Any], table: str) -> Floats:
    wrong = next((v for v in values if isinstance(v, str | bool) or v is None), 0.0)
    if not isinstance(wrong, float):
        raise InvalidInput(
            f"The {table} hold the target {wrong!r}, and a regression has finite numbers.",
            "Drop rows without a target; a classifier needs `classes_`.",
        )
    numbers = np.array(values, dtype=np.float64)
    if not np.isfinite(numbers).all():
        raise InvalidInput(f"The {table} hold infinite targets.", "Drop those rows.")
    if (largest := float(np.abs(numbers).max(initial=0.0))) > LARGEST:
        raise InvalidInput(
            f"The {table} hold the target {largest:.3g}, whose square no float holds.",
            "Scale the target.",
        )
    return numbers


def _plain(labels: Any) -> tuple[Label, ...]:
    return tuple(labels.tolist() if hasattr(labels, "tolist") else labels)
