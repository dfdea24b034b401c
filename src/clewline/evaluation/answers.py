"""What a model answered to the test rows, and what was true of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clewline.errors import InvalidInput
from clewline.evaluation import metrics
from clewline.evaluation.baseline import Objective
from clewline.evaluation.metrics import Floats, Measure
from clewline.model_families import family_of, fitted_names, refusal_errors
from clewline.signature import dataframes
from clewline.signature.field import Task
from clewline.signature.infer import Label

DOMINANT_SHARE = 0.9
"""If one label holds a larger share of the rows, accuracy says little about a classifier."""

LARGEST_TARGET = 1e150
"""Largest target; errors are squared and added up."""


@dataclass(frozen=True, slots=True)
class ModelPredictions:
    """What a model or a rule answered to the test rows."""

    choices: Floats  # label indices or values, shape (n,)
    probabilities: Floats | None = None  # shape (n, labels)


@dataclass(frozen=True, slots=True)
class EvaluationTask:
    """The truth of the test rows, and the metric that answers are compared by."""

    task: Task
    truth: NDArray[np.generic]  # label indices or values, shape (n,)
    labels: tuple[Label, ...]  # empty for a regression
    headline: str
    objective: Objective

    def measure(self, answers: ModelPredictions) -> Measure:
        """Return the measure of answers to these rows."""
        if self.task == "regression":
            return metrics.regression(self.truth.astype(np.float64), answers.choices)
        truth, chosen = self.truth.astype(np.int64), answers.choices.astype(np.int64)
        if self.task == "binary":
            return metrics.binary(truth, chosen, answers.probabilities)
        return metrics.multiclass(truth, chosen, len(self.labels), answers.probabilities)

    def headline_measure(self, answers: ModelPredictions) -> Callable[[Floats], float]:
        """Return the measure of the headline metric alone, NaN where it is not defined."""
        if self.headline == "rmse":
            squares = (self.truth.astype(np.float64) - answers.choices) ** 2
            return lambda weights: float(np.sqrt((weights * squares).sum() / weights.sum()))
        if self.headline == "accuracy":
            hits = np.equal(self.truth, answers.choices).astype(np.float64)
            return lambda weights: float((weights * hits).sum() / weights.sum())
        measure = self.measure(answers)
        return lambda weights: measure(weights).get(self.headline, float("nan"))

    def gain(self, answers: ModelPredictions, rule: ModelPredictions) -> Measure:
        """Return the measure of how much better answers are than a rule's, on the same rows."""
        ours, theirs = self.measure(answers), self.measure(rule)
        sign = -1.0 if self.headline == "rmse" else 1.0

        def measure(weights: Floats) -> dict[str, float]:
            ends = [each(weights).get(self.headline, float("nan")) for each in (ours, theirs)]
            return {"gain": sign * (ends[0] - ends[1])}

        return measure


def ask_model(
    model: Any, features: Any, targets: Sequence[Any]
) -> tuple[EvaluationTask, ModelPredictions]:
    """
    Ask a model about the test rows.

    Args:
        model: Has `predict`; a classifier has `classes_`, and may have `predict_proba`.
        features: The test table without the target, n rows.
        targets: The target of each row, length n.

    Raises:
        InvalidInput: There are no rows, a target is missing, or the answers do not fit.
    """
    if not len(targets):
        raise InvalidInput("The test table has no rows, so nothing can be measured.")
    classes = getattr(model, "classes_", None)
    if isinstance(classes, list) and classes:
        raise InvalidInput(
            f"The model predicts {len(classes)} targets at once.", "Evaluate one model per target."
        )
    if classes is None or not len(classes):  # a pipeline may end in a regressor of CatBoost
        quantities = encode_quantities(targets, "test table")
        task = EvaluationTask("regression", quantities, (), "rmse", Objective())
        return task, ask_rows(model, features, len(targets), ())
    known = tuple(classes.tolist() if hasattr(classes, "tolist") else classes)
    unseen = sorted({t for t in targets if t is not None} - set(known), key=repr)
    if not set(targets) & set(known):
        raise InvalidInput(
            f"The model knows the labels {list(known)}, and the target holds none of them, "
            f"only {unseen[:5]}.",
            "Evaluate on the target that the model was trained on.",
        )
    labels = (*known, *unseen)
    answers = ask_rows(model, features, len(targets), labels)
    truth = encode_labels(targets, labels, "test table")
    kind: Task = "binary" if len(labels) == 2 else "multiclass"
    headline, objective = "accuracy", Objective(len(labels))
    counts = np.bincount(truth, minlength=len(labels)).astype(np.float64)
    present = counts > 0
    if counts.max() > DOMINANT_SHARE * counts.sum() and present.sum() > 1:
        has_scores = kind == "binary" and answers.probabilities is not None
        headline = "roc_auc" if has_scores else "balanced_accuracy"
        weights = np.divide(counts.sum(), counts, out=np.zeros_like(counts), where=present)
        objective = Objective(len(labels), weights / present.sum())
    task = EvaluationTask(kind, truth, labels, headline, objective)
    return task, answers


