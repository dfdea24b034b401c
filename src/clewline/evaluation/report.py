"""
The evaluation record: what `cl.evaluate` found out about a model.

A package holds the whole record in `evaluation.json`, and the small part of it (`SMALL`) in its
manifest. A section is a struct in a module of its own. It is None if it was not asked for, or if
an older clewline made the record.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from clewline.evaluation.answers import EvaluatedTask
from clewline.evaluation.baseline import Baseline
from clewline.evaluation.calibration import Calibration
from clewline.evaluation.conformal import Conformal
from clewline.evaluation.confusion import Confusion
from clewline.evaluation.curves import ThresholdCurve
from clewline.evaluation.fairness import Fairness
from clewline.evaluation.global_explanation import GlobalExplanation
from clewline.evaluation.label_errors import LabelErrors
from clewline.evaluation.metrics import LEVEL, Interval
from clewline.evaluation.residuals import Residuals
from clewline.evaluation.robustness import Robustness
from clewline.evaluation.slices import Slices
from clewline.evaluation.time_and_groups import TimeAndGroups
from clewline.evaluation.value import BusinessValue
from clewline.signature.infer import Label


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """The metrics of a model on the test rows, beside those of a plain rule."""

    task: EvaluatedTask
    target: str
    rows: int
    labels: tuple[Label, ...] | None = None  # in the order of the model's probabilities
    positive: Label | None = None  # the label that precision, recall, f1 and roc_auc are about
    metrics: dict[str, Interval]
    headline: str  # the metric that model and rule are compared by
    baseline: Baseline
    gain: Interval  # how much better the model is than the rule, in the headline metric; paired
    verdict: Literal["better", "worse", "unclear"]  # the side of 0 on which all of `gain` lies
    level: float = LEVEL
    resamples: int
    seed: int

    # Sections, each in a module of its own.
    calibration: Calibration | None = None  # of a classifier with probabilities
    conformal: Conformal | None = None  # of such a classifier, or of a regression
    robustness: Robustness | None = None
    confusion: Confusion | None = None  # of a classifier
    curves: list[ThresholdCurve] | None = None  # of a classifier with probabilities
    residuals: Residuals | None = None  # of a regression
    explanation: GlobalExplanation | None = None  # if it was asked for
    value: BusinessValue | None = None
    slices: Slices | None = None
    fairness: Fairness | None = None
    time_and_groups: TimeAndGroups | None = None
    label_errors: LabelErrors | None = None

    @property
    def small(self) -> dict[str, Any]:
        """The part that a manifest holds, as plain values."""
        return {name: msgspec.to_builtins(getattr(self, name)) for name in SMALL}

    @property
    def beats_baseline(self) -> bool:
        """Whether the model is clearly better than the rule."""
        return self.verdict == "better"

    def __str__(self) -> str:
        rule, name = self.baseline.rule, self.headline
        figures = (
            f"{name} {self.metrics[name].value:.4g} against "
            f"{self.baseline.metrics[name].value:.4g}, "
            f"gain in [{self.gain.low:.4g}, {self.gain.high:.4g}]"
        )
        if self.verdict == "better":
            return f"The model beats the plain rule '{rule}': {figures}."
        if self.verdict == "worse":
            return f"The plain rule '{rule}' is better than the model: {figures}."
        return f"The model is not clearly better than the plain rule '{rule}': {figures}."


SMALL = (
    "task",
    "target",
    "rows",
    "labels",
    "positive",
    "metrics",
    "headline",
    "baseline",
    "gain",
    "verdict",
    "level",
    "resamples",
    "seed",
)
"""The fields of a report that a manifest holds as well."""
