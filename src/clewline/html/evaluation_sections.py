"""Each section of an evaluation record as a part of a page."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import msgspec

from clewline.evaluation.calibration import Calibration, ReliabilityCurve
from clewline.evaluation.confusion import Confusion
from clewline.evaluation.curves import ThresholdCurve
from clewline.evaluation.fairness import Fairness, ProtectedField
from clewline.evaluation.label_errors import LabelErrors
from clewline.evaluation.metrics import Interval
from clewline.evaluation.report import Report
from clewline.evaluation.residuals import Residuals
from clewline.evaluation.slices import Slices
from clewline.evaluation.time_and_groups import TimeAndGroups
from clewline.evaluation.value import BusinessValue
from clewline.evaluation.weak_slices import WeakSlices
from clewline.formatting import format_count, format_list
from clewline.html.charts import (
    Bar,
    Chart,
    Line,
    Scale,
    Tone,
    draw_bars,
    draw_intervals,
    draw_lines,
    draw_scatter,
    write,
)
from clewline.html.explanation_section import show_explanation
from clewline.html.figures import bar_of, write_interval
from clewline.html.markup import Content, Markup, element, isolated, join, shorten
from clewline.html.page import (
    show_chart,
    show_charts,
    show_details,
    show_facts,
    show_heat_table,
    show_table,
    show_tiles,
)
from clewline.html.robustness_sections import show_conformal, show_robustness

BARS = 20
CURVES = 4
UNIT = Scale(0.0, 1.0)


def _confusion(found: Confusion, report: Report) -> Markup:
    parts: list[Content] = []
    if found.counts is not None:
        sums = [max(sum(row), 1) for row in found.counts]
        right = sum(row[place] for place, row in enumerate(found.counts))
        wrong = sum(map(sum, found.counts)) - right
        worst = found.pairs[0] if found.pairs else None
        sentence = f"{right:,} rows are answered right and {wrong:,} wrong."
        if worst is not None:
            sentence += (
                f" Most often {shorten(str(worst.truth), 40)} is taken for "
                f"{shorten(str(worst.answer), 40)} ({worst.rows:,} rows)."
            )
        shares: list[tuple[str, list[float | None]]] = [
            (str(label), [count / sums[place] for count in found.counts[place]])
            for place, label in enumerate(found.labels)
        ]
        header = ["true label ↓ answer →", *map(str, found.labels)]
        parts += [
            element("p", f"{sentence} Shares are of the rows of each true label."),
            show_heat_table(header, shares, label="Share of answers by true label"),
        ]
        rows = [[str(a), *row] for a, row in zip(found.labels, found.counts, strict=True)]
        label = "Rows by true label and answer"
        parts.append(show_details("Rows", show_table(header, rows, label=label)))
    if found.pairs and len(found.labels) > 2:
        rows = [[str(p.truth), str(p.answer), p.rows] for p in found.pairs]
        label = "Most frequent mistakes"
        header = ["true label", "answer", "rows"]
        parts += [element("h3", label), show_table(header, rows, label=label)]
    return join(parts)


def _curves(found: list[ThresholdCurve], report: Report) -> Markup:
    tones: tuple[Tone, ...] = ("model", "other", "third", "fourth")
    shown = found[:CURVES]
    roc, recall = [], []
    for curve, tone in zip(shown, tones, strict=False):
        name = shorten(str(curve.label), 30)
        points = [(p.false_positive_rate, p.recall) for p in curve.points]
        roc.append(Line(name, [(0.0, 0.0), *points], tone=tone))
        recall.append(Line(name, [(p.recall, p.precision) for p in curve.points], tone=tone))
    first = shown[0]
    area = next(
        (report.metrics[n] for n in ("roc_auc", "roc_auc_ovr_macro") if n in report.metrics), None
    )
    base = first.rows / max(report.rows, 1)
    about = f"The area below is {write_interval(area)}. " if area is not None else ""
    precision = report.metrics.get("average_precision")
    of = f"Average precision is {write_interval(precision)}. " if precision is not None else ""
    charts = [
        draw_lines(
            "ROC curve",
            f"{about}A model of chance lies on the diagonal.",
            roc,
            x="false positive rate",
            y="recall",
            x_scale=UNIT,
            y_scale=UNIT,
            diagonal=True,
        ),
        draw_lines(
            "Precision and recall",
            f"{of}{shorten(str(first.label), 40)} holds for {base:.1%} of the rows, which is the "
            "precision of chance.",
            recall,
            x="recall",
            y="precision",
            x_scale=UNIT,
            y_scale=UNIT,
            reference=base if len(shown) == 1 else None,
        ),
    ]
    drawn = show_charts([show_chart(chart, square=True) for chart in charts])
    if len(found) > CURVES:
        more = (
            f"The {CURVES} most frequent labels are drawn, of {len(found)} that the record holds."
        )
        return join(drawn, element("p", more, class_="muted"))
    return drawn


def _calibration(found: Calibration, report: Report) -> Markup:
    curve = found.curves[0]
    tiles = [
        ("calibration error", write(curve.ece), "ECE, 0 is best"),
        (
            "without chance",
            write(curve.ece_debiased.value),
            f"debiased, {write_interval(curve.ece_debiased)}",
        ),
        (
            "by chance",
            write(curve.ece_by_chance),
            "95 of 100 perfectly calibrated models are below",
        ),
        (
            "Brier score",
            write(curve.brier.score),
            f"reliability {write(curve.brier.reliability)}, "
            f"resolution {write(curve.brier.resolution)}",
        ),
    ]
    if found.slope is not None:
        tiles.append(
            ("slope", write(found.slope.value), f"{write_interval(found.slope)}; below 1 too sure")
        )
    charts = [
        show_chart(_reliability(each, len(found.curves)), square=True)
        for each in found.curves[:CURVES]
    ]
    return join(show_tiles(tiles), show_charts(charts))


def _reliability(curve: ReliabilityCurve, count: int) -> Chart:
    name = "the most probable label" if curve.label is None else shorten(str(curve.label), 40)
    low, high = (
        min(curve.bins, key=lambda b: b.probability),
        max(curve.bins, key=lambda b: b.probability),
    )
    worst = max(curve.bins, key=lambda b: abs(b.probability - b.share.value))
    chance = (
        "Probabilities are further off than chance explains."
        if curve.ece > curve.ece_by_chance
        else "Probabilities are no further off than chance explains."
    )
    sentence = (
        f"{chance} Furthest off: where the model says {worst.probability:.0%}, the label holds for "
        f"{worst.share.value:.0%} of {worst.rows:,} rows."
    )
    line = Line(
        "share",
        [(b.probability, b.share.value) for b in curve.bins],
        [(b.probability, b.share.low, b.share.high) for b in curve.bins],
        dots=True,
    )
    scale = UNIT if low.probability < 0.3 or high.probability < 0.7 else Scale(0.0, 1.0)
    return draw_lines(
        f"Reliability of {name}",
        sentence,
        [line],
        x="probability that the model gives",
        y="share for which it holds",
        x_scale=scale,
        y_scale=scale,
        diagonal=True,
    )


def _residuals(found: Residuals, report: Report) -> Markup:
    name = shorten(report.target, 40)
    ends = [each for pair in found.sample for each in pair]
    scale = Scale(min(ends), max(ends)) if ends and min(ends) < max(ends) else Scale(0.0, 1.0)
    charts = [
        draw_scatter(
            "Answer and truth",
            f"A point is a test row, {len(found.sample):,} of {report.rows:,}. On the diagonal the "
            "answer is right.",
            found.sample,
            x=f"answer ({name})",
            y="truth",
            x_scale=scale,
            y_scale=scale,
            diagonal=True,
        )
    ]
    if len(found.bins) > 1:
        points = [((b.low + b.high) / 2, b.mean) for b in found.bins]
        band = [((b.low + b.high) / 2, b.p10, b.p90) for b in found.bins]
        worst = max(found.bins, key=lambda b: abs(b.mean))
        sentence = (
            f"Where answers are {write(worst.low)} to {write(worst.high)}, they are off by "
            f"{write(worst.mean)} on average. In the band lie 8 of 10 errors."
        )
        charts.append(
            draw_lines(
                "Error by answer",
                sentence,
                [Line("error", points, band, dots=True)],
                x=f"answer ({name})",
                y="answer less truth",
                reference=0.0,
            )
        )
    return show_charts([show_chart(chart, square=True) for chart in charts])


def _value(found: BusinessValue, report: Report) -> Markup:
    unit = f" {found.unit}" if found.unit else ""
    tiles = [
        (
            "value of an answer",
            f"{write(found.per_row.value)}{unit}",
            write_interval(found.per_row),
        ),
        (f"of all {report.rows:,} test rows", f"{write(found.total)}{unit}", ""),
        ("plain rule", f"{write(found.rule.value)}{unit}", write_interval(found.rule)),
        ("gain over the rule", f"{write(found.gain.value)}{unit}", write_interval(found.gain)),
    ]
    best, charts = found.best, []
    if best is not None:
        gain = f"gain {write_interval(best.gain)} over the model's own choices"
        tiles.append(("best threshold", write(best.threshold), gain))
    if found.curve and best is not None:
        sentence = (
            f"It is highest at {write(best.threshold)}. From {write(best.flat_low)} to "
            f"{write(best.flat_high)} it is no worse than chance explains. Chosen on one half of "
            f"the rows, the threshold is worth {write(best.held_out)} on the other."
        )
        points = [(threshold, value) for threshold, value in found.curve]
        charts.append(
            show_chart(
                draw_lines(
                    "Value by threshold",
                    sentence,
                    [Line("value", points)],
                    x="threshold",
                    y=f"value of an answer{unit}",
                    x_scale=UNIT,
                    reference=found.per_row.value,
                )
            )
        )
    table = None
    if found.cells:
        rows = [
            [str(c.truth), str(c.answer), c.rows, c.value, c.rows * c.value] for c in found.cells
        ]
        header = ("true label", "answer", "rows", "value of one", "in all")
        table = show_details("What each answer is worth", show_table(header, rows, label="Value"))
    return join(show_tiles(tiles), show_charts(charts) if charts else None, table)


def _slices(found: Slices, report: Report) -> Markup:
    parts: list[Content] = []
    name, whole = report.headline, report.metrics.get(report.headline)
    given = [each for each in found.given if name in each.metrics]
    bars = [bar_of(f"{g.name} · {g.rows:,} rows", g.metrics[name]) for g in given[:BARS]]
    if bars:
        low = min(given, key=lambda each: each.metrics[name].value)
        high = max(given, key=lambda each: each.metrics[name].value)
        sentence = (
            f"{name} is between {write(low.metrics[name].value)} ({shorten(low.name, 40)}) and "
            f"{write(high.metrics[name].value)} ({shorten(high.name, 40)})."
        )
        chart = draw_intervals(
            f"{name} by slice",
            sentence,
            bars,
            what="slice",
            value=name,
            reference=None if whole is None else whole.value,
            reference_name="all rows",
        )
        parts.append(show_charts([show_chart(chart)]))
    if found.given:
        metrics = list(dict.fromkeys(metric for each in found.given for metric in each.metrics))
        rows = [
            [
                each.name,
                each.rows,
                *(write_interval(each.metrics[m]) if m in each.metrics else "" for m in metrics),
            ]
            for each in found.given
        ]
        table = show_table(("slice", "rows", *metrics), rows, label="Metrics by slice")
        parts.append(show_details("Every metric by slice", table))
    if found.weak is not None:
        parts += [element("h3", "Weak slices that were found"), _weak_slices(found.weak)]
    return join(parts)


def _weak_slices(found: WeakSlices) -> Markup:
    searched = (
        f"{found.tried:,} combinations of conditions were tried on {found.searched_rows:,} rows, "
        f"and {format_count(found.candidates, 'candidate')} tested on {found.confirming_rows:,} "
        "others."
    )
    if not found.slices:
        return element("p", f"{searched} None is clearly worse than the rest.")
    loss = found.loss.replace("_", " ")
    bars = [
        bar_of(f"{each.condition} · {each.rows:,} rows", each.loss, each.other_loss)
        for each in found.slices[:BARS]
    ]
    first = found.slices[0]
    sentence = (
        f"{searched} Where {shorten(first.condition, 120)}, the {loss} is "
        f"{write(first.loss.value)}; elsewhere it is {write(first.other_loss)}."
    )
    chart = draw_intervals(
        f"{loss.capitalize()} of weak slices",
        sentence,
        bars,
        what="slice",
        value=loss,
        beside="all other rows",
    )
    rows = [
        [e.condition, e.rows, e.share, write_interval(e.loss), e.other_loss, e.p_value]
        for e in found.slices
    ]
    header = ("condition", "rows", "share", loss, "other rows", "p, corrected")
    details = show_details("Conditions in full", show_table(header, rows, label="Weak slices"))
    return join(show_charts([show_chart(chart)]), details)


def _fairness(found: Fairness, report: Report) -> Markup:
    parts: list[Content] = []
    for name, field in found.fields.items():
        parts += [element("h3", isolated(name, 60)), _protected_field(name, field, found.positive)]
    return join(parts)


def _protected_field(name: str, field: ProtectedField, positive: object) -> Markup:
    wanted = ["selection_rate", "true_positive_rate", "false_positive_rate", "accuracy", "mae"]
    rates = list(dict.fromkeys(rate for group in field.groups for rate in group.rates))
    shown = [rate for rate in wanted if rate in rates] or rates[:4]
    charts = []
    for rate in shown[:4]:
        groups = [group for group in field.groups if rate in group.rates]
        bars = [bar_of(f"{g.group} · {g.rows:,} rows", g.rates[rate]) for g in groups[:BARS]]
        gap = field.disparities.get(rate)
        sentence = f"{rate.replace('_', ' ').capitalize()} of {format_count(len(groups), 'group')}."
        if gap is not None:
            ratio = "" if gap.ratio is None else f", ratio {write_interval(gap.ratio)}"
            sentence = (
                f"Lowest for {shorten(gap.lowest, 30)}, highest for {shorten(gap.highest, 30)}: "
                f"difference {write_interval(gap.difference)}{ratio}."
            )
        title = rate.replace("_", " ").capitalize()
        if rate == "selection_rate" and positive is not None:
            title += f" (answered {shorten(str(positive), 30)})"
        charts.append(show_chart(draw_intervals(title, sentence, bars, what="group", value=rate)))
    rows = [
        [
            rate.replace("_", " "),
            write_interval(gap.difference),
            "" if gap.ratio is None else write_interval(gap.ratio),
            gap.lowest,
            gap.highest,
        ]
        for rate, gap in field.disparities.items()
    ]
    header = ("rate", "difference", "ratio", "lowest", "highest")
    label = f"Differences between groups of {shorten(name, 60)}"
    return join(
        show_charts(charts),
        show_details(label, show_table(header, rows, label=label)) if rows else None,
    )


def _time_and_groups(found: TimeAndGroups, report: Report) -> Markup:
    parts: list[Content] = []
    facts: list[tuple[str, Content]] = []
    check, labels = found.check, found.labels
    if check is not None:
        if check.early_test_rows is not None:
            early = f"{check.early_test_rows:,} of {check.test_rows:,} test rows"
            facts.append(("not later than the training", early))
        if check.train_end is not None:
            facts.append(("last training row", check.train_end))
        if check.test_start is not None:
            facts.append(("first test row", check.test_start))
        if check.shared_groups is not None:
            shared = format_count(check.shared_group_rows or 0, "test row")
            facts.append(("entities on both sides", f"{check.shared_groups:,} ({shared})"))
    if labels is not None:
        facts.append(("entities", f"{labels.groups:,}"))
        facts.append(("with several labels", f"{labels.changing_groups:,}"))
        if labels.contradictory_rows is not None:
            facts.append(("rows whose labels contradict", f"{labels.contradictory_rows:,}"))
    if facts:
        parts.append(show_facts(facts))
    name = report.headline
    bins = [each for each in found.bins if name in each.metrics]
    if len(bins) > 1:
        values = [each.metrics[name] for each in bins]
        low = min(range(len(bins)), key=lambda place: values[place].value)
        sentence = (
            f"{name} goes from {write(values[0].value)} to {write(values[-1].value)}; it is lowest "
            f"from {bins[low].start} to {bins[low].end} ({write(values[low].value)})."
        )
        ends = [(0.0, bins[0].start[:10]), (float(len(bins) - 1), bins[-1].end[:10])]
        chart = draw_lines(
            f"{name} over time",
            sentence,
            [
                Line(
                    name,
                    [(float(place), each.value) for place, each in enumerate(values)],
                    [(float(place), each.low, each.high) for place, each in enumerate(values)],
                    dots=True,
                )
            ],
            x="test rows in the order of time",
            y=name,
            x_ticks=ends,
        )
        parts.append(show_charts([show_chart(chart)]))
        rows = [
            [each.start, each.end, each.rows, write_interval(each.metrics[name])] for each in bins
        ]
        table = show_table(("from", "to", "rows", name), rows, label="Metrics over time")
        parts.append(show_details("Stretches of time", table))
    return join(parts)


def _label_errors(found: LabelErrors, report: Report) -> Markup:
    sentence = (
        f"{format_count(found.count, 'test row has', 'test rows have')} a label that is probably "
        f"wrong ({found.share:.2%}), by confident learning. Review them before you trust a metric "
        "to the last digit."
    )
    parts: list[Content] = [element("p", sentence)]
    if found.pairs:
        bars = [Bar(f"{p.label} → {p.likely}", p.rows) for p in found.pairs[:BARS]]
        first = found.pairs[0]
        names = [shorten(str(each), 40) for each in (first.label, first.likely)]
        text = f"Most often {names[0]} is probably {names[1]}."
        chart = draw_bars(
            "Labels that are probably others", text, bars, what="label → likely", value="rows"
        )
        parts.append(show_charts([show_chart(chart)]))
    rows = [[e.row, str(e.label), str(e.likely), e.confidence] for e in found.listed]
    if rows:
        label = "Rows of the test table to review, counted from 0"
        header = ("row", "label", "likely", "probability of its label")
        parts.append(show_details(label, show_table(header, rows, label=label)))
    return join(parts)


def show_plain(found: Any) -> Markup:
    """Write a section that has no page of its own yet: its numbers and tables."""
    values = msgspec.to_builtins(found)
    if not isinstance(values, dict):
        values = {"entries": values}
    facts: list[tuple[str, Content]] = []
    tables: list[Content] = []
    for name, value in values.items():
        title = str(name).replace("_", " ")
        if isinstance(value, dict) and value.keys() == {"value", "low", "high"}:
            facts.append((title, write_interval(Interval(**value))))
        elif isinstance(value, list) and value and all(isinstance(each, dict) for each in value):
            columns = list(dict.fromkeys(key for each in value for key in each))
            rows = [[_flat(each.get(column)) for column in columns] for each in value]
            heads = [column.replace("_", " ") for column in columns]
            tables += [element("h3", title), show_table(heads, rows, label=title)]
        elif value is not None and value != []:
            facts.append((title, isolated(_flat(value))))
    return join(show_facts(facts), tables)


def _flat(value: Any) -> Any:
    if isinstance(value, dict) and value.keys() == {"value", "low", "high"}:
        return write_interval(Interval(**value))
    if isinstance(value, dict):
        return ", ".join(f"{key}: {_flat(each)}" for key, each in value.items())
    if isinstance(value, list):
        return format_list([str(_flat(each)) for each in value], 10)
    return write(value) if isinstance(value, float) else value


class ReportSection(NamedTuple):
    """A part of the record: its field, its title, how it is shown, and how to get it."""

    field: str
    key: str
    title: str
    show: Callable[[Any, Report], Markup]
    how: str
    applies: Callable[[Report], bool] = lambda report: True


def _is_classifier(report: Report) -> bool:
    return report.task in ("binary", "multiclass")


def _is_regression(report: Report) -> bool:
    return report.task == "regression"


_AGAIN = "evaluate and register again; the record was made by an older clewline."
_SCORES = "evaluate a model with `predict_proba`."

SECTIONS = (
    ReportSection(
        "value", "value", "Value", _value, "call `cl.evaluate(…, costs=…)` or `value=…`."
    ),
    ReportSection(
        "confusion", "confusion", "Right and wrong answers", _confusion, _AGAIN, _is_classifier
    ),
    ReportSection("curves", "curves", "Thresholds", _curves, _SCORES, _is_classifier),
    ReportSection(
        "calibration", "calibration", "Calibration", _calibration, _SCORES, _is_classifier
    ),
    ReportSection("residuals", "errors", "Errors", _residuals, _AGAIN, _is_regression),
    ReportSection("slices", "slices", "Slices", _slices, "call `cl.evaluate(…, slices=…)`."),
    ReportSection(
        "fairness", "fairness", "Fairness", _fairness, "call `cl.evaluate(…, protected=[…])`."
    ),
    ReportSection(
        "time_and_groups",
        "time",
        "Time and entities",
        _time_and_groups,
        "call `cl.evaluate(…, time=…, group=…)`.",
    ),
    ReportSection(
        "label_errors", "labels", "Label quality", _label_errors, _SCORES, _is_classifier
    ),
    ReportSection(
        "conformal", "conformal", "Answers at a stated coverage", show_conformal, _SCORES
    ),
    ReportSection(
        "robustness",
        "robustness",
        "Changed rows",
        show_robustness,
        "call `cl.evaluate(…, robustness=True)`.",
    ),
    ReportSection(
        "explanation",
        "explanation",
        "What the model looks at",
        show_explanation,
        "call `cl.evaluate(…, explain=True)`.",
    ),
)
"""In the order of the page."""
