"""The sections of an evaluation record in short lines."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from clewline.evaluation.metrics import format_figure
from clewline.formatting import format_count

if TYPE_CHECKING:
    from clewline.evaluation.fairness import Disparity
    from clewline.evaluation.report import Report
    from clewline.evaluation.slices import Slices
    from clewline.evaluation.time_and_groups import TimeAndGroups
    from clewline.evaluation.value import BusinessValue

Lines = Iterator[tuple[str, str]]
_FOUR_FIFTHS = 0.8
"""Ratios of selection rates below this are named first (EEOC, 29 CFR 1607.4 D)."""
_SHOWN = 3


def evaluation_lines(report: Report) -> Lines:
    """Yield the name of each section and a line about it; what was not measured is left out."""
    if report.value:
        yield from _value(report.value)
    if report.calibration and report.calibration.curves:
        curve = report.calibration.curves[0]
        yield "calibration", f"expected calibration error {format_figure(curve.ece)}"
    if report.slices:
        yield from _slices(report.slices, report.headline)
    for field, groups in (report.fairness.fields if report.fairness else {}).items():
        for rate, disparity in groups.disparities.items():
            if rate in ("selection_rate", "true_positive_rate", "mean_error"):
                yield f"fairness {field}", _disparity(rate, disparity)
    if report.time_and_groups:
        yield from _time_and_groups(report.time_and_groups, report.headline)
    if errors := report.label_errors:
        yield "labels", f"{errors.count:,} of {report.rows:,} are probably wrong"


def _value(value: BusinessValue) -> Lines:
    unit = f" {value.unit}" if value.unit else ""
    yield "value", f"{value.per_row}{unit} a row; the baseline {format_figure(value.rule.value)}"
    if best := value.best:
        yield (
            "threshold",
            f"{best.threshold:.3g} is worth most: {best.per_row}{unit} a row; from "
            f"{best.flat_low:.3g} to {best.flat_high:.3g} it matters little",
        )


def _slices(slices: Slices, headline: str) -> Lines:
    for part in slices.given:
        score = part.metrics.get(headline)
        rest = "" if part.others is None else f", {format_figure(part.others)} elsewhere"
        small = ", few rows" if part.small else ""
        found = f"{headline} {score}{rest}" if score else f"no {headline}"
        yield f"slice {part.name}", f"{found}, {format_count(part.rows, 'row')}{small}"
    if slices.weak is None:
        return
    loss = slices.weak.loss.replace("_", " ")
    for weak in slices.weak.slices[:_SHOWN]:
        yield (
            "weak slice",
            f"{weak.condition}: {loss} {weak.loss}, {format_figure(weak.other_loss)} elsewhere",
        )
    if not slices.weak.slices:
        yield "weak slices", f"none among {format_count(slices.weak.tried, 'combination')}"


def _disparity(rate: str, disparity: Disparity) -> str:
    words = rate.replace("_", " ")
    if disparity.ratio is None or rate == "mean_error":
        far = f"{words} differs by {disparity.difference}"
    else:
        low = disparity.ratio.value < _FOUR_FIFTHS and rate == "selection_rate"
        far = f"{words} ratio {disparity.ratio}{', below 0.8' if low else ''}"
    return f"{far} ({disparity.lowest} to {disparity.highest})"


def _time_and_groups(section: TimeAndGroups, headline: str) -> Lines:
    if check := section.check:
        parts = []
        if check.early_test_rows is not None:
            early = format_count(check.early_test_rows, "test row")
            parts.append(f"{early} not later than training ({check.train_end})")
        if check.shared_groups is not None:
            parts.append(f"{check.shared_groups:,} {section.group} on both sides")
        if parts:
            yield "split", "; ".join(parts)
    if labels := section.labels:
        text = f"{labels.changing_groups:,} of {labels.groups:,} {section.group} change it"
        if labels.contradictory_rows is not None:
            text += f"; {format_count(labels.contradictory_rows, 'row')} contradict another"
        yield "label", text
    bins = [each for each in section.bins if headline in each.metrics]
    if len(bins) > 1:
        first, last = bins[0], bins[-1]
        yield (
            "over time",
            f"{headline} {first.metrics[headline]} from {first.start}, "
            f"{last.metrics[headline]} from {last.start}",
        )
