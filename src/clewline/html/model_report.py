"""The page of a model version: `clewline models report NAME@NUMBER --out report.html`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import msgspec

from clewline.evaluation.metrics import SMALLER_IS_BETTER
from clewline.evaluation.report import SMALL, Report
from clewline.formatting import format_count, format_list, format_size, format_time, short_digest
from clewline.html.charts import Scale, Tone, draw_intervals
from clewline.html.evaluation_sections import SECTIONS, show_plain
from clewline.html.figures import bar_of, write_interval
from clewline.html.markup import Content, Markup, element, isolated, join, shorten
from clewline.html.page import (
    Section,
    show_absent,
    show_chart,
    show_charts,
    show_details,
    show_facts,
    show_table,
    show_verdict,
    write_page,
)
from clewline.model.compile.equivalence import EquivalenceRecord
from clewline.model.package import Package
from clewline.model.reported_version import PairedDifference, ReportedVersion


def write_model_report(
    version: ReportedVersion,
    clewline: str,
    *,
    against: ReportedVersion | None = None,
    differences: Sequence[PairedDifference] = (),
    unpaired: str = "",
) -> str:
    """
    Write the page of a version.

    Args:
        version: The version.
        clewline: Version of clewline.
        against: Another version of the same task.
        differences: Of both, by metric.
        unpaired: Why they have no intervals.
    """
    sections = make_sections(version)
    if against is not None:
        body = show_differences(version, against, differences, unpaired)
        sections.insert(0, Section("against", f"Against {against.ref}", body))
    made = format_time(version.package.manifest.created)
    return write_page(
        version.ref,
        "Model report",
        show_lead(version),
        sections,
        f"Made by clewline {clewline} from the sealed record of {version.ref}, registered {made}.",
    )


def make_sections(version: ReportedVersion) -> list[Section]:
    """Make the sections of a version: its evaluation, its facts, and what its record lacks."""
    sections: list[Section] = []
    absent: list[tuple[str, str]] = []
    if version.report is None:
        absent.append(("Evaluation", "register with `test=`, or pass `report=cl.evaluate(…)`."))
    else:
        sections += _sections(version.report, absent)
    sections.append(Section("version", "The version", _facts(version)))
    sections.append(Section("fields", "Fields", _fields(version.package)))
    if absent:
        sections.append(Section("absent", "Not in this record", show_absent(absent)))
    return sections


def show_lead(version: ReportedVersion) -> Markup:
    """Write whether a version is better than the best plain rule."""
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
    tasks = {"binary": "two labels", "multiclass": f"{len(report.labels or ())} labels"}
    kind = tasks.get(report.task, report.task)
    about = f"{version.ref}{named}: {kind} of {shorten(report.target, 60)}."
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
            yield Section(name.replace("_", "-"), title, show_plain(found))


def _metrics(report: Report) -> Markup:
    rule = report.baseline.metrics
    bounded = {
        n: v for n, v in report.metrics.items() if n not in SMALLER_IS_BETTER and 0 <= v.value <= 1
    }
    charts = []
    if bounded:
        bars = [
            bar_of(name, each, rule[name].value if name in rule else None)
            for name, each in bounded.items()
        ]
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


def show_differences(
    version: ReportedVersion,
    other: ReportedVersion,
    differences: Sequence[PairedDifference],
    unpaired: str,
) -> Markup:
    """
    Write how much better a version is than another.

    Args:
        version: The version.
        other: The other.
        differences: Of both, by metric.
        unpaired: Why they have no intervals.
    """
    parts: list[Content] = []
    paired = [each for each in differences if each.difference is not None]
    for smaller in (False, True):
        bars = [
            bar_of(d.metric, d.difference)
            for d in paired
            if d.difference is not None and (d.metric in SMALLER_IS_BETTER) == smaller
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
        text = f"The differences have no intervals. {unpaired}"
        body.append(element("p", text, class_="muted"))
    rows = [
        [
            d.metric,
            d.ours,
            d.theirs,
            d.ours - d.theirs if d.difference is None else write_interval(d.difference),
        ]
        for d in differences
    ]
    header = ("metric", version.ref, other.ref, "difference")
    body.append(show_table(header, rows, label=f"Metrics of {version.ref} and {other.ref}"))
    return join(body)


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
            [field.name, field.kind, "yes" if field.nullable else None, field.unit, limits or None]
        )
    header = ("field", "kind", "null", "unit", "bounds or levels")
    return show_table(header, rows, label="Fields of the signature", most=300)
