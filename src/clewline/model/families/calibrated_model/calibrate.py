"""`cl.calibrate`: probabilities that can be taken at their word."""

from __future__ import annotations

from typing import Any, Literal, get_args

import numpy as np

from clewline.errors import InvalidInput, NotSupported
from clewline.evaluation.answers import EvaluationTask, ModelPredictions, ask, ask_model
from clewline.evaluation.calibration import CLIPPED
from clewline.flow import context, values
from clewline.flow.step import step
from clewline.model.families.calibrated_model.family import require_other_rows
from clewline.model.families.calibrated_model.fit_map import fit_map
from clewline.model.families.calibrated_model.model import CalibratedModel
from clewline.model.families.calibrated_model.probability_map import Floats, Kind, log_odds
from clewline.model_families import family_of
from clewline.signature import dataframes
from clewline.store.edges import artifact_uses
from clewline.store.records import StepRun


@step
def calibrate(
    model: Any,
    table: Any,
    *,
    target: str,
    kind: Literal["isotonic", "sigmoid", "temperature", "beta"] = "isotonic",
    train: Any = None,
) -> CalibratedModel:
    """
    Fit a map from a classifier's probabilities to calibrated ones; return the two as one model.

    The result is evaluated and registered like any other model, and served in the form of its
    classifier with the map behind it.

    Args:
        model: A fitted classifier with probabilities. It is not changed.
        table: Rows that the classifier has not seen, with the target.
        target: The column that it predicts.
        kind: "isotonic" takes any rising shape and wants a thousand rows or more; "sigmoid" and
            "beta" have two and three parameters for each label, "temperature" has one in all.
        train: The table that the classifier was fitted on, if it should be checked that `table`
            is another one. In a pipeline that is known without it.

    Raises:
        InvalidInput: The rows are those that the classifier was fitted on, a label is missing, or
            a probability is not a number.
        NotSupported: The model is not a classifier with probabilities, or is of a kind that
            cannot be calibrated.

    Source:
        "isotonic": Zadrozny, Elkan, Transforming classifier scores into accurate multiclass
        probability estimates (KDD 2002). "sigmoid": Platt (1999). "beta": Kull, Silva Filho,
        Flach (AISTATS 2017). "temperature": Guo, Pleiss, Sun, Weinberger (ICML 2017).
    """
    if kind not in get_args(Kind):
        raise InvalidInput(
            f"There is no kind of calibration {kind!r}.", f"Use one of {', '.join(get_args(Kind))}."
        )
    estimator = _classifier(model)
    _require_unseen_rows(model, table)
    targets = dataframes.column_values(table, target)
    features = dataframes.drop_column(table, target)
    task, answers = ask_model(estimator, features, targets)
    truth, probabilities = _labelled(task, answers, len(estimator.classes_), kind)
    over: Literal["probability", "log-odds"] = "probability"
    if kind == "sigmoid" and _has_log_odds(estimator, features, probabilities):
        over = "log-odds"
    found = fit_map(kind, truth, probabilities, over)
    calibrated = CalibratedModel(model, found, values.digest(table), len(targets))
    require_other_rows(calibrated, train, "The model was fitted on the rows of the table.")
    return calibrated


def _classifier(model: Any) -> Any:
    """Return a classifier in the shape of an estimator."""
    family, name = family_of(model), type(model).__name__
    if family is None or not hasattr(family, "form_builders") or family.value_format is None:
        raise NotSupported(
            f"{name} cannot be calibrated.",
            "Pass a fitted classifier of a library, or a pipeline of such.",
        )
    estimator = family.as_estimator(model)
    if isinstance(estimator, CalibratedModel):
        raise NotSupported(
            "The model is calibrated already.", "Pass the model that was calibrated."
        )
    classes = getattr(estimator, "classes_", None)
    if classes is None or isinstance(classes, list) or len(classes) < 2:
        raise NotSupported(
            f"{name} is not a classifier that was fitted on two labels or more.",
            "Only the probabilities of classifiers are calibrated; a regressor's uncertainty is "
            "stated by conformal intervals.",
        )
    if not hasattr(estimator, "predict_proba"):
        raise NotSupported(
            f"{name} gives labels without probabilities.",
            "Use a classifier with predict_proba, or wrap it in scikit-learn's "
            "CalibratedClassifierCV, which reads its decision function.",
        )
    return estimator


def _require_unseen_rows(model: Any, table: Any) -> None:
    """Raise InvalidInput if the step that made the model took the same table."""
    running = context.current_step()
    if running is None:
        return
    made_by = running.inputs.get("model", {}).get("from")
    artifact = running.inputs.get("table", {}).get("artifact")
    if made_by is None or artifact is None:
        return
    with running.store.catalog.transaction() as transaction:  # waits for records on their way
        maker = transaction.get(StepRun, str(made_by).partition("#")[0])
    if maker is None:
        return
    taken = [use.role for use in artifact_uses(maker) if use.artifact == artifact]
    if any(role.startswith("input:") for role in taken):
        raise InvalidInput(
            f"The step {maker.name!r} that made the model took the same table.",
            "Its probabilities of these rows are too sure. Calibrate on rows that it has not seen: "
            "split off a part of the training table before you fit.",
        )


def _labelled(
    task: EvaluationTask, answers: ModelPredictions, labels: int, kind: Kind
) -> tuple[Any, Floats]:
    """Return label indices and probabilities; every label that the map needs occurs."""
    assert answers.probabilities is not None, "the estimator has predict_proba"
    probabilities, truth = answers.probabilities, task.truth.astype(np.int64)
    if len(task.labels) > labels:
        raise InvalidInput(
            f"The table holds labels that the model does not know: {list(task.labels[labels:])}.",
            "Leave these rows out, or train with them.",
        )
    present = np.unique(truth)
    missing = [label for place, label in enumerate(task.labels) if place not in present]
    if len(present) < 2 or (missing and kind != "temperature"):
        raise InvalidInput(
            f"The table holds no row of {', '.join(map(repr, missing))}.",
            "Calibrate on rows of all labels"
            + (' or use kind="temperature".' if len(present) > 1 else "."),
        )
    return truth, probabilities


def _has_log_odds(estimator: Any, features: Any, probabilities: Floats) -> bool:
    """Say whether a classifier's decision function is the log-odds of its probability."""
    if probabilities.shape[1] != 2 or not hasattr(estimator, "decision_function"):
        return False
    scores = np.asarray(ask(estimator.decision_function, estimator, features, len(probabilities)))
    inside = (probabilities > 100 * CLIPPED).all(axis=1)
    expected = log_odds(probabilities[inside, 1])
    return bool(scores.ndim == 1 and np.allclose(scores[inside], expected, rtol=1e-4, atol=1e-6))