def ask_rows(model: Any, features: Any, rows: int, labels: tuple[Label, ...]) -> ModelPredictions:
    """
    Ask a model about a table.

    Args:
        model: As of `ask_model`.
        features: A table without the target, n rows.
        rows: n.
        labels: Those that the model knows, then others; empty for a regression.

    Raises:
        InvalidInput: The model refuses the rows, or its answers do not fit.
    """
    if not labels:
        values = _ask(model.predict, model, features, rows, flat=True).astype(np.float64)
        if not (np.abs(values) <= LARGEST_TARGET).all():
            raise InvalidInput(
                f"The model answers with numbers that are not finite, or > {LARGEST_TARGET}."
            )
        return ModelPredictions(values)
    chosen = _ask(model.predict, model, features, rows, flat=True).tolist()
    choices = encode_labels(chosen, labels, "model's answers").astype(np.float64)
    if not hasattr(model, "predict_proba"):
        return ModelPredictions(choices)
    found = _ask(model.predict_proba, model, features, rows).astype(np.float64)
    # Labels of the test that the model has never seen have probability 0.
    return ModelPredictions(choices, np.pad(found, ((0, 0), (0, len(labels) - found.shape[1]))))


def _ask(
    predict: Callable[[Any], Any], model: Any, features: Any, rows: int, *, flat: bool = False
) -> NDArray[np.generic]:
    """Return the answers to all rows; `flat` requires one per row, possibly as a column."""
    table, family = dataframes.open_table(features), family_of(model)
    # The columns that the model was fitted on; an array if those had no names.
    names = fitted_names(model)
    inputs = features
    if family is not None and family.takes_texts(model) and len(table.columns) == 1:
        inputs = table[table.columns[0]].to_list()
    elif names is not None:
        for name in names:
            dataframes.require_column(table, name)
        inputs = table.select(names).to_native()
    elif hasattr(model, "n_features_in_"):
        inputs = table.to_numpy()
    try:
        answers = np.asarray(predict(inputs))
    except refusal_errors() as error:
        raise InvalidInput(
            f"The model refuses the test rows: {error}",
            "Test it on a table like the one that it was trained on. An encoder accepts levels "
            'that it has not seen if it is made with handle_unknown="ignore".',
        ) from error
    if len(answers) != rows:
        raise InvalidInput(f"The model gave {len(answers)} answers to {rows} rows.")
    if not flat:
        return answers
    if answers.size != rows:
        raise InvalidInput(
            f"The model gave answers of shape {answers.shape}: {answers.shape[1]} to each row.",
            "Evaluate one model per target.",
        )
    return answers.reshape(-1)


def encode_labels(
    values: Sequence[Any], labels: tuple[Label, ...], table: str
) -> NDArray[np.int64]:
    index = {label: place for place, label in enumerate(labels)}
    try:
        return np.array([index[value] for value in values], dtype=np.int64)
    except KeyError as error:
        raise InvalidInput(
            f"The label {error.args[0]!r} in the {table} is none of {list(labels)}.",
            "Drop rows without a target." if error.args[0] is None else None,
        ) from error


def encode_quantities(values: Sequence[Any], table: str) -> Floats:
    for value in values:
        if value is None or isinstance(value, str | bool):
            raise InvalidInput(
                f"The target {value!r} in the {table} is not a finite number.",
                "Drop rows without a target. A classifier needs the attribute `classes_`.",
            )
    numbers = np.array(values, dtype=np.float64)
    if not np.isfinite(numbers).all():
        raise InvalidInput(f"The {table} holds infinite targets.", "Drop those rows.")
    if (largest := float(np.abs(numbers).max(initial=0.0))) > LARGEST_TARGET:
        raise InvalidInput(
            f"The target {largest:.3g} in the {table} is too large to be squared.",
            "Scale the target.",
        )
    return numbers
