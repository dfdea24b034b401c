"""`cl.evaluate`: how good a model is, where not, and whether it beats a plain rule."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clewline.evaluation import metrics
from clewline.evaluation.answers import (
    EvaluationTask,
    ModelPredictions,
    ask_model,
    encode_labels,
    encode_quantities,
)
from clewline.evaluation.baseline import Baseline, cross_fit_rule, learn_rule, read_columns
from clewline.evaluation.calibration import measure_calibration
from clewline.evaluation.confusion import count_confusion
from clewline.evaluation.curves import measure_curves
from clewline.evaluation.global_explanation import explain_globally
from clewline.evaluation.metrics import Interval, Measure
from clewline.evaluation.report import Report
from clewline.evaluation.residuals import measure_residuals
from clewline.flow import context, tracking
from clewline.flow.step import step
from clewline.model_families import family_of
from clewline.signature import dataframes

_log = logging.getLogger(__name__)


@step
def evaluate(
    model: Any,
    test: Any,
    *,
    target: str,
    train: Any = None,
    seed: int = 0,
    resamples: int | None = None,
    explain: bool = False,
    groups: Mapping[str, Sequence[str]] | None = None,
) -> Report:
    """
    Measure a model on test rows that it has not seen, beside the best plain rule.

    Classifiers are compared with the rule by accuracy. If one label holds more than nine rows
    in ten, they are compared by roc_auc (with several labels, or without probabilities, by
    balanced_accuracy). Regressors are compared by rmse. A warning is logged if the model is
    not clearly better.

    Args:
        model: Has `predict`; a classifier has `classes_`, and may have `predict_proba`. Or an
            object of the project's own with `predict(table)` or `predict(rows)`.
        test: The test table with the target (Polars, pandas or Arrow).
        target: The column to be predicted.
        train: The table that the rule is learned on. Without it the rule is cross-fitted on
            the test rows.
        seed: Seed of the bootstrap and of the cross-fit.
        resamples: Number of bootstrap resamples; by default 1,000, fewer above 20,000 rows.
        explain: Also measure how important each field is, how the answer depends on it, and how
            well a small tree imitates the model. The model answers some 10,000 to 50,000 rows
            for each field.
        groups: With `explain`, fields that are shuffled together, under any names; by default
            groups of associated fields are found.

    Raises:
        InvalidInput: There is no such target, there are no rows, a target is null, or the
            model's answers do not fit the target.
    """
    targets = dataframes.column_values(test, target)
    features, rows = dataframes.drop_column(test, target), len(targets)
    if (family := family_of(model)) is not None:
        model = family.as_estimator(model, test if train is None else train, target)
    task, answers = ask_model(model, features, targets)
    columns = read_columns(test, target=target)
    if train is None:
        rule = learn_rule(columns, task.truth, task.objective, seed=seed)
        choices, shares = cross_fit_rule(columns, task.truth, task.objective, seed=seed)
    else:
        known = dataframes.column_values(train, target)
        truth: NDArray[np.generic]
        if task.labels:
            truth = encode_labels(known, task.labels, "training table")
        else:
            truth = encode_quantities(known, "training table")
        rule = learn_rule(read_columns(train, target=target), truth, task.objective, seed=seed)
        choices, shares = rule.predict(columns, rows)
    rule_answers = ModelPredictions(choices, shares if task.labels else None)
    resamples = metrics.default_resamples(rows) if resamples is None else resamples

    def measure(of: Measure) -> dict[str, Interval]:
        return metrics.bootstrap_intervals(of, rows, seed=seed, resamples=resamples)

    gain = measure(task.gain(answers, rule_answers)).get("gain", Interval(0.0, 0.0, 0.0))
    report = Report(
        task=task.task,
        target=target,
        rows=rows,
        labels=task.labels or None,
        positive=task.labels[1] if task.task == "binary" else None,
        metrics=measure(task.measure(answers)),
        headline=task.headline,
        baseline=Baseline(
            rule=rule.describe(task.labels),
            learned_on="test, cross-fitted" if train is None else "train",
            metrics=measure(task.measure(rule_answers)),
        ),
        gain=gain,
        verdict="better" if gain.low > 0 else "worse" if gain.high < 0 else "unclear",
        resamples=resamples,
        seed=seed,
        explanation=explain_globally(model, task, features, columns, groups=groups, seed=seed)
        if explain
        else None,
        **_sections(task, answers, seed),
    )
    if context.current_step() is not None:
        tracking.log_metrics({name: interval.value for name, interval in report.metrics.items()})
    if not report.beats_baseline:
        _log.warning("%s", report)
    return report


def _sections(task: EvaluationTask, answers: ModelPredictions, seed: int) -> dict[str, Any]:
    """Return the sections that need nothing but answers and truth."""
    if task.task == "regression":
        truth = task.truth.astype(np.float64)
        return {"residuals": measure_residuals(truth, answers.choices, seed=seed)}
    labels, chosen = task.truth.astype(np.int64), answers.choices.astype(np.int64)
    found: dict[str, Any] = {"confusion": count_confusion(labels, chosen, task.labels)}
    if answers.probabilities is not None:
        scored = (labels, answers.probabilities, task.labels)
        found["curves"] = measure_curves(*scored)
        found["calibration"] = measure_calibration(*scored, seed=seed)
    return found
