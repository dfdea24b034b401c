"""The line as a drawing: arrows go from cause to effect, and what is much is folded."""

from __future__ import annotations

from html_pages import ReadPage

from clewline.html.lineage_drawing import draw_lineage, lineage_sentence
from clewline.html.page import show_chart
from clewline.store.lineage import LineageNode
from clewline.store.records import ModelVersion, Revision, Run


def run(number: int) -> LineageNode:
    record = Run(id=f"{number:012x}", pipeline="income", status="done", started=1.0, ended=3.5)
    facts = {"steps": 4, "cached_steps": 0}
    return LineageNode(kind="run", ref=record.id, record=record, facts=facts)


def model(number: int, *children: LineageNode) -> LineageNode:
    record = ModelVersion(
        name="income", number=number, package="a" * 64, content="b" * 64, run=None, step_run=None,
        task="binary", runtime="onnx", size_bytes=1, created=1.0,
    )  # fmt: skip
    return LineageNode(
        kind="model",
        ref=record.ref,
        record=record,
        facts={"aliases": ["champion"]},
        children=list(children),
    )


def code(ref: str) -> LineageNode:
    return LineageNode(kind="code", ref=ref, facts={"commit": "0123456789abcdef", "changed": []})


def revision(**facts: object) -> LineageNode:
    record = Revision(endpoint="income", number=12, spec={}, models={}, packages={}, created=1.0)
    facts |= {"live": "income#12", "live_since": 2.0}
    return LineageNode(kind="revision", ref="income#12", record=record, facts=facts)


def address(kind: str, ref: str) -> str | None:
    return None if kind == "code" else f"/{kind}/{ref}"


def arrows(root: LineageNode, *, forward: bool = False) -> dict[str, str]:
    """Name of a box → the names that its arrows lead to, as the table says them."""
    rows = draw_lineage(root, forward=forward, address=address).rows
    names = {str(row[0]): str(row[3]) for row in rows}
    return {ReadPage(name).text: targets for name, targets in names.items()}


def test_arrows_lead_from_cause_to_effect_whichever_way_is_asked() -> None:
    made = run(1)
    made.children = [code("c" * 64)]
    back = arrows(model(3, made))
    assert back == {"income@3": "", "income": "income@3", "commit 0123456789ab": "income"}
    ahead = run(1)
    ahead.children = [model(3)]
    assert arrows(ahead, forward=True) == {"income": "income@3", "income@3": ""}


def test_a_thing_that_two_rest_on_stands_once() -> None:
    one, other = run(1), run(2)
    one.children, other.children = [code("c" * 64)], [code("c" * 64)]
    chart = draw_lineage(model(3, one, other), address=address)
    assert [row[1] for row in chart.rows].count("code") == 1
    assert chart.sentence.startswith("2 runs and code stand behind income@3.")


def test_what_is_much_is_folded_and_leads_to_a_list() -> None:
    root = model(3, *(run(number) for number in range(40)))
    root.omitted = 60
    chart = draw_lineage(
        root, forward=True, address=address, rest=lambda kind, node: f"/rest/{kind}/{node.ref}"
    )
    assert len(chart.rows) == 1 + 5 + 1
    page = ReadPage(show_chart(chart))
    assert "95 more runs" in page.text
    assert "/rest/run/income@3" in {a["href"] for tag, a, _ in page.elements if tag == "a"}
    assert "100 runs came of income@3." in chart.sentence


def test_all_of_a_kind_stand_there_if_they_are_few() -> None:
    chart = draw_lineage(model(3, *map(run, range(6))), forward=True, address=address)
    assert len(chart.rows) == 7


def test_predictions_are_counted_among_those_that_were_looked_at() -> None:
    chart = draw_lineage(revision(predictions=212, looked_at=1000), forward=True, address=address)
    assert "0 of 212 are shown" in str(chart.rows)
    assert chart.sentence.startswith("212 of the newest 1,000 predictions came of income#12.")


def test_a_thing_alone_says_that_nothing_is_known() -> None:
    assert lineage_sentence(model(3)) == "Nothing is recorded of what made income@3."
    assert lineage_sentence(model(3), forward=True) == "Nothing has come of income@3 yet."
