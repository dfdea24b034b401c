"""The sections on what happens when rows change: conformal sets, noise, gaps, copies."""

from __future__ import annotations

from clewline.evaluation.conformal import Conformal
from clewline.evaluation.report import Report
from clewline.evaluation.robustness import Extraction, FlipDistances, Robustness
from clewline.formatting import format_count
from clewline.html.charts import Bar, Chart, Line, draw_bars, draw_intervals, draw_lines, write
from clewline.html.figures import write_interval
from clewline.html.markup import Content, Markup, element, join, shorten
from clewline.html.page import show_chart, show_charts, show_details, show_table

BARS = 20


def show_conformal(found: Conformal, report: Report) -> Markup:
    """Show stated coverages beside those that were found, and the size of the sets."""
    is_set = any(each.size is not None for each in found.levels)
    what = "labels in a set" if is_set else "width of an interval"
    rows = []
    for each in found.levels:
        size = each.size if is_set else each.width
        rows.append(
            [
                f"{each.coverage:.0%}",
                "too few rows" if each.found is None else write_interval(each.found),
                "" if size is None else write_interval(size),
                each.lowest_class,
                each.rows_needed,
            ]
        )
    header = ("stated coverage", "found", what, "lowest of a label", "rows needed")
    known = [each for each in found.levels if each.found is not None]
    parts: list[Content] = []
    if known:
        first = known[0]
        size = first.size if is_set else first.width
        of = (
            ""
            if size is None
            else f", with {write(size.value)} {what.partition(' ')[0]} on average"
        )
        sentence = (
            f"Stated {first.coverage:.0%}, the truth lies inside for "
            f"{write(first.found.value if first.found else 0)} of the rows{of}. Each half of "
            f"{found.rows:,} rows was measured by the other."
        )
        parts.append(element("p", sentence))
    return join(parts, show_table(header, rows, label="Coverage of conformal answers"))


def show_robustness(found: Robustness, report: Report) -> Markup:
    """Show how far answers are from flipping, what noise and gaps cost, and how a copy does."""
    charts = []
    if found.flips is not None and found.flips.quantiles:
        charts.append(show_chart(_flips(found.flips)))
        if found.flips.fields:
            charts.append(show_chart(_flip_fields(found.flips)))
    noise = [each for each in found.noise if each.field is None]
    if len(noise) > 1:
        charts.append(show_chart(_noise(found, report)))
    if found.missing:
        charts.append(show_chart(_missing(found)))
    if found.extraction is not None and found.extraction.points:
        charts.append(show_chart(_extraction(found.extraction)))
    rows = [
        [
            "all numbers" if each.field is None else each.field,
            f"{each.share:.0%}",
            write_interval(each.loss),
            "" if each.flips is None else write_interval(each.flips),
        ]
        for each in found.noise
    ]
    label = f"What noise on single fields costs in {found.metric}"
    header = ("field", "noise, of its deviation", f"loss of {found.metric}", "changed labels")
    table = show_details(label, show_table(header, rows, label=label)) if rows else None
    return join(show_charts(charts), table)


def _flips(found: FlipDistances) -> Chart:
    sentence = (
        f"Half of {found.rows:,} rows get another answer within a distance of "
        f"{write_interval(found.median)}; 1 is a typical deviation of a number, or another level."
    )
    return draw_lines(
        "Distance to another answer",
        sentence,
        [Line("rows", [(distance, share) for share, distance in found.quantiles], dots=True)],
        x="distance",
        y="share of the rows that flip within it",
        height=200,
    )


def _flip_fields(found: FlipDistances) -> Chart:
    bars = [Bar(each.field, each.share) for each in found.fields[:BARS]]
    one = dict(found.changed_fields).get(1, 0.0)
    sentence = (
        f"{shorten(bars[0].label, 40)} changes most often ({bars[0].value:.0%}). One field is "
        f"enough for {one:.0%} of the flips."
    )
    return draw_bars("Fields that flip answers", sentence, bars, what="field", value="share")


def _noise(found: Robustness, report: Report) -> Chart:
    points = sorted((each for each in found.noise if each.field is None), key=lambda n: n.share)
    worst = points[-1]
    sentence = (
        f"Noise of {worst.share:.0%} of each number's deviation costs {write_interval(worst.loss)} "
        f"of {found.metric}."
    )
    return draw_lines(
        "Noise on all numbers",
        sentence,
        [
            Line(
                "loss",
                [(each.share, each.loss.value) for each in points],
                [(each.share, each.loss.low, each.loss.high) for each in points],
                dots=True,
            )
        ],
        x="noise, as a share of each deviation",
        y=f"loss of {found.metric}",
        reference=0.0,
        height=200,
    )


def _missing(found: Robustness) -> Chart:
    ordered = sorted(found.missing, key=lambda each: -each.replaced.value)[:BARS]
    bars = [
        Bar(
            each.field,
            each.replaced.value,
            each.replaced.low,
            each.replaced.high,
            beside=None if each.null is None else each.null.value,
        )
        for each in ordered
    ]
    refused = sum(each.null is None for each in found.missing)
    sentence = f"Without {shorten(bars[0].label, 40)} the loss of {found.metric} is largest."
    if refused:
        sentence += f" The model refuses null in {format_count(refused, 'field')}."
    return draw_intervals(
        "What a missing field costs",
        sentence,
        bars,
        what="field",
        value="another row's value",
        beside="null",
        reference=0.0,
    )


def _extraction(found: Extraction) -> Chart:
    last = found.points[-1]
    sentence = (
        f"A copy that was trained on {last.queries:,} answers agrees with the model by "
        f"{write_interval(last.agreement)}; one answer for all rows by {write(found.one_answer)}."
    )
    return draw_lines(
        "How few answers rebuild the model",
        sentence,
        [
            Line(
                "copy",
                [(float(each.queries), each.agreement.value) for each in found.points],
                [
                    (float(each.queries), each.agreement.low, each.agreement.high)
                    for each in found.points
                ],
                dots=True,
            )
        ],
        x="answers that the copy learned from",
        y="agreement",
        reference=found.one_answer,
        height=200,
    )
