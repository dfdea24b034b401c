"""A file resolves to pinned versions and code, or every reason why it cannot is named."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from clewline.errors import NotFound
from clewline.project import Project
from clewline.serve import revision
from clewline.serve.endpoint_file import parse_endpoint
from clewline.serve.graph import functions
from clewline.serve.graph.problems import InvalidEndpoint
from clewline.serve.lineage_text import node_text
from clewline.serve.loaded_revision import LoadedRevision
from clewline.serve.model_cache.loaded_models import SharedModels
from clewline.serve.prediction_lineage import follow_line
from clewline.store.records import ChainEntry, Edge, Revision
from clewline.store.store import Store

Shop = Callable[..., Project]

NODES = """
import polars as pl
from helpers import capped

def tidy(table: pl.DataFrame) -> pl.DataFrame:
    return table.with_columns(hours=capped(pl.col("hours")))

def vague(table):
    return table

class Shift:
    def __init__(self, by: int = 0): self.by = by
    def __call__(self, table: pl.DataFrame): return table.with_columns(age=pl.col("age") + self.by)
"""
GRAPH = """
endpoint: g
graph:
  transform: [nodes.py:tidy, {function: nodes.py:Shift, config: {by: 2}}]
  route: {kind: weights, weights: {champion: 0.9, challenger: 0.1}}
  arms:
    champion: income@champion
    challenger: team
nodes:
  team:
    combine: mean
    branches: {a: income@2, b: {model: income@challenger, isolate: false, pin: true}}
