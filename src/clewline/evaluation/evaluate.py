"""`cl.evaluate`: how good a model is, where not, and whether it beats a plain rule."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from clewline.errors import InvalidInput
from clewline.evaluation.answers import (
    EvaluatedRows,
    EvaluationTask,
    ModelPredictions,
    ask_model,
    encode_labels,
    encode_quantities,
    is_ranker,
    ranking_task,
)
from clewline.evaluation.baseline import Baseline, FittedRule, cross_fit_rule, learn_rule
from clewline.evaluation.bootstrap import plan_bootstrap
from clewline.evaluation.calibration import measure_calibration
from clewline.evaluation.columns import EvaluatedColumns, read_columns
from clewline.evaluation.conformal import measure_label_sets, measure_value_intervals
from clewline.evaluation.confusion import count_confusion
from clewline.evaluation.curves import measure_curves
from clewline.evaluation.fairness import fairness, require_protected
from clewline.evaluation.global_explanation import explain_globally
from clewline.evaluation.label_errors import find_label_errors
from clewline.evaluation.report import Report
from clewline.evaluation.residuals import measure_residuals
from clewline.evaluation.robustness import measure_robustness
from clewline.evaluation.slices import SliceNames, Slices, given_slices
from clewline.evaluation.time_and_groups import (
    TimeAndGroupNames,
    TimeNames,
    read_groups,
    time_and_groups,
)
from clewline.evaluation.value import Costs, ValueFunction, business_value
from clewline.evaluation.weak_slices import find_weak_slices
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
    slices: SliceNames = (),
    find_slices: bool = True,
    protected: Sequence[str] | str = (),
    costs: Costs | None = None,
    value: ValueFunction | None = None,
    unit: str = "",
    time: TimeNames | None = None,
    group: str | None = None,
    split: str | Sequence[str] | None = None,
    task: Literal["ranking"] | None = None,
    seed: int = 0,
    resamples: int | None = None,
    explain: bool = False,
    groups: Mapping[str, Sequence[str]] | None = None,
    robustness: bool = False,
) -> Report:
    """
    Measure a model on test rows that it has not seen, beside the best plain rule.

    Classifiers are compared with the rule by accuracy. If one label holds more than nine rows
    in ten, they are compared by roc_auc (with several labels, or without probabilities, by
    balanced_accuracy). Regressors are compared by rmse, rankers by ndcg@10. A warning is logged
    if the model is not clearly better, and if rows leak between training and test.

    Args:
        model: Has `predict`; a classifier has `classes_`, and may have `predict_proba`. Or an
            object of the project's own with `predict(table)` or `predict(rows)`.
        test: The test table with the target (Polars, pandas or Arrow).
        target: The column to be predicted.
        train: The table that the rule is learned on. Without it the rule is cross-fitted on
            the test rows.
        slices: Parts of the test rows to be measured on their own: name → condition, such as
            `{"women": "sex == 'Female'"}`; or conditions and names of fields.
        find_slices: Whether to search for slices on which the model does clearly worse.
        protected: Fields whose groups are compared (fairness). The model need not take them.
        costs: What each answer costs: `{truth: {answer: cost}}`, or a matrix in the order of
            the labels.
        value: In place of `costs`, a function of answer and truth that returns what the answer
            is worth.
        unit: What `costs` or `value` count, such as "€".
        time: The column that dates the rows; or the two that hold start and end.
        group: The column that names the entity of each row, or the query of a ranking.
            Bootstrap resamples draw whole groups.
        split: "time", "group" or both: what training and test rows must not share. Leaks are
            refused; without it they are counted.
        task: "ranking" for a regressor whose answers order the rows of each query.
        seed: Seed of the bootstrap, the cross-fit and the halves.
        resamples: Number of bootstrap resamples; by default 1,000, fewer for more than 20,000
            rows in groups.
        explain: Also measure how important each field is, how the answer depends on it, and how
            well a small tree imitates the model. The model answers some 10,000 to 50,000 rows
            for each field.
        groups: With `explain`, fields that are shuffled together, under any names; by default
            groups of associated fields are found.
        robustness: Also measure how small a plausible change flips an answer, what noise and
            missing values cost, and how few queries rebuild the model. The model answers some
            10,000 to 50,000 rows.

    Raises:
        InvalidInput: There is no such column, there are no rows, a target is null, the model's
            answers do not fit the target, `value` fails, or rows leak that `split` forbids.
        ModelFailed: With `explain`, the model raised on rows with changed fields.
    """
    if costs is not None and value is not None:
        raise InvalidInput("Both costs= and value= are given.", "Pass one of them.")
    names, asked = TimeAndGroupNames.read(time, group, split), require_protected(protected)
    targets = dataframes.column_values(test, target)
    features = dataframes.drop_column(test, target)
    columns = read_columns(test, target=target)
    aside = tuple(dict.fromkeys([*names.columns, *asked]))
    ranks = task == "ranking" or is_ranker(model)
    if (family := family_of(model)) is not None:
        model = family.as_estimator(model, test if train is None else train, target)
    stated, answers = ask_model(model, features, targets, aside=aside)
    entities = None if group is None else read_groups(columns, group)
    if ranks:
        stated = ranking_task(stated, entities)
    rule, rule_answers = _answer_by_rule(stated, columns, train, target, seed)
    bootstrap = plan_bootstrap(
        len(targets),
        seed=seed,
        resamples=resamples,
        groups=entities,
        cells=lambda: stated.cells(answers, rule_answers),
    )
    rows = EvaluatedRows(stated, answers, rule_answers, columns, bootstrap)
    training = None if train is None else _TrainingRows.read(train, target, stated)
    own, plain, gain = rows.compare()
    report = Report(
        task=stated.task,
        target=target,
        rows=len(targets),
        labels=stated.labels or None,
        positive=stated.labels[1] if stated.task == "binary" else None,
        metrics=own,
        headline=stated.headline,
        baseline=Baseline(
            rule=rule.describe(stated.labels),
            learned_on="test, cross-fitted" if train is None else "train",
            metrics=plain,
        ),
        gain=gain,
        verdict="better" if gain.low > 0 else "worse" if gain.high < 0 else "unclear",
        resamples=bootstrap.resamples,
        seed=seed,
        value=(
            business_value(rows, costs=costs, value=value, unit=unit)
            if costs is not None or value is not None
            else None
        ),
        slices=_slices(rows, slices, find_slices, aside=names.columns),
        fairness=fairness(rows, asked) if asked else None,
        time_and_groups=(
            time_and_groups(
                rows,
                names,
                train=training.columns if training else None,
                train_labels=training.labels if training else None,
            )
            if names.columns
            else None
        ),
        label_errors=find_label_errors(rows),
        explanation=(
            explain_globally(model, stated, features, columns, groups=groups, seed=seed)
            if explain
            else None
        ),
        robustness=(
            measure_robustness(model, stated, features, columns, answers, seed=seed)
            if robustness
            else None
        ),
        **_plain_sections(stated, answers, seed),
    )
    if context.current_step() is not None:
        tracking.log_metrics({name: interval.value for name, interval in report.metrics.items()})
    for warning in _warnings(report):
        _log.warning("%s", warning)
    return report


@dataclass(frozen=True, slots=True)
class _TrainingRows:
    columns: EvaluatedColumns
    labels: NDArray[np.int64] | None

    @classmethod
    def read(cls, train: Any, target: str, task: EvaluationTask) -> _TrainingRows:
        labels = None
        if task.labels:
            known = dataframes.column_values(train, target)
            labels = encode_labels(known, task.labels, "training table")
        return cls(read_columns(train, target=target), labels)


def _answer_by_rule(
    task: EvaluationTask, columns: EvaluatedColumns, train: Any, target: str, seed: int
) -> tuple[FittedRule, ModelPredictions]:
    """Learn the plain rule, on the training table if there is one, and let it answer the rows."""
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
        choices, shares = rule.predict(columns, task.rows)
    return rule, ModelPredictions(choices, shares if task.labels else None)


def _plain_sections(task: EvaluationTask, answers: ModelPredictions, seed: int) -> dict[str, Any]:
    """Return the sections that need nothing but answers and truth."""
    if not task.labels:
        truth = task.truth.astype(np.float64)
        return {
            "residuals": measure_residuals(truth, answers.choices, seed=seed),
            "conformal": measure_value_intervals(truth, answers.choices, seed=seed),
        }
    labels, chosen = task.truth.astype(np.int64), answers.choices.astype(np.int64)
    found: dict[str, Any] = {"confusion": count_confusion(labels, chosen, task.labels)}
    if answers.probabilities is not None:
        scored = (labels, answers.probabilities, task.labels)
        found["curves"] = measure_curves(*scored)
        found["calibration"] = measure_calibration(*scored, seed=seed)
        found["conformal"] = measure_label_sets(labels, answers.probabilities, seed=seed)
    return found


def _slices(
    rows: EvaluatedRows, asked: SliceNames, find: bool, *, aside: Sequence[str]
) -> Slices | None:
    if rows.task.task == "ranking" and not asked:
        return None
    if not find and not asked:
        return None
    searches = find and rows.task.task != "ranking"
    return Slices(
        given=given_slices(rows, asked),
        weak=find_weak_slices(rows, ignored=aside) if searches else None,
    )


def _warnings(report: Report) -> list[str]:
    """Say what somebody should know before trusting the figures."""
    found = [] if report.beats_baseline else [str(report)]
    section = report.time_and_groups
    check, labels = (section.check, section.labels) if section else (None, None)
    if check and check.early_test_rows:
        found.append(
            f"{check.early_test_rows:,} of {check.test_rows:,} test rows are not later than the "
            f"last training row ({check.train_end})."
        )
    if check and check.shared_groups:
        found.append(
            f"{check.shared_group_rows:,} of {check.test_rows:,} test rows belong to "
            f"{check.shared_groups:,} groups that have training rows too."
        )
    if labels and labels.contradictory_rows:
        found.append(
            f"{labels.contradictory_rows:,} rows overlap in time with a row of the same group that "
            "has another label."
        )
    return found
