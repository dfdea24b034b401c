"""The section on what a model looks at: importances, effects, a tree in its place."""

from __future__ import annotations

from clewline.evaluation.field_effects import FieldEffect
from clewline.evaluation.global_explanation import GlobalExplanation
from clewline.evaluation.report import Report
from clewline.evaluation.surrogate_tree import SurrogateTree
from clewline.formatting import format_count
from clewline.html.charts import Bar, Chart, Line, draw_bars, draw_lines, write
from clewline.html.figures import write_interval
from clewline.html.markup import Content, Markup, element, join, shorten
from clewline.html.page import show_chart, show_charts, show_details, show_table

BARS = 20
EFFECTS = 6


def show_explanation(found: GlobalExplanation, report: Report) -> Markup:
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
        f"model on other rows by {write_interval(tree.fidelity)}; one answer for all rows by "
        f"{write(tree.fidelity_of_one_answer)}."
    )
    header = ("if", "the model mostly answers", "rows")
    return join(
        element("p", sentence), show_table(header, lines, label="A tree in the model's place")
    )
