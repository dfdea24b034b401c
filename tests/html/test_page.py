"""Pages: whole, self-contained, readable by everybody, and safe whatever names and values hold."""

from __future__ import annotations

import doctest
import math

import pytest
from html_pages import check_page

from clewline.html import charts, markup, page
from clewline.html.charts import Bar, Line, Scale
from clewline.html.markup import Markup, element, escape, shorten

HOSTILE = [
    "<script>alert(1)</script>",
    "</title></style></svg><img src=x onerror=alert(1)>",
    "\"quoted\" and 'quoted' & <b>",
    "]]><!--",
    "😀👩‍👩‍👧‍👦 emoji",
    "עברית and العربية",
    "\u202eright to left override",
    "null \x00 bell \x07 lone \ud800 end",
    "line\nbreak\ttab",
    "x" * 100_000,
    "漢字" * 400,
    " ",
]


def every_chart(name: str, other: str) -> list[charts.Chart]:
    """One chart of every kind, with a name at every place that takes one."""
    bars = [Bar(name, 0.5, 0.4, 0.6, text=None), Bar(other, -0.2), Bar("nan", math.nan)]
    lines = [
        Line(name, [(0.0, 0.0), (0.5, 0.7), (1.0, 1.0)], [(0.0, -0.1, 0.1), (1.0, 0.9, 1.1)]),
        Line(other, [(0.0, 1.0), (math.inf, 0.0)], tone="other", dots=True, steps=True),
    ]
    sentence = f"It shows {shorten(name, 100)}."
    return [
        charts.draw_bars(name, sentence, bars, reference=0.3, reference_name=other, what=name),
        charts.draw_intervals(name, sentence, bars, reference=0.3, reference_name=other),
        charts.draw_lines(name, sentence, lines, x=name, y=other, diagonal=True, reference=0.2),
        charts.draw_scatter(
            name, sentence, [(0, 1), (1, math.nan)], x=name, y=other, diagonal=True
        ),
        charts.draw_columns(
            name,
            sentence,
            [name, other],
            [(name, "model", [1, 2]), (other, "other", [0, 3])],
            what=name,
        ),
        charts.draw_columns(name, sentence, [], [], what=name),
        charts.draw_bars(name, sentence, []),
        charts.draw_lines(name, sentence, [], x="x", y="y"),
    ]


def page_of(*names: str) -> str:
    """A page that holds every part with every name."""
    parts = [
        page.show_verdict("bad", names[0], *names),
        page.show_facts([(name, markup.isolated(name)) for name in names]),
        page.show_tiles([(name, name, name) for name in names]),
        page.show_table(list(names), [list(names), list(range(len(names)))], label=names[0]),
        page.show_heat_table(names, [(name, [0.5, None, math.nan]) for name in names], label="l"),
        page.show_absent([(name, name) for name in names]),
        page.show_badge("good", names[0]),
    ]
    drawn = [page.show_chart(chart) for chart in every_chart(names[0], names[-1])]
    parts.append(page.show_charts(drawn))
    sections = [
        page.Section(f"part-{'abcdefghij'[n]}", names[0], each) for n, each in enumerate(parts)
    ]
    return page.write_page(names[0], names[-1], element("p", names[0]), sections, names[0])


def test_a_page_is_whole_self_contained_and_has_a_table_and_a_sentence_for_each_chart() -> None:
    found = check_page(page_of("income", "age"))
    assert found.count("script") == 0
    assert found.count("figure") == 8


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
def test_a_hostile_text_stands_on_the_page_as_text(text: str) -> None:
    found = check_page(page_of(text, text))
    plain = check_page(page_of("income", "age"))
    # Not one element more than with a plain name.
    assert [tag for tag, _, _ in found.elements] == [tag for tag, _, _ in plain.elements]
    shown = markup._UNFIT.sub("\ufffd", shorten(text, 60))
    if not text.strip():
        assert "(empty)" in found.text
    if "alert" in text:
        assert "alert(1)" in found.text
    assert shown.split(" ")[0] in found.text


def test_a_long_text_does_not_make_a_large_page() -> None:
    assert len(page_of("x" * 100_000, "y")) < 100_000


def test_a_long_table_says_how_much_of_it_is_shown() -> None:
    table = page.show_table(("a",), [[n] for n in range(1000)], label="l", most=10)
    assert "10 of 1,000 rows" in table
    assert table.count("<tr>") == 11


def test_only_elements_make_markup() -> None:
    assert not isinstance(markup.join("a") + "<b>", Markup)
    assert element("p", markup.join("a") + "<b>") == "<p>a&lt;b&gt;</p>"
    with pytest.raises(ValueError, match="not the name of an element"):
        element("p onclick=x")


def test_a_wide_text_is_shortened_by_its_width() -> None:
    assert shorten("漢字漢字漢字", 7) == "漢字…字"
    assert shorten("ab\n cd", 9) == "ab cd"
    assert len(shorten("x" * 100_000, 20)) == 20


def channel(value: int) -> float:
    share = value / 255
    return share / 12.92 if share <= 0.03928 else ((share + 0.055) / 1.055) ** 2.4


def luminance(colour: str) -> float:
    red, green, blue = (channel(int(colour[at : at + 2], 16)) for at in (1, 3, 5))
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


@pytest.mark.parametrize("colours", [page.LIGHT, page.DARK], ids=["light", "dark"])
def test_every_colour_of_text_has_the_contrast_that_wcag_asks_for(colours: dict[str, str]) -> None:
    for ground in ("ground", "raised"):
        for name in {"text", "muted", *page.TONES}:
            ends = sorted((luminance(colours[ground]), luminance(colours[name])))
            assert (ends[1] + 0.05) / (ends[0] + 0.05) >= 4.5, (name, ground)
    # The darkest cell of a table of shades: 38 % of the colour of the model.
    mixed = [
        round(
            int(colours["raised"][at : at + 2], 16) * 0.62
            + int(colours["model"][at : at + 2], 16) * 0.38
        )
        for at in (1, 3, 5)
    ]
    ends = sorted((luminance("#{:02x}{:02x}{:02x}".format(*mixed)), luminance(colours["text"])))
    assert (ends[1] + 0.05) / (ends[0] + 0.05) >= 4.5


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0, 1, [0, 0.2, 0.4, 0.6, 0.8, 1]),
        (0.91, 0.99, [0.92, 0.94, 0.96, 0.98]),
        (-3, 50_000, [0, 10_000, 20_000, 30_000, 40_000, 50_000]),
        (2, 2, []),
    ],
)
def test_ticks_are_round_numbers_within_the_range(low: float, high: float, expected) -> None:
    assert charts.ticks_of(Scale(low, high)) == pytest.approx(expected)


def test_a_range_holds_every_finite_value() -> None:
    scale = charts.scale_of([3.0, math.nan, 5.0, math.inf])
    assert scale.low < 3
    assert scale.high > 5
    assert charts.scale_of([]) == Scale(0, 1)
    assert charts.scale_of([7.0]).share(7.0) == 0.5
    assert scale.share(math.nan) == 0


def test_a_quote_cannot_leave_an_attribute() -> None:
    assert escape("\"'<>&") == "&quot;&#39;&lt;&gt;&amp;"
    assert element("p", title='" onclick="x') == '<p title="&quot; onclick=&quot;x"></p>'


def test_doctests_run() -> None:
    assert doctest.testmod(markup).failed == 0
