"""`evaluate`: how good a model is, and whether it beats a plain rule."""

from __future__ import annotations

import logging
from typing import Any

import msgspec

from clewline.evaluation import baseline, columns, metrics
from clewline.evaluation.baseline import Baseline
from clewline.evaluation.columns import BaselineColumn
from clewline.evaluation.metrics import LEVEL, Interval
from clewline.evaluation.python import askable
from clewline.evaluation.task import EvaluationTask, Label, ModelPredictions, ask_model
from clewline.flow import context, tracking
from clewline.flow.step import step
from clewline.signature import dataframes
from clewline.signature.field import Task

_log = logging.getLogger(__name__)


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """What a model did on the test rows, and what a plain rule did on the same."""

    task: Task
    target: str
    rows: int
    labels: tuple[Label, ...] | None = None  # in the order of the model's probabilities
    positive: Label | None = None  # the label that precision, recall, f1 and roc_auc are about
    metrics: dict[str, Interval]
    headline: str  # the metric that model and rule are compared by
    baseline: Baseline
    gain: Interval  # how much better the model is than the rule, in the headline metric; paired
    beats_baseline: bool  # the whole interval of the gain lies above 0
    verdict: str  # the comparison in words
    level: float = LEVEL
    resamples: int
    seed: int


@step
def evaluate(
    model: Any,
    test: Any,
    *,
    target: str,
    train: Any = None,
    seed: int = 0,
    resamples: int | None = None,
) -> Report:
    """
    Measure a model on test rows that it has not seen, beside the best plain rule.

    Classifiers are compared with the rule by accuracy; where one label holds
    more than nine rows in ten, by roc_auc (of several labels, or without
    probabilities, by balanced_accuracy). Regressors by rmse. A warning is
    logged when the model is not clearly better.

    Args:
        model: Has `predict`; a classifier has `classes_`, and may have `predict_proba`. Or an
            object of the project's own with `predict(table)` or `predict(rows)`.
        test: The test table with the target (Polars, pandas or Arrow).
        target: The column to be predicted.
        train: The table that the rule is learned on; without it the rule is
            cross-fitted on the test rows.
        seed: Of the bootstrap, and of the cross-fit.
        resamples: Of the bootstrap; by default 1,000, fewer above 20,000 rows.

    Raises:
        InvalidInput: No such target, no rows, nulls in the target, or a model
            whose answers do not fit the target.
    """
    features, targets = dataframes.drop_column(test, target), dataframes.column_values(test, target)
    known = test if train is None else train
    asked, answers = ask_model(askable(model, known, target), features, targets)
    rule, rule_answers = _rule(asked, columns.read(test, target=target), train, target, seed)
    report = _report(
        asked,
        answers,
        rule_answers,
        rule=rule,
        target=target,
        learned_on="test, cross-fitted" if train is None else "train",
        seed=seed,
        resamples=metrics.default_resamples(len(targets)) if resamples is None else resamples,
    )
    if context.current_step() is not None:
        tracking.log_metrics({name: interval.value for name, interval in report.metrics.items()})
    if not report.beats_baseline:
        _log.warning("%s", report.verdict)
    return report


def _rule(
    asked: EvaluationTask, test: dict[str, BaselineColumn], train: Any, target: str, seed: int
) -> tuple[str, ModelPredictions]:
    """The rule in words, and what it answers to the test rows."""
    if train is None:
        shown = baseline.learn(test, asked.truth, asked.goal, seed=seed)
        said = baseline.cross_fitted(test, asked.truth, asked.goal, seed=seed)
    else:
        truth = asked.read(dataframes.column_values(train, target), "training table")
        shown = baseline.learn(columns.read(train, target=target), truth, asked.goal, seed=seed)
        said = shown.predict(test, len(asked.truth))
    return shown.words(asked.labels), ModelPredictions(said[0], said[1] if asked.labels else None)


def _report(
    asked: EvaluationTask,
    answers: ModelPredictions,
    rule_answers: ModelPredictions,
    *,
    rule: str,
    target: str,
    learned_on: str,
    seed: int,
    resamples: int,
) -> Report:
    rows = len(asked.truth)

    def measured(measure: metrics.Measure) -> dict[str, Interval]:
        return metrics.bootstrap_intervals(measure, rows, seed=seed, resamples=resamples)

    model, plain = measured(asked.measure(answers)), measured(asked.measure(rule_answers))
    gain = measured(asked.gain(answers, rule_answers)).get("gain", Interval(0.0, 0.0, 0.0))
    return Report(
        task=asked.task,
        target=target,
        rows=rows,
        labels=asked.labels or None,
        positive=asked.labels[1] if asked.task == "binary" else None,
        metrics=model,
        headline=asked.headline,
        baseline=Baseline(rule=rule, learned_on=learned_on, metrics=plain),
        gain=gain,
        beats_baseline=gain.low > 0,
        verdict=_verdict(asked.headline, model, plain, gain, rule),
        resamples=resamples,
        seed=seed,
    )


def _verdict(
    headline: str,
    model: dict[str, Interval],
    plain: dict[str, Interval],
    gain: Interval,
    rule: str,
) -> str:
    ours, theirs = model[headline].value, plain[headline].value
    figures = (
        f"{headline} {ours:.4g} against {theirs:.4g}, gain in [{gain.low:.4g}, {gain.high:.4g}]"
    )
    if gain.low > 0:
        return f"The model beats the plain rule '{rule}': {figures}."
    if gain.high < 0:
        return f"The plain rule '{rule}' is better than the model: {figures}."
    return f"The plain rule '{rule}' would do: {figures}, so the model is not clearly better."
