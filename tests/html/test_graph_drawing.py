"""Graphs as SVG: text stays text, looks are classes, and a table says what the drawing says."""

from __future__ import annotations

import re
from xml.etree import ElementTree

import pytest
from html_pages import ReadPage

from clewline.html.charts import Chart
from clewline.html.graph_drawing import DrawnEdge, DrawnNode, draw_graph, fit_text, text_width
from clewline.html.page import show_chart

HOSTILE = [
    "<script>alert(1)</script>",
    '" onclick="alert(1)" x="',
    "]]><!--",
    "😀👩‍👩‍👧‍👦 emoji",
    "\u202eעברית והערבית",
    "null \x00 bell \x07 lone \ud800 end",
    "line\nbreak",
    "W" * 100_000,
    "漢字" * 400,
    "",
]


def line(label: str = "income", address: str | None = "/models/income/3") -> Chart:
    nodes = [
        DrawnNode("d", "data", "adult.csv", ["32,561 rows"], None, "third"),
        DrawnNode("r", label, label, [label] * 6, address, "other", is_dashed=True),
        DrawnNode("m", "model", "income@3", [], "/models/income/3", "model", is_asked=True),
    ]
    edges = [DrawnEdge("d", "r"), DrawnEdge("r", "m", label), DrawnEdge("d", "m", is_dashed=True)]
    return draw_graph("The line of income@3", "It shows what made income@3.", nodes, edges)


def test_a_drawing_has_links_labels_a_legend_and_a_table() -> None:
    chart = line("run")
    root = ElementTree.fromstring(chart.drawing)
    assert [each.get("href") for each in root.iter("{http://www.w3.org/2000/svg}a")] == [
        "/models/income/3",
        "/models/income/3",
    ]
    nodes = [each for each in root.iter() if "graph-node" in (each.get("class") or "")]
    assert nodes[0].get("aria-label") == "data, adult.csv, 32,561 rows"
    # Each can take the focus: a link does by itself.
    assert all(each.get("href") or each.get("tabindex") == "0" for each in nodes)
    assert [each.get("data-to") for each in nodes] == ["1 2", "2", None]
    assert chart.legend == [("third", "data"), ("other", "run"), ("model", "model")]
    page = ReadPage(show_chart(chart))
    assert not page.open
    assert "adult.csv data 32,561 rows run, income@3" in page.text
    assert "It shows what made income@3." in page.text


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
def test_a_hostile_text_stands_in_the_drawing_as_text(text: str) -> None:
    plain, hostile = ReadPage(show_chart(line("run"))), ReadPage(show_chart(line(text, text)))
    if text:
        # Not one element more than with a plain name, and only attributes of ours.
        assert [tag for tag, _, _ in hostile.elements] == [tag for tag, _, _ in plain.elements]
    names = {name for _, attributes, _ in hostile.elements for name in attributes}
    assert not {name for name in names if name.startswith("on") or name == "style"}
    ElementTree.fromstring(line(text, None).drawing)
    assert len(show_chart(line(text, None))) < 40_000


def test_looks_are_classes_and_nothing_on_the_page_shares_an_id() -> None:
    drawn = line().drawing
    assert "style" not in drawn
    assert not re.search(r"\sid=", drawn)


def test_the_same_graph_gives_the_same_bytes() -> None:
    assert line().drawing == line().drawing


def test_a_text_fits_its_box() -> None:
    for text in HOSTILE:
        assert text_width(fit_text(text, 100, 12), 12) <= 100
    assert fit_text("income@3", 100, 12) == "income@3"


@pytest.mark.parametrize("figure", range(1, 60))
def test_a_text_that_has_room_is_not_shortened(figure: int) -> None:
    note = f"{figure / 7:.3g} ms a batch of rows"
    chart = draw_graph("t", "s", [DrawnNode("a", "model", "other", [note])], [])
    assert f">{note}</text>" in chart.drawing


def test_a_large_graph_is_cut_and_says_so() -> None:
    nodes = [DrawnNode(str(n), "step", f"step {n}") for n in range(700)]
    edges = [DrawnEdge(str(n // 3), str(n)) for n in range(1, 700)]
    chart = draw_graph("A run", "It shows 700 steps.", nodes, edges)
    assert chart.drawing.count('class="graph-node') == 500
    assert "500 of 700 nodes" in chart.sentence
    assert "499 of 699 arrows" in chart.sentence
    assert len(chart.rows) == 700


def test_a_graph_that_is_none_is_refused() -> None:
    node = DrawnNode("a", "step", "a")
    with pytest.raises(ValueError, match="same key"):
        draw_graph("t", "s", [node, node], [])
    with pytest.raises(ValueError, match="leads to no node"):
        draw_graph("t", "s", [node], [DrawnEdge("a", "b")])


def test_nothing_is_drawn_as_nothing() -> None:
    assert draw_graph("t", "There is nothing.", [], []).rows == []