shadow: [income@challenger, income@1]
timeout_ms: 50
pin: true
"""
FILES = {"nodes.py": NODES, "helpers.py": "def capped(column): return column.clip(0, 80)\n"}


@pytest.fixture
def project(tmp_path: Path, shop: Shop) -> Project:
    """A project with models and functions."""
    return shop(tmp_path, FILES)


def resolved(project: Project, text: str) -> revision.Draft:
    read = parse_endpoint(text.encode(), Path("endpoints/g.yaml"))
    with Store.open(project.store_root) as store:
        return revision.resolve(project, store.catalog, read)


def applied(project: Project, text: str) -> revision.AppliedRevision:
    with Store.open(project.store_root) as store:
        return revision.make_live(project, store, [resolved(project, text)])[0]


def test_every_model_is_pinned_and_every_node_has_a_name_of_its_own(project: Project) -> None:
    found, _ = resolved(project, GRAPH)
    assert found.models == {
        "champion": "income@1",
        "challenger/a": "income@2",
        "challenger/b": "income@2",
        "challenger": "income@2",
        "income-1": "income@1",
    }
    assert set(found.packages) == {"income@1", "income@2"}
    tidy = found.graph["of"]
    assert (tidy["name"], tidy["function"], tidy["frame"]) == ("tidy", "nodes.py:tidy", "polars")
    shift = tidy["then"]
    assert (shift["name"], shift["config"], shift["fields"]) == ("Shift", {"by": 2}, None)
    route = shift["then"]
    assert (route["kind"], route["how"]) == ("route", "weights")
    assert route["config"] == {"weights": {"champion": 0.9, "challenger": 0.1}}
    pinned = route["arms"]["challenger"]["branches"]["b"]
    assert (pinned["model"], pinned["pin"], pinned["isolate"]) == ("income@2", True, False)
    assert set(found.graph["shadows"]) == {"challenger", "income-1"}
    assert (revision.timeout_ms(found), revision.is_pinned(found)) == (50.0, True)


def test_a_model_alone_stays_a_revision_without_a_graph(project: Project) -> None:
    found, held = resolved(project, "endpoint: g\nmodel: income@champion\n")
    assert (found.models, found.graph, found.code, held) == ({"model": "income@1"}, {}, None, None)


def test_the_line_leads_from_every_model_and_the_code_to_the_revision(project: Project) -> None:
    live = applied(project, GRAPH).revision
    with Store.open(project.store_root) as store:
        edges = store.catalog.find(Edge, target="revision:g#1", limit=None)
    assert {(edge.source, edge.role) for edge in edges} == {
        ("model:income@1", "serves"),
        ("model:income@2", "serves"),
        (f"code:{live.code}", "code"),
    }
    assert live.code is not None
    assert set(functions.stored_files(project, live.code).files) == {"nodes.py", "helpers.py"}


def test_the_same_content_makes_no_revision_however_it_is_written(project: Project) -> None:
    assert applied(project, GRAPH).is_new
    again = GRAPH.replace("pin: true\n", "log: {durability: process}\npin: true\n", 2)
    assert not applied(project, "# a comment\n" + again.replace("  team:", "  team: ")).is_new
    (project.root / "helpers.py").write_text("def capped(column): return column.clip(0, 70)\n")
    after = applied(project, GRAPH)
    assert after.is_new
    assert after.before is not None
    assert (after.before.number, after.revision.number) == (1, 2)


def test_an_edit_after_apply_changes_nothing_until_the_next_apply(project: Project) -> None:
    text = "endpoint: g\ngraph: {transform: nodes.py:tidy, model: price@1}\n"
    body = b'{"age": 30, "hours": 99}'

    def answered(live: Revision) -> bytes:
        loaded = LoadedRevision.load(live, SharedModels(project))
        ids = [b"0" * 16]
        answer = loaded.answer(loaded.checker.decode(body), [None], ids).answers[0]
        loaded.close()
        return answer

    first = applied(project, text).revision
    before = answered(first)
    (project.root / "helpers.py").write_text("def capped(column): return column * 0\n")
    assert answered(first) == before
    second = applied(project, text).revision
    assert answered(second) != before
    (project.root / "nodes.py").unlink()
    assert answered(first) == before


def test_revisions_with_different_code_answer_side_by_side(project: Project) -> None:
    text = "endpoint: g\ngraph: {transform: nodes.py:tidy, model: price@1}\n"
    first = applied(project, text).revision
    (project.root / "helpers.py").write_text("def capped(column): return column * 0\n")
    second = applied(project, text).revision
    pool = SharedModels(project)
    both = [LoadedRevision.load(each, pool) for each in (first, second)]
    rows = both[0].checker.decode(b'{"age": 30, "hours": 50}')
    answers = [each.answer(rows, [None], [b"0" * 16]).answers[0] for each in (*both, *both)]
    assert answers[0] == answers[2] != answers[1] == answers[3]
    for each in both:
        each.close()


@pytest.mark.parametrize(
    ("graph", "messages"),
    [
        ("{model: income@champio}", ["no alias income@champio", "Did you mean 'income@champion'"]),
        ("{model: incom@1}", ["There is no model 'incom'. Did you mean 'income@1'"]),
        ("{model: 'hf:a/b/model.onnx'}", ["hf:a/b/model.onnx"]),
        ("{transform: nodes.py:tidi, model: income@1}", ["Did you mean 'tidy'"]),
        (
            "{transform: node.py:tidy, model: income@9}",
            ["no file node.py", "The newest is income@2"],
        ),
        ("{transform: nodes.py:vague, model: income@1}", ["does not declare what it takes"]),
        ("{transform: income@1, model: income@1}", ["income@1, which is not fitted preprocessing"]),
    ],
)
def test_what_is_not_there_is_named_with_the_nearest(
    project: Project, graph: str, messages: list[str]
) -> None:
    with pytest.raises(InvalidEndpoint) as caught:
        resolved(project, f"endpoint: g\ngraph: {graph}\n")
    told = str(caught.value)
    for message in messages:
        assert message in told
    assert told.startswith("endpoints/g.yaml")


def test_a_model_alone_that_is_missing_is_told_as_before(project: Project) -> None:
    with pytest.raises(NotFound, match="There is no alias income@champio"):
        resolved(project, "endpoint: g\nmodel: income@champio\n")


def test_what_was_accepted_for_the_models_at_the_door_is_joined(project: Project) -> None:
    signatures = project.signatures
    signatures.mkdir()
    (signatures / "income.yaml").write_text("fields: {age: {bounds: [17, 80]}}\n")
    (signatures / "visits.yaml").write_text("fields: {age: {bounds: [20, 90]}}\n")
    (signatures / "price.yaml").write_text("fields: {hours: {bounds: [0, 10]}}\n")
    arms = "{route: sticky, arms: {a: income@1, b: visits@1, c: {transform: %s, model: price@1}}}"
    text = "endpoint: g\ngraph: " + arms
    behind = "{function: nodes.py:tidy, fields: {age: integer}}"
    assert resolved(project, text % behind).revision.accepted == {
        "fields": {"age": {"bounds": [20, 80]}}
    }
    same = resolved(project, text % "nodes.py:tidy").revision.accepted
    assert same["fields"]["hours"] == {"bounds": [0, 10]}
    assert applied(project, text % behind).is_new
    assert not applied(project, text % behind).is_new
    (signatures / "visits.yaml").write_text("fields: {age: {bounds: [81, 90]}}\n")
    with pytest.raises(InvalidEndpoint, match="no value passes both"):
        resolved(project, text % behind)


def test_what_may_change_is_joined_to_what_every_model_lets_change(project: Project) -> None:
    signatures = project.signatures
    signatures.mkdir()
    (signatures / "income.yaml").write_text(
        "fields: {age: {mutable: up, depends_on: [hours]}, hours: {mutable: down}}\n"
    )
    (signatures / "visits.yaml").write_text(
        "fields: {age: {mutable: down, depends_on: [visits]}, visits: {mutable: false}}\n"
    )
    text = "endpoint: g\ngraph: {route: sticky, arms: {a: income@1, b: visits@1}}\n"
    assert resolved(project, text).revision.accepted["fields"] == {
        "age": {"mutable": False, "depends_on": ["hours", "visits"]},
        "hours": {"mutable": "down"},
        "visits": {"mutable": False},
    }


def test_a_rollback_goes_back_with_the_code(project: Project) -> None:
    first = applied(project, GRAPH).revision
    applied(project, GRAPH.replace("0.9", "0.8").replace("0.1}", "0.2}"))
    with Store.open(project.store_root) as store:
        assert revision.rollback(project, store, "g") == first
        assert revision.require_live(store.catalog, "g") == first
        with pytest.raises(NotFound, match="no revision g#7"):
            revision.rollback(project, store, "g", 7)
        with pytest.raises(NotFound, match="g#1 is the first revision; there is nothing to roll"):
            revision.rollback(project, store, "g")


def test_the_line_says_who_went_back_and_why(project: Project) -> None:
    applied(project, GRAPH)
    applied(project, GRAPH.replace("0.9", "0.8").replace("0.1}", "0.2}"))
    with Store.open(project.store_root) as store:
        reader = store.catalog.reader
        assert not follow_line(project, reader, "g#1").facts.get("changes")
        revision.rollback(project, store, "g", person="anna", reason="Errors since 10:00")
        node = follow_line(project, reader, "g#1")
        (change,) = node.facts["changes"]
        assert (change.kind, change.person, change.reason) == (
            "rolled_back",
            "anna",
            "Errors since 10:00",
        )
        assert any("live again by anna: Errors" in text for _, text in node_text(node).facts)
        assert "changes" not in follow_line(project, reader, "g#2").facts
        forward = follow_line(project, reader, "income@1", forward=True)
        found = [child.facts for child in forward.children if child.ref == "g#1"]
        assert found[0]["changes"] == [change]


def test_a_change_whose_link_was_edited_is_not_told(project: Project) -> None:
    applied(project, GRAPH)
    applied(project, GRAPH.replace("0.9", "0.8").replace("0.1}", "0.2}"))
    with Store.open(project.store_root) as store:
        revision.rollback(project, store, "g", person="anna", reason="Errors")
        (link,) = store.catalog.find(ChainEntry, prefix={"kind": "rolled_back"})
        with store.catalog.transaction() as transaction:
            changed = {**link.body, "person": "ben"}
            transaction.replace(msgspec.structs.replace(link, body=changed))
        assert "changes" not in follow_line(project, store.catalog.reader, "g#1").facts
