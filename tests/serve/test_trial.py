"""Before a graph goes live, its edges are held against each other and every node is tried."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from clewline.project import Project
from clewline.serve import revision
from clewline.serve.endpoint_file import parse_endpoint
from clewline.serve.graph.problems import InvalidEndpoint
from clewline.serve.model_cache.loaded_models import SharedModels
from clewline.serve.trial import GraphTrial, try_graph
from clewline.store.store import Store

Shop = Callable[..., Project]

NODES = """
import polars as pl

CALLS = 0

def tidy(table: pl.DataFrame) -> pl.DataFrame:
    return table.with_columns(hours=pl.col("hours").clip(0, 80))

def centred(table: pl.DataFrame) -> pl.DataFrame:
    return table.with_columns(hours=pl.col("hours") - pl.col("hours").mean())

def counted(rows: list[dict]) -> list[dict]:
    global CALLS
    CALLS += 1
    return [{**row, "hours": row["hours"] + CALLS} for row in rows]

def dropped(table: pl.DataFrame) -> pl.DataFrame:
    return table.drop("hours")

def raising(table: pl.DataFrame) -> pl.DataFrame:
    raise KeyError("nope")

def looked_up(rows: list[dict]) -> list[dict]:
    with open("shares.csv") as file:
        share = float(file.read())
    return [{**row, "hours": share} for row in rows]

def same(answers: pl.DataFrame) -> pl.DataFrame:
    return answers

def first(answers: dict[str, pl.DataFrame]) -> pl.DataFrame:
    return next(iter(answers.values()))
"""


@pytest.fixture
def project(tmp_path: Path, shop: Shop) -> Project:
    """A project with models and functions."""
    return shop(tmp_path, {"nodes.py": NODES})


def tried(project: Project, graph: str) -> GraphTrial:
    read = parse_endpoint(f"endpoint: g\n{graph}\n".encode(), Path("endpoints/g.yaml"))
    with Store.open(project.store_root) as store:
        draft = revision.resolve(project, store.catalog, read)
    return try_graph(SharedModels(project), draft, "endpoints/g.yaml")


def refused(project: Project, graph: str) -> list[str]:
    with pytest.raises(InvalidEndpoint) as caught:
        tried(project, graph)
    return [f"{problem.message} {problem.fix}" for problem in caught.value.problems]


def test_every_node_is_timed_those_of_arms_that_no_row_took_as_well(project: Project) -> None:
    found = tried(
        project,
        """
graph:
  transform: nodes.py:tidy
  route: {kind: weights, weights: {a: 1, b: 0}}
  arms:
    a: income@1
    b: {combine: nodes.py:first, branches: {x: income@1, y: income@2}, after: nodes.py:same}
