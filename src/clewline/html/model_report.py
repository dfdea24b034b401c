"""The page of a model version: `clewline models report NAME@NUMBER --out report.html`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import msgspec

from clewline.evaluation.calibration import Calibration, ReliabilityCurve
from clewline.evaluation.confusion import Confusion
from clewline.evaluation.curves import ThresholdCurve
from clewline.evaluation.field_effects import FieldEffect
from clewline.evaluation.global_explanation import GlobalExplanation
from clewline.evaluation.metrics import Interval
from clewline.evaluation.report import SMALL, Report
from clewline.evaluation.residuals import Residuals
from clewline.evaluation.surrogate_tree import SurrogateTree
from clewline.formatting import (
    format_count,
    format_list,
    format_size,
    format_time,
    short_digest,
)
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
from clewline.html.markup import Content, Markup, element, isolated, join, shorten
from clewline.html.page import (
    Section,
    show_absent,
    show_chart,
    show_charts,
    show_details,
    show_facts,
    show_heat_table,
    show_table,
    show_tiles,
    show_verdict,
    write_page,
)
from clewline.model.compile.equivalence import EquivalenceRecord
from clewline.model.package import Package
from clewline.store.records import Run

BARS = 20
CURVES = 4
EFFECTS = 6
UNIT = Scale(0.0, 1.0)
ERRORS = frozenset(
    {"log_loss", "brier", "mae", "rmse", "median_absolute_error", "mean_absolute_error"}
)
"""Metrics that are better the smaller they are, or have no upper end."""


class ReportedVersion(NamedTuple):
    """A version and what is known of it."""

    package: Package
    report: Report | None
    aliases: Sequence[str] = ()
    run: Run | None = None

    @property
    def ref(self) -> str:
        """`name@number`."""
        return self.package.manifest.ref


class PairedDifference(NamedTuple):
    """How much one version is better than another in a metric, on the same test rows."""

    metric: str
    ours: float
    theirs: float
    difference: Interval | None  # None if both were not measured row by row on the same rows


def compare_metrics(version: ReportedVersion, other: ReportedVersion) -> list[PairedDifference]:
    """Compare the metrics that two versions have in common; none if one was not evaluated."""
    if version.report is None or other.report is None:
        return []
    theirs = other.report.metrics
    return [
        PairedDifference(name, found.value, theirs[name].value, None)
        for name, found in version.report.metrics.items()
        if name in theirs
    ]


def write_model_report(
    version: ReportedVersion,
    clewline: str,
    *,
    against: ReportedVersion | None = None,
    differences: Sequence[PairedDifference] = (),
) -> str:
    """
    Write the page of a version.

    Args:
        version: The version.
        clewline: Version of clewline.
        against: Another version of the same task.
        differences: Of both, by metric.
    """
    report = version.report
    sections = []
    if against is not None:
        body = _against(version, against, differences)
        sections.append(Section("against", f"Against {against.ref}", body))
    absent: list[tuple[str, str]] = []
    if report is None:
        absent.append(("Evaluation", "register with `test=`, or pass `report=cl.evaluate(…)`."))
    else:
        sections += _sections(report, absent)
    sections.append(Section("version", "The version", _facts(version)))
    sections.append(Section("fields", "Fields", _fields(version.package)))
    if absent:
        sections.append(Section("absent", "Not in this record", show_absent(absent)))
    made = format_time(version.package.manifest.created)
    return write_page(
        version.ref,
        "Model report",
        _lead(version),
        sections,
        f"Made by clewline {clewline} from the sealed record of {version.ref}, registered {made}.",
    )


def _lead(version: ReportedVersion) -> Markup:
    report = version.report
    named = f" ({', '.join(version.aliases)})" if version.aliases else ""
    if report is None:
        text = f"{version.ref}{named} was not evaluated: how good it is, is not known."
        return show_verdict("bad", text)
    tones: dict[str, Tone] = {"better": "good", "worse": "bad", "unclear": "other"}
    rule, name = shorten(report.baseline.rule, 120), report.headline
    ours, theirs = report.metrics.get(name), report.baseline.metrics.get(name)
    head = {
        "better": "This is a machine learning problem: the model beats the best plain rule.",
        "worse": "This is not a machine learning problem: a plain rule does better.",
        "unclear": "It is not clear that this needs a model: a plain rule may do as well.",
    }[report.verdict]
    figures = None
    if ours is not None and theirs is not None:
        figures = element(
            "span",
            f"{name} {ours} against {theirs} of the rule ",
            element("code", rule),
            f"; gain {report.gain} on the same {report.rows:,} test rows.",
        )
    about = f"{version.ref}{named}: {report.task} of {shorten(report.target, 60)}."
    return show_verdict(
        tones[report.verdict], head, figures, element("span", about, class_="muted")
    )


def _sections(report: Report, absent: list[tuple[str, str]]) -> Iterator[Section]:
    """Make the sections that the record holds, and note those that it lacks."""
    yield Section("metrics", "Metrics", _metrics(report))
    known = {*SMALL}
    for part in SECTIONS:
        known.add(part.field)
        found = getattr(report, part.field, None)
        if found is not None and found != [] and found != ():
            yield Section(part.key, part.title, part.show(found, report))
        elif part.applies(report):
            absent.append((part.title, part.how))
    for name in type(report).__struct_fields__:
        if name not in known and (found := getattr(report, name)) is not None:
            title = name.replace("_", " ").capitalize()
            yield Section(name.replace("_", "-"), title, _plain(found))


def _metrics(report: Report) -> Markup:
    rule = report.baseline.metrics
    bounded = {n: v for n, v in report.metrics.items() if n not in ERRORS and 0 <= v.value <= 1}
    charts = []
    if bounded:
        bars = [_bar(name, each, rule.get(name)) for name, each in bounded.items()]
        best = report.metrics.get(report.headline)
        sentence = (
            f"Dots are the model, with 95 % intervals over {report.rows:,} test rows; rings are "
            "the plain rule."
        )
        if best is not None and report.headline in bounded:
            sentence = f"{report.headline} is {best}. {sentence}"
        chart = draw_intervals(
            "The model and the plain rule",
            sentence,
            bars,
            what="metric",
            value="model",
            beside="plain rule",
            scale=Scale(
                min(
                    0.5,
                    *(
                        min(b.low or b.value, b.value if b.beside is None else b.beside)
                        for b in bars
                    ),
                )
                - 0.02,
                1.0,
            ),
        )
        charts.append(show_chart(chart))
    rows = [
        [n, v.value, v.low, v.high, None if n not in rule else rule[n].value]
        for n, v in report.metrics.items()
    ]
    header = ("metric", "model", "low", "high", "plain rule")
    about = element(
        "p",
        f"The rule was learned on {report.baseline.learned_on}. Intervals are at 95 %, from "
        f"{report.resamples:,} bootstrap resamples.",
        class_="muted",
    )
    return join(show_charts(charts), show_table(header, rows, label="Metrics"), about)


def _bar(name: str, found: Interval, beside: Interval | None = None) -> Bar:
    other = None if beside is None else beside.value
    return Bar(name, found.value, found.low, found.high, text=_interval(found), beside=other)


def _interval(found: Interval) -> str:
    return f"{write(found.value)} [{write(found.low)}, {write(found.high)}]"


def _against(
    version: ReportedVersion,
    other: ReportedVersion,
    differences: Sequence[PairedDifference],
) -> Markup:
    parts: list[Content] = []
    paired = [each for each in differences if each.difference is not None]
    for smaller in (False, True):
        bars = [
            Bar(
                d.metric,
                d.difference.value,
                d.difference.low,
                d.difference.high,
                text=_interval(d.difference),
            )
            for d in paired
            if d.difference is not None and (d.metric in ERRORS) == smaller
        ]
        if bars:
            clear = [bar for bar in bars if (bar.low or 0) > 0 or (bar.high or 0) < 0]
            side = "Below 0" if smaller else "Above 0"
            count = format_count(len(clear), "difference is", "differences are")
            sentence = f"{side} {version.ref} is better. {count} clear of 0; rows are paired."
            what = "errors" if smaller else "metrics"
            title = f"{version.ref} less {other.ref}, {what}"
            parts.append(
                show_chart(
                    draw_intervals(
                        title, sentence, bars, what="metric", value="difference", reference=0.0
                    )
                )
            )
    body: list[Content] = (
        [show_charts([part for part in parts if isinstance(part, Markup)])] if parts else []
    )
    if not differences:
        body.append(element("p", "Only one of the two was evaluated, so nothing is compared."))
        return join(body)
    if not paired:
        body.append(element("p", _why_unpaired(version, other), class_="muted"))
    rows = [[d.metric, d.ours, d.theirs, d.ours - d.theirs] for d in differences]
    header = ("metric", version.ref, other.ref, "difference")
    body.append(show_table(header, rows, label=f"Metrics of {version.ref} and {other.ref}"))
    return join(body)


def _why_unpaired(version: ReportedVersion, other: ReportedVersion) -> str:
    ours, theirs = (
        (each.package.manifest.data.get("test") or {}).get("artifact") for each in (version, other)
    )
    if ours is None or ours != theirs:
        return "They were tested on different rows, so that differences may come from the rows."
    return "They were tested on the same rows. The records hold no answers by row to be paired."


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
    about = f"The area below is {_interval(area)}. " if area is not None else ""
    precision = report.metrics.get("average_precision")
    of = f"Average precision is {_interval(precision)}. " if precision is not None else ""
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
            f"debiased, {_interval(curve.ece_debiased)}",
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
            ("slope", write(found.slope.value), f"{_interval(found.slope)}; below 1 too sure")
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


def _explanation(found: GlobalExplanation, report: Report) -> Markup:
    importance = found.importance
    bars = [
        Bar(
            " + ".join(each.fields),
            each.importance.value,
            each.importance.low,
            each.importance.high,
        )
        for each in importance.fields[:BARS]
    ]
    charts = []
    if bars:
        sentence = (
            f"{shorten(bars[0].label, 40)} matters most: shuffled, {importance.metric} gets worse "
            f"by {write(bars[0].value)}. {importance.repeats} shuffles of {importance.rows:,} test "
            "rows."
        )
        charts.append(
            draw_bars(
                "Importance of fields",
                sentence,
                bars,
                what="field",
                value=f"loss of {importance.metric}",
            )
        )
    if importance.groups:
        bars = [
            Bar(" + ".join(g.fields), g.importance.value, g.importance.low, g.importance.high)
            for g in importance.groups[:BARS]
        ]
        how = "as they were given" if found.groups_are_given else "that go together"
        sentence = f"Fields {how} are shuffled as one: alone, each hides behind the others."
        charts.append(
            draw_bars(
                "Importance of groups",
                sentence,
                bars,
                what="fields",
                value=f"loss of {importance.metric}",
            )
        )
    own = importance.own
    if own is not None and own.shares:
        bars = [Bar(name, share) for name, share in list(own.shares.items())[:BARS]]
        agree = (
            ""
            if own.rank_correlation is None
            else f" Its rank correlation with the shuffles is {own.rank_correlation:.2f}."
        )
        sentence = f"The model's own importances ({own.kind}), from its training.{agree}"
        charts.append(
            draw_bars("What the model says itself", sentence, bars, what="field", value="share")
        )
    parts: list[Content] = [show_charts([show_chart(chart) for chart in charts])]
    for kind, title in (
        ("ale", "Effect of single fields"),
        ("partial dependence", "Partial dependence"),
    ):
        drawn = [
            show_chart(_effect(each, found))
            for each in found.effects
            if each.kind == kind and each.points
        ]
        if not drawn:
            continue
        shown = show_charts(drawn[:EFFECTS]) if kind == "ale" else None
        rest = drawn[EFFECTS:] if kind == "ale" else drawn
        more = (
            show_details(f"{title}: {format_count(len(rest), 'more curve')}", show_charts(rest))
            if rest
            else None
        )
        parts += [element("h3", title) if shown else None, shown, more]
    if found.surrogate is not None:
        parts += [element("h3", "A tree in the model's place"), _surrogate(found.surrogate)]
    return join(parts)


def _effect(effect: FieldEffect, found: GlobalExplanation) -> Chart:
    name = shorten(effect.field, 40)
    of = "" if effect.label is None else f" on the probability of {shorten(str(effect.label), 30)}"
    low, high = (pick(effect.points, key=lambda p: p.effect.value) for pick in (min, max))
    what = "Accumulated local effects" if effect.kind == "ale" else "Mean answer"
    sentence = (
        f"{what}{of}: lowest at {shorten(write(low.value), 30)} ({write(low.effect.value)}), "
        f"highest at {shorten(write(high.value), 30)} ({write(high.effect.value)})."
    )
    numeric = [
        p
        for p in effect.points
        if isinstance(p.value, int | float) and not isinstance(p.value, bool)
    ]
    if effect.is_numeric and len(numeric) > 1:
        return draw_lines(
            name,
            sentence,
            [
                Line(
                    "effect",
                    [(float(p.value), p.effect.value) for p in numeric],
                    [(float(p.value), p.effect.low, p.effect.high) for p in numeric],
                )
            ],
            x=name,
            y="effect" if effect.kind == "ale" else "mean answer",
            height=180,
            reference=0.0 if effect.kind == "ale" else None,
        )
    bars = [
        Bar(
            "null" if p.value is None else str(p.value), p.effect.value, p.effect.low, p.effect.high
        )
        for p in effect.points[:BARS]
    ]
    return draw_bars(name, sentence, bars, what=name, value="effect")


def _surrogate(tree: SurrogateTree) -> Markup:
    lines: list[list[object]] = []

    def walk(place: int, path: tuple[str, ...]) -> None:
        node = tree.nodes[place]
        if node.field is None or node.holds is None or node.otherwise is None:
            answer = write(node.answer) if isinstance(node.answer, float) else str(node.answer)
            lines.append([" and ".join(path) or "always", answer, node.rows])
            return
        field = shorten(node.field, 40)
        if node.at_most is not None:
            yes, no = f"{field} ≤ {write(node.at_most)}", f"{field} > {write(node.at_most)}"
        else:
            level = "null" if node.level is None else shorten(str(node.level), 40)
            yes, no = f"{field} is {level}", f"{field} is not {level}"
        walk(node.holds, (*path, yes))
        walk(node.otherwise, (*path, no))

    walk(0, ())
    sentence = (
        f"A small tree, grown on the model's answers to {tree.grown_on:,} rows, agrees with the "
        f"model on other rows by {_interval(tree.fidelity)}; one answer for all rows by "
        f"{write(tree.fidelity_of_one_answer)}."
    )
    header = ("if", "the model mostly answers", "rows")
    return join(
        element("p", sentence), show_table(header, lines, label="A tree in the model's place")
    )


def _facts(version: ReportedVersion) -> Markup:
    manifest, package, run = version.package.manifest, version.package, version.run
    equality = msgspec.convert(manifest.equality or None, EquivalenceRecord | None)
    code = manifest.code
    changed = code.get("changed") or []
    facts: list[tuple[str, Content]] = [
        ("registered", format_time(manifest.created)),
        ("served by", f"{manifest.runtime}, {format_size(package.size_bytes)}"),
        ("equality", equality.sentence if equality else "not recorded"),
        ("run", "none" if manifest.run is None else element("code", manifest.run)),
    ]
    if run is not None:
        params = [f"{name}={value}" for name, value in run.params.items()]
        facts.append(("pipeline", isolated(f"{run.pipeline} {' '.join(params)}")))
    commit = short_digest(str(code.get("commit") or "none"))
    files = f", changed: {format_list(changed, 5)}" if changed else ""
    facts.append(("code", join(element("code", commit), isolated(files) if files else None)))
    for name, table in manifest.data.items():
        digest = element("code", short_digest(str(table.get("artifact") or "none")))
        facts.append((f"{name} data", join(f"{table.get('rows', 0):,} rows ", digest)))
    facts.append(("package", element("code", short_digest(package.digest))))
    facts.append(("seal", "verified, and every byte of the package"))
    label = "Versions of libraries"
    rows = [[name, text] for name, text in manifest.versions.items()]
    libraries = show_details(label, show_table(("library", "version"), rows, label=label))
    return join(show_facts(facts), libraries if rows else None)


def _fields(package: Package) -> Markup:
    rows = []
    for field in package.signature.fields:
        limits = " to ".join(field.bound_texts()) or format_list(field.levels or ())
        if field.shape is not None:
            limits = f"{field.dtype} of shape {list(field.shape)}"
        rows.append(
            [field.name, field.kind, "yes" if field.nullable else "", field.unit or "", limits]
        )
    header = ("field", "kind", "null", "unit", "bounds or levels")
    return show_table(header, rows, label="Fields of the signature", most=300)


def _plain(found: Any) -> Markup:
    """Write a section that has no page of its own yet: its numbers and tables."""
    values = msgspec.to_builtins(found)
    if not isinstance(values, dict):
        values = {"entries": values}
    facts: list[tuple[str, Content]] = []
    tables: list[Content] = []
    for name, value in values.items():
        title = str(name).replace("_", " ")
        if isinstance(value, dict) and value.keys() == {"value", "low", "high"}:
            facts.append((title, _interval(Interval(**value))))
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
        return _interval(Interval(**value))
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


_AGAIN = "evaluate and register again; the record was made by an older clewline."

SECTIONS = (
    ReportSection(
        "confusion", "confusion", "Right and wrong answers", _confusion, _AGAIN, _is_classifier
    ),
    ReportSection(
        "curves",
        "curves",
        "Thresholds",
        _curves,
        "evaluate a model with `predict_proba`.",
        _is_classifier,
    ),
    ReportSection(
        "calibration",
        "calibration",
        "Calibration",
        _calibration,
        "evaluate a model with `predict_proba`.",
        _is_classifier,
    ),
    ReportSection(
        "residuals",
        "errors",
        "Errors",
        _residuals,
        _AGAIN,
        lambda report: report.task == "regression",
    ),
    ReportSection(
        "explanation",
        "explanation",
        "What the model looks at",
        _explanation,
        "call `cl.evaluate(…, explain=True)`.",
    ),
)
"""In the order of the page."""
