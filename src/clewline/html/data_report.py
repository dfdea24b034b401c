"""The page of an assessed table: `clewline data assess TABLE --out page.html`."""

from __future__ import annotations

from collections.abc import Iterator

from clewline.data.assessment import Assessment, ProtectedGroups, TableComparison
from clewline.data.finding_text import METRICS, describe_finding
from clewline.data.findings import DataFinding
from clewline.data.table_summary import FieldSummary
from clewline.formatting import format_count, format_list
from clewline.html.charts import Bar, Chart, Scale, Tone, draw_bars, draw_columns, draw_intervals
from clewline.html.charts import write as write_figure
from clewline.html.markup import Content, Markup, element, isolated, join, shorten
from clewline.html.page import (
    Section,
    show_absent,
    show_badge,
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
from clewline.signature import timestamps

BARS = 20
TONES: dict[str, Tone] = {"harmful": "bad", "doubtful": "other", "note": "plain"}


def write_data_report(found: Assessment, title: str, version: str) -> str:
    """
    Write the page of an assessment.

    Args:
        found: The assessment.
        title: Of the page, such as the name of the file.
        version: Of clewline.
    """
    sections = [
        Section("findings", "Findings", _findings(found)),
        *(each for each in _parts(found) if each is not None),
        Section("fields", "Fields", _fields(found)),
    ]
    if absent := list(_absent(found)):
        sections.append(Section("absent", "Not looked at", show_absent(absent)))
    return write_page(
        title,
        "Data assessment",
        _lead(found),
        sections,
        f"Made by clewline {version} with seed {found.seed}. Powers, associations and models use "
        f"samples of up to {found.sampled_rows:,} rows; counts use all rows.",
    )


def _lead(found: Assessment) -> Markup:
    counts = {word: sum(each.severity == word for each in found.findings) for word in TONES}
    worst = found.findings[0] if found.findings else None
    tone: Tone = "good" if worst is None else TONES[worst.severity]
    if worst is None:
        return show_verdict(tone, "Nothing was found that would harm a model.", _size(found))
    numbers = [f"{count} {word}" for word, count in counts.items() if count and word != "note"]
    if counts["note"]:
        numbers.append(format_count(counts["note"], "note"))
    text = describe_finding(worst)
    head = f"{format_count(len(found.findings), 'finding')}: {', '.join(numbers)}."
    return show_verdict(tone, head, f"First: {text.what} {text.advice}", _size(found))


def _size(found: Assessment) -> Markup:
    target = "no target" if found.target is None else f"target {shorten(found.target.name, 60)}"
    text = f"{format_count(found.rows, 'row')}, {format_count(len(found.fields), 'column')}, "
    return element("span", text + target, class_="muted")


def _findings(found: Assessment) -> Markup:
    if not found.findings:
        return element("p", "None.")
    return element("ol", [_finding(each) for each in found.findings], class_="findings")


def _finding(finding: DataFinding) -> Markup:
    text, tone = describe_finding(finding), TONES[finding.severity]
    return element(
        "li",
        element("h3", isolated(text.title), show_badge(tone, finding.severity)),
        element("p", text.what),
        element("p", text.advice, class_="muted"),
        class_=f"tone-{tone}",
    )


def _parts(found: Assessment) -> Iterator[Section | None]:
    yield _target(found)
    yield _power(found)
    yield _missing(found)
    yield _duplicates(found) if found.rows else None
    if found.protected:
        yield Section("protected", "Protected fields", join(map(_protected, found.protected)))
    if found.against is not None:
        yield Section("second", "The second table", _comparison(found.against))
    yield _associations(found)


def _target(found: Assessment) -> Section | None:
    target = found.target
    if target is None or not found.rows:
        return None
    name = shorten(target.name, 40)
    facts: list[tuple[str, Content]] = [
        ("task", target.task),
        ("different values", f"{target.distinct:,}"),
        ("rows without one", f"{target.nulls:,}"),
    ]
    chart: Chart | None = None
    if target.labels:
        known = max(found.rows - target.nulls, 1)
        shown = target.labels[:BARS]
        bars = [
            Bar(each.value, each.rows, text=f"{each.rows:,} · {each.rows / known:.1%}")
            for each in shown
        ]
        sentence = (
            f"The most frequent label, {shorten(shown[0].value, 40)}, holds for "
            f"{shown[0].rows / known:.1%} of the rows; always answering it is right as often."
        )
        chart = draw_bars(
            f"Rows of each label of {name}", sentence, bars, what="label", value="rows"
        )
    elif target.histogram is not None:
        chart = _histogram_chart(
            f"Distribution of {name}", target.histogram.edges, target.histogram.rows
        )
    parts = [show_facts(facts), show_charts([show_chart(chart)]) if chart else None]
    return Section("target", "Target", join(parts))


def _histogram_chart(title: str, edges: list[float], rows: list[int]) -> Chart:
    ends = [None, *edges], [*edges, None]
    bins = []
    for low, high in zip(*ends, strict=True):
        if low is None:
            bins.append("all" if high is None else f"≤ {write_figure(high)}")
        else:
            bins.append(
                f"> {write_figure(low)}" + ("" if high is None else f" to {write_figure(high)}")
            )
    most = max(range(len(rows)), key=rows.__getitem__)
    share = rows[most] / max(sum(rows), 1)
    sentence = f"Most rows, {share:.1%}, lie in {bins[most]}."
    return draw_columns(title, sentence, bins, [("rows", "model", rows)], what="value")


def _power(found: Assessment) -> Section | None:
    fields = [field for field in found.fields if field.power is not None]
    if not fields:
        return None
    fields.sort(key=lambda field: -field.power.value if field.power else 0)
    metric = fields[0].power.metric if fields[0].power else "roc_auc"
    bars = [
        Bar(field.name, field.power.value, field.power.low, field.power.high)
        for field in fields[:BARS]
        if field.power is not None
    ]
    chance = 0.5 if metric == "roc_auc" else 0.0
    sentence = (
        f"{shorten(bars[0].label, 40)} alone predicts the target best, with {METRICS[metric]} "
        f"{bars[0].value:.3f}. A field near 1 probably gives the answer away."
    )
    lowest = min([chance, *(bar.value if bar.low is None else bar.low for bar in bars)])
    chart = draw_intervals(
        f"Power of each field alone ({METRICS[metric]}, cross-fitted)",
        sentence,
        bars,
        what="field",
        value=METRICS[metric],
        scale=Scale(lowest - 0.02, 1.0),
        reference=chance,
        reference_name="chance",
    )
    missing = [field for field in fields if field.missing_power is not None]
    table = None
    if missing:
        rows = [
            [f.name, f.nulls, f.missing_power.value, f.missing_power.low, f.missing_power.high]
            for f in missing
            if f.missing_power is not None
        ]
        header = ("field", "nulls", METRICS[metric], "low", "high")
        label = "How well a missing value predicts the target"
        table = join(element("h3", label), show_table(header, rows, label=label))
    return Section("power", "What one field tells", join(show_charts([show_chart(chart)]), table))


def _missing(found: Assessment) -> Section | None:
    gaps = sorted((each for each in found.fields if each.nulls), key=lambda each: -each.nulls)
    if not gaps:
        return None
    bars = [
        Bar(f.name, f.nulls / found.rows, text=f"{f.nulls:,} · {f.nulls / found.rows:.1%}")
        for f in gaps[:BARS]
    ]
    sentence = (
        f"{format_count(len(gaps), 'field has', 'fields have')} nulls, most of all "
        f"{shorten(gaps[0].name, 40)} ({gaps[0].nulls / found.rows:.1%})."
    )
    chart = draw_bars(
        "Share of nulls", sentence, bars, what="field", value="share", scale=Scale(0.0, 1.0)
    )
    rows = [[format_list(p.fields, 8), p.rows, f"{p.rows / found.rows:.2%}"] for p in found.missing]
    header = ("null together, and no other field", "rows", "share")
    table = show_table(header, rows, label="Fields that are null together")
    return Section(
        "missing",
        "Missing values",
        join(show_charts([show_chart(chart)]), element("h3", "Patterns"), table),
    )


def _duplicates(found: Assessment) -> Section:
    twice, overlap = found.duplicates, found.overlap
    tiles = [("repeated rows", f"{twice.repeated:,}", "equal an earlier row in every column")]
    near = "too many fields" if twice.near is None else f"{twice.near:,}"
    tiles.append(("near duplicates", near, "agree but for one field or for rounding"))
    if twice.contradictory is not None:
        wrong = f"at least {twice.unavoidable or 0:,} of them must be answered wrong"
        tiles.append(("contradictory labels", f"{twice.contradictory:,}", wrong))
    if overlap is not None:
        of = f"of {overlap.rows:,} test rows"
        tiles.append(("test rows in training", f"{overlap.exact:,}", of))
        near = "too many fields" if overlap.near is None else f"{overlap.near:,}"
        tiles.append(("test rows near training", near, of))
    parts: list[Content] = [show_tiles(tiles)]
    if twice.near_fields:
        rows = [[name, rows] for name, rows in list(twice.near_fields.items())[:BARS]]
        label = "Rows that agree with another in every field but this one"
        parts.append(show_details(label, show_table(("field", "rows"), rows, label=label)))
    if twice.examples:
        rows = [[", ".join(f"{row:,}" for row in each)] for each in twice.examples]
        label = "Rows of one content with different labels, counted from 0"
        parts.append(show_details(label, show_table(("rows",), rows, label=label)))
    return Section("duplicates", "Duplicates", join(parts))


def _protected(each: ProtectedGroups) -> Markup:
    name, charts = shorten(each.field, 40), []
    rated = [group for group in each.groups if group.rate is not None]
    if rated:
        what = f"rate of {shorten(each.positive, 30)}" if each.positive else "mean of the target"
        bars = [
            Bar(
                f"{g.group} · {g.rows:,} rows",
                g.rate or 0.0,
                g.low,
                g.high,
                text=_rate_text(g.rate, each.positive),
            )
            for g in rated
        ]
        high, low = (pick(rated, key=lambda g: g.rate or 0.0) for pick in (max, min))
        sentence = (
            f"It is highest for {shorten(high.group, 30)} ({_rate_text(high.rate, each.positive)}) "
            f"and lowest for {shorten(low.group, 30)} ({_rate_text(low.rate, each.positive)})."
        )
        title = f"{what[0].upper()}{what[1:]} by {name}"
        charts.append(show_chart(draw_bars(title, sentence, bars, what="group", value=what)))
    else:
        bars = [Bar(group.group, group.rows) for group in each.groups]
        sentence = f"{name} has {format_count(len(bars), 'group')}."
        charts.append(
            show_chart(draw_bars(f"Rows by {name}", sentence, bars, what="group", value="rows"))
        )
    apart = each.from_others
    if apart is not None:
        sentence = (
            f"The other fields tell {name} with ROC AUC {apart.auc:.3f} [{apart.low:.3f}, "
            f"{apart.high:.3f}], where 0.5 is chance: removing it does not remove its information."
        )
        bars = [Bar(weight.field, weight.drop) for weight in apart.fields[:12]]
        title = f"Fields that tell {name}"
        chart = draw_bars(title, sentence, bars, what="field", value="drop of the AUC if shuffled")
        charts.append(show_chart(chart))
    return show_charts(charts)


def _rate_text(rate: float | None, positive: str | None) -> str:
    return f"{rate:.1%}" if positive and rate is not None else write_figure(rate)


def _comparison(against: TableComparison) -> Markup:
    parts: list[Content] = []
    apart = against.apart
    if apart is None:
        parts.append(element("p", "There are too few rows for a model to tell the tables apart."))
    else:
        sentence = (
            f"A model tells its {against.rows:,} rows from those of the first table with ROC AUC "
            f"{apart.auc:.3f} [{apart.low:.3f}, {apart.high:.3f}], where 0.5 is chance."
        )
        bars = [Bar(weight.field, weight.drop) for weight in apart.fields[:12]]
        if bars:
            title = "Fields by which the tables are told apart"
            parts.append(
                show_charts(
                    [
                        show_chart(
                            draw_bars(title, sentence, bars, what="field", value="drop of the AUC")
                        )
                    ]
                )
            )
        else:
            parts.append(element("p", f"{sentence} No field stands out."))
    rows = [[s.field, s.distance, s.before, s.after, s.unseen_rows or None] for s in against.shifts]
    header = ("field", "distance", "first table", "second table", "rows of new levels")
    label = "How much each field differs"
    parts += [element("h3", label), show_table(header, rows, label=label, most=40)]
    return join(parts)


def _associations(found: Assessment) -> Section | None:
    pairs = found.associations
    if pairs is None:
        return None
    names = pairs.fields
    order = [(pairs.values[a][b], a, b) for a in range(len(names)) for b in range(a)]
    strength, a, b = max(order)
    sentence = (
        f"The strongest pair is {shorten(names[a], 40)} and {shorten(names[b], 40)}, with "
        f"{strength:.2f} of 1. Measured on {pairs.sampled_rows:,} rows: rank correlation, Cramér's "
        "V, or the root of the explained share of ranks."
    )
    rows: list[tuple[str, list[float | None]]] = [
        (name, [None if a == b else pairs.values[a][b] for b in range(len(names))])
        for a, name in enumerate(names)
    ]
    table = show_heat_table(["", *names], rows, label="Associations of pairs of fields")
    return Section("associations", "What goes together", join(element("p", sentence), table))


def _fields(found: Assessment) -> Markup:
    if not found.fields:
        return element("p", "The table has no columns.")
    rows = [
        [
            f.name,
            f.kind,
            f.dtype,
            f.nulls,
            f.distinct,
            _top(f, found.rows),
            _range(f),
        ]
        for f in found.fields
    ]
    header = ("field", "kind", "type", "nulls", "distinct", "most frequent", "range")
    table = show_table(header, rows, label="Every field", most=300)
    charts = [
        show_chart(
            _histogram_chart(
                f"Distribution of {shorten(f.name, 40)}", f.histogram.edges, f.histogram.rows
            )
        )
        for f in found.fields[:60]
        if f.histogram is not None and f.kind == "number" and f.distinct > 2
    ]
    more = show_details(
        f"Distributions of {format_count(len(charts), 'number')}", show_charts(charts)
    )
    return join(table, more if charts else None)


def _top(field: FieldSummary, rows: int) -> str:
    if field.top is None:
        return ""
    return f"{shorten(field.top.value, 30)} ({field.top.rows / rows:.1%})"


def _range(field: FieldSummary) -> str:
    if field.low is None or field.high is None:
        return ""
    write = timestamps.format_microseconds if field.kind == "datetime" else write_figure
    return f"{write(field.low)} to {write(field.high)}"


def _absent(found: Assessment) -> Iterator[tuple[str, str]]:
    if found.target is None:
        yield "Target, leaks and label contradictions", "name the target: `--target COLUMN`."
    if not found.protected:
        yield "Protected fields", "name them: `--protected sex,race`."
    if found.overlap is None:
        yield "Rows that training and test share", "give the test table: `--test TABLE`."
    if found.against is None:
        yield "A second table, such as live rows", "give it: `--against TABLE`."