shadow: [income@2]
""",
    )
    assert (found.rows, found.refused_rows) == (20, 0)
    names = ["tidy", "route", "a", "b/same", "b/combine", "b/x", "b/y", "income-2"]
    assert [node.node for node in found.nodes] == names
    assert all(node.row_ms > 0 and node.many_row_ms > 0 for node in found.nodes)


@pytest.mark.parametrize("how", ["mean", "vote", "nodes.py:first"])
def test_what_fits_passes(project: Project, how: str) -> None:
    assert tried(project, f"graph: {{combine: '{how}', branches: [income@1, visits@1]}}").rows == 20
    assert tried(project, "model: price@champion").rows == 20


@pytest.mark.parametrize(
    "graph",
    [
        "graph: {combine: vote, branches: {a: income@1, b: plain@1}}",
        "graph: {combine: 'nodes.py:first', branches: {a: income@1, b: plain@1}}",
        "graph: {route: sticky, arms: {a: plain@1, b: plain@1}}",
        "graph: plain@1\nshadow: [income@1]",
        "graph: income@1\nshadow: [plain@1]",
        "graph: {route: sticky, arms: {a: income@1, b: {combine: vote, branches: "
        "{x: plain@1, y: plain@1}}}}",
        "graph: {route: sticky, arms: {a: vector@1, b: vector@1}}\nshadow: [vector@1]",
    ],
)
def test_labels_alone_and_arrays_pass_where_they_are_enough(project: Project, graph: str) -> None:
    assert tried(project, graph).rows == 20


@pytest.mark.parametrize("function", ["centred", "counted"])
def test_a_node_that_gives_a_row_another_answer_in_company_is_named(
    project: Project, function: str
) -> None:
    graph = (
        "graph: {route: sticky, arms: {a: {transform: nodes.py:%s, model: price@1}, b: price@1}}"
    )
    (told,) = refused(project, graph % function)
    assert f"The node a/{function} answers a row differently alone and in a batch" in told
    assert "background row 0 is" in told


def test_all_nodes_that_raise_are_named_at_once(project: Project) -> None:
    graph = (
        "graph: {route: sticky, arms: {a: {transform: nodes.py:raising, model: price@1}, "
        "b: {transform: nodes.py:dropped, model: price@1}}}"
    )
    told = refused(project, graph)
    assert len(told) == 2
    assert "node 'a/raising' raised KeyError" in told[0]
    assert "node 'b/dropped'" in told[1]
    assert "'hours'" in told[1]


@pytest.mark.parametrize(
    ("graph", "messages"),
    [
        (
            "graph: {route: sticky, arms: {a: income@1, b: grades@1}}",
            ["a (income@1) and b (grades@1) answer differently: one of '<=50K', '>50K'"],
        ),
        (
            "graph: {combine: mean, branches: {a: income@1, b: price@1}}",
            ["The branches a (income@1) and b (price@1) answer differently", "a number"],
        ),
        (
            "graph: {route: sticky, arms: {a: income@1, b: plain@1}}",
            ["a (income@1) and b (plain@1)", "'<=50K', '>50K' without probabilities"],
        ),
        (
            "graph: {combine: mean, branches: {a: income@1, b: plain@1}}",
            ["The branches a (income@1) and b (plain@1)", "without probabilities"],
        ),
        (
            "graph: {combine: mean, branches: {a: plain@1, b: plain@1}}",
            [
                "a (plain@1) and b (plain@1) answer labels without probabilities",
                "Use combine: vote",
            ],
        ),
        (
            "graph: {route: sticky, arms: {a: vector@1, b: price@1}}",
            ["a (vector@1) and b (price@1)", "an array of float32 [2], and a number"],
        ),
        (
            "graph: {combine: vote, branches: {a: vector@1, b: vector@1}}",
            ["combine (combine vote) over a (vector@1)", "an array of float32 [2]"],
        ),
        (
            "graph: {model: vector@1, after: nodes.py:same}",
            [
                "same (after nodes.py:same (polars)) over model (vector@1)",
                "an array of float32 [2]",
            ],
        ),
        (
            "graph: {combine: vote, branches: {a: price@1, b: price@1}}",
            ["combine (combine vote) over a (price@1)", "a number"],
        ),
        (
            "graph: income@1\nshadow: [grades@1]",
            ["The answering node (income@1) and the shadow grades-1 (grades@1) answer differently"],
        ),
        (
            "graph: {route: sticky, arms: {a: income@1, b: odd@1}}",
            ["take 'age' differently: integer, and category"],
        ),
        (
            "graph: income@1\nshadow: [visits@1]",
            ["visits-1 (visits@1) takes the field 'visits' as integer", "has no such field"],
        ),
        (
            "graph: {route: {kind: rules, rules: [{if: {agee: 3, hours: x}, arm: a}, "
            "{if: {age: {in: [1, y]}}, arm: a}], otherwise: a}, arms: {a: income@1}}",
            [
                "asks for the field 'agee', which is unknown. Did you mean 'age'",
                "the number 'hours'",
                "'age'",
            ],
        ),
        (
            "graph: {route: {kind: rules, rules: [{if: {any: [{agee: 3}, {all: [{hours: x}]}]}, "
            "arm: a}], otherwise: a}, arms: {a: income@1}}",
            [
                "asks for the field 'agee', which is unknown. Did you mean 'age'",
                "the number 'hours'",
            ],
        ),
        (
            "graph: {route: {kind: rules, rules: [{if: {age: {below: old}}, arm: a}], "
            "otherwise: a}, arms: {a: odd@1}}",
            ["the category 'age': age < 'old'. Write is, not, in or missing"],
        ),
    ],
)
def test_sides_that_do_not_fit_are_named_both(
    project: Project, graph: str, messages: list[str]
) -> None:
    told = "\n".join(refused(project, graph))
    for message in messages:
        assert message in told


def test_a_function_that_reads_a_file_is_refused_for_no_revision_pins_it(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(project.root)
    (project.root / "shares.csv").write_text("3")
    graph = "graph: {transform: nodes.py:looked_up, model: price@1}"
    (told,) = refused(project, graph)
    assert "reads shares.csv, which the revision does not pin" in told
