"""An endpoint's file says what is known and built, or is refused by name."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from clewline.errors import InvalidConfig, NotFound
from clewline.project import Project
from clewline.serve.endpoint_file import endpoint_names, parse_endpoint, read_endpoint
from clewline.serve.graph.parser import DeclaredNode
from clewline.serve.graph.problems import SENTENCES, InvalidEndpoint
from clewline.serve.graph.tree import children, title


def wanted(root: DeclaredNode | None) -> object:
    """The model of a node, as the file names it."""
    assert root is not None
    return root.settings["model"].wanted


def test_a_file_is_read(tmp_path: Path) -> None:
    (tmp_path / "endpoints").mkdir()
    text = "endpoint: income\nmodel: income@champion\nlog: {durability: fsync}\n"
    (tmp_path / "endpoints" / "income.yaml").write_text(text)
    project = Project(tmp_path, "loans", "0")
    found = read_endpoint(project, "income")
    assert (found.endpoint, wanted(found.root)) == ("income", "income@champion")
    assert found.document["log"] == {"durability": "fsync"}
    assert endpoint_names(project) == ["income"]
    with pytest.raises(NotFound, match=r"Did you mean 'income'\?"):
        read_endpoint(project, "incom")
    (tmp_path / "endpoints" / "other.yaml").write_text(text)
    with pytest.raises(InvalidConfig, match="says endpoint: income"):
        read_endpoint(project, "other")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("endpoint: a\nmodel: a@1\nslo: {}", "key slo is planned, but it is not built yet"),
        ("endpoint: a\nmodel: a@1\nroute: {}", "key route does not stand at the top"),
        (
            "endpoint: a\nmodel: a@1\nlog: {drop: [ssn]}",
            "key log.drop is planned, but it is not built",
        ),
        ("endpoint: a\nmodel: a@1\nmodel: a@2", "the key model is given twice"),
        (
            "endpoint: a\nmodel: a@1\nlog: {durability: fsync, durability: process}",
            "the key durability is given twice",
        ),
        ("endpoint: a\nmodle: a@1", r"key modle is unknown. Did you mean 'model'\?"),
        ("endpoint: a\nmodel: a@1\nlog: {durable: x}", r"Did you mean 'durability'\?"),
        ("endpoint: a\nmodel: a@1\nlog: {durability: never}", "log.durability is 'never'"),
        ("endpoint: a\nmodel: a@1\nlog: 3", "log is 3"),
        ("endpoint: A b\nmodel: a@1", "endpoint is 'A b'"),
        ("model: a@1", "endpoint is None"),
        ("endpoint: a\nmodel: a", "model is 'a'"),
        ("endpoint: a", "model is None"),
        ("endpoint: [", "is not YAML"),
        ("just words", "has no keys"),
    ],
)
def test_what_is_not_known_or_not_built_is_refused_by_name(text: str, message: str) -> None:
    with pytest.raises(InvalidConfig, match=message):
        parse_endpoint(text.encode(), Path("endpoints/a.yaml"))


GRAMMAR = [
    ("graph: {model: [a]}", r"graph\.model is \['a'\]"),
    ("graph: incom", "graph is 'incom', but no node under nodes: has this name"),
    ("graph: nodes.py:tidy", "graph is nodes.py:tidy, a function"),
    ("graph: 3", "graph is 3"),
    ("graph: {modle: a@1}", r"key graph.modle is unknown. Did you mean 'model'\?"),
    ("graph: {model: a@1, then: b}", "graph has model and then"),
    ("graph: {model: team}\nnodes: {team: a@1}", "Write then: team"),
    ("graph: {model: a@1, isolat: true}", r"Did you mean 'isolate'\?"),
    ("graph: {model: a@1, isolate: 3}", "graph.isolate is 3"),
    (
        "graph: {model: a@1, isolate: {memory: 1KiB}}",
        "isolate.memory is '1KiB'.*at least 128",
    ),
    ("graph: {model: a@1, isolate: {memory: lots}}", "isolate.memory is 'lots'.*512MiB"),
    ("graph: {model: a@1, isolate: {timeout: 5}}", "isolate.timeout is 5.*with its unit"),
    ("graph: {model: a@1, isolate: {timeout: 2h}}", "isolate.timeout is '2h'.*at most 3600s"),
    ("graph: {model: a@1, isolate: {timeuot: 5s}}", r"Did you mean 'timeout'\?"),
    ("graph: {transform: {model: p@1, isolate: 3}, model: a@1}", "transform.isolate is 3"),
    ("graph: {transform: {function: n.py:f, isolate: true}, model: a@1}", "isolate is unknown"),
    ("graph: a@1\nmodel: a@1", "Both model and graph"),
    ("graph: a\nnodes: {a: b, b: {then: c}, c: {then: b}}", "closes a circle: b → c → b"),
    ("graph: a@1\nnodes: {spare: a@1}", "nodes.spare is not used"),
    ("model: a@1\nnodes: {spare: a@1}", "nodes.spare is not used"),
    ("graph: {route: sticky}", "graph.arms is None"),
    ("graph: {route: sticky, arms: {}}", "graph.arms has 0"),
    ("graph: {route: sticky, arms: {a/b: a@1}}", "has an invalid name"),
    ("graph: {route: stickie, arms: [a@1]}", r"Did you mean 'sticky'\?"),
    ("graph: {route: {weights: {}}, arms: [a@1]}", "Write a kind, such as"),
    ("graph: {route: weights, arms: [a@1]}", "graph.route.weights is None"),
    (
        "graph: {route: {kind: weights, weights: {x: 1}}, arms: {y: a@1}}",
        "'x', but there is no such arm",
    ),
    (
        "graph: {route: {kind: weights, weights: {y: 2}}, arms: {y: a@1}}",
        "graph.route.weights sum to 2",
    ),
    (
        "graph: {route: {kind: weights, weights: {x: 0.5, y: 0.50000001}}, arms: {x: a@1, y: a@1}}",
        "weights sum to 1.00000001",
    ),
    ("graph: {route: {kind: weights, weights: {y: -1}}, arms: {y: a@1}}", "weights.y is -1"),
    ("graph: {route: {kind: weights, weights: {y: .nan}}, arms: {y: a@1}}", "weights.y is None"),
    (
        "graph: {route: {kind: weights, weights: {y: 1}, ramp: {to: {y: 1}, over: 3}}, "
        "arms: {y: a@1}}",
        "over is 3",
    ),
    ("graph: {route: {kind: rules, rules: []}, arms: {y: a@1}}", "rules is"),
    (
        "graph: {route: {kind: rules, rules: [{if: {age: {blow: 3}}, arm: x}], otherwise: y}, "
        "arms: {y: a@1}}",
        r"arm names 'x', but there is no such arm(.|\n)*Did you mean 'below'\?",
    ),
    (
        "graph: {route: {kind: rules, rules: [{if: {any: [{age: {blow: 3}}, 4], all: []}, arm: y}],"
        " otherwise: y}, arms: {y: a@1}}",
        r"if.any\[0\].age has the .*operator 'blow'(.|\n)*if.any\[1\] is 4(.|\n)*if.all is empty",
    ),
    (
        "graph: {route: {kind: rules, rules: [{if: {any: {age: 3}}, arm: y}], otherwise: y}, "
        "arms: {y: a@1}}",
        "Write a list of conditions below any:",
    ),
    (
        "graph: {route: {kind: sticky, ramp: {to: {y: 2}, over: 1h}}, arms: {y: a@1}}",
        "graph.route.ramp.to sum to 2",
    ),
    ("graph: {combine: men, branches: [a@1, b@1]}", r"Did you mean 'mean'\?"),
    ("graph: {combine: mean, branches: [a@1]}", "branches has 1"),
    ("graph: {combine: mean, branches: [a@x, b@x]}", "names x twice"),
    ("graph: {combine: stack, branches: [a@1, b@1]}", "combine.model is None"),
    ("graph: {transform: 3, model: a@1}", "graph.transform is 3, which does not name a function"),
    (
        "graph: {transform: {function: n.py:f, frame: polar}, model: a@1}",
        r"Did you mean 'polars'\?",
    ),
    ("graph: {transform: {function: n.py:f, fields: {a: text, b: integr}}, model: a@1}", "integer"),
    ("graph: {transform: {function: n.py:f, config: 3}, model: a@1}", "config is 3"),
    ("graph: {nope: {}}", r"key graph.nope is unknown(.|\n)*graph has none of"),
    ("model: a@1\nshadow: 3", "shadow is 3"),
    ("model: a@1\ntimeout_ms: 0", "timeout_ms is 0"),
    ("model: a@1\npin: 3", "pin is 3"),
    ("model: {model: a@1}", "Options of a model stand in a graph"),
    ("graph: a@1\nexplain: 3", "explain is 3"),
    ("graph: a@1\nexplain: attribution", r"Did you mean 'attributions'\?"),
]


@pytest.mark.parametrize(("text", "message"), GRAMMAR)
def test_a_graph_that_says_what_is_not_known_is_refused_by_name(text: str, message: str) -> None:
    with pytest.raises(InvalidEndpoint, match=message) as caught:
        parse_endpoint(f"endpoint: a\n{text}".encode(), Path("endpoints/a.yaml"))
    for problem in msgspec.json.decode(msgspec.json.encode(caught.value.problems)):
        assert problem["code"] in SENTENCES


def test_all_that_is_wrong_is_named_at_once() -> None:
    text = b"endpoint: A\ngraph: {route: {kind: weights, weights: {x: 1}}, arms: {y: 3}}\npin: 1\n"
    with pytest.raises(InvalidEndpoint) as caught:
        parse_endpoint(text, Path("endpoints/a.yaml"))
    places = [problem.at for problem in caught.value.problems]
    assert places == ["graph.arms.y", "graph.route.weights.x", "endpoint", "pin"]
    assert str(caught.value).startswith("endpoints/a.yaml has 4 problems:")


def test_arms_may_be_called_as_the_keys_of_a_node_are() -> None:
    tree = {
        "kind": "route", "name": "route", "how": "sticky", "config": {},
        "arms": {n: {"kind": "model", "name": n, "model": "a@1"} for n in ("kind", "name")},
    }  # fmt: skip
    assert [key for key, _ in children(tree)] == ["arms.kind", "arms.name"]


def test_shares_that_no_decimals_write_exactly_may_be_rounded() -> None:
    text = (
        b"endpoint: a\ngraph: {route: {kind: weights, weights: {x: 0.3333333333, y: 0.3333333333, "
        b"z: 0.3333333333}}, arms: {x: a@1, y: a@1, z: a@1}}"
    )
    route = parse_endpoint(text, Path("endpoints/a.yaml")).root
    assert isinstance(route, DeclaredNode)
    assert route.settings["config"]["weights"] == dict.fromkeys("xyz", 0.3333333333)


def test_a_graph_that_grows_without_bounds_is_refused() -> None:
    deep = "{combine: mean, branches: {a: m@1, b: " * 60 + "m@1" + "}}" * 60
    wide = ", ".join(f"a{number}: m@1" for number in range(5000))
    laughs = "".join(
        f"  n{n}: {{combine: mean, branches: {{a: n{n + 1}, b: n{n + 1}}}}}\n" for n in range(30)
    )
    for text, message in (
        (f"graph: {deep}", "More than 40 nodes are nested in each other"),
        (f"graph: {{model: m@1, after: [{'n.py:f, ' * 60}]}}", "More than 40 nodes"),
        (f"graph: {{route: sticky, arms: {{{wide}}}}}", "The graph has more than 4000 nodes"),
        (f"graph: n0\nnodes:\n{laughs}  n30: m@1\n", "The graph has more than 4000 nodes"),
    ):
        with pytest.raises(InvalidConfig, match=message):
            parse_endpoint(f"endpoint: a\n{text}".encode(), Path("endpoints/a.yaml"))


def test_what_is_read_is_kept_as_the_catalog_will_give_it_back() -> None:
    text = (
        b"endpoint: a\ngraph: {route: {kind: rules, otherwise: 1, "
        b"rules: [{if: {since: {below: 2026-01-31T00:00:00Z}}, arm: '1'}]}, arms: {1: a@1}}"
    )
    read = parse_endpoint(
        text.replace(b"otherwise: 1", b"otherwise: '1'"), Path("endpoints/a.yaml")
    )
    assert msgspec.json.decode(msgspec.json.encode(read.document)) == read.document
    route = read.root
    assert isinstance(route, DeclaredNode)
    assert route.settings["config"]["rules"][0]["if"] == [
        {"field": "since", "is": "<", "value": "2026-01-31T00:00:00Z"}
    ]


def test_conditions_stand_in_groups_and_a_field_may_be_called_as_a_group_is() -> None:
    text = (
        b"endpoint: a\ngraph: {route: {kind: rules, otherwise: x, rules: [{arm: x, if: {"
        b"age: 3, any: [{age: {below: 9}}, {sex: [f], all: [{b: 1}, {any: [1, 2]}]}]}}]}, "
        b"arms: {x: a@1}}"
    )
    route = parse_endpoint(text, Path("endpoints/a.yaml")).root
    assert isinstance(route, DeclaredNode)
    inner = [
        {"field": "b", "is": "==", "value": 1},
        {"field": "any", "is": "in", "value": [1, 2]},
    ]
    whole = {"all": [{"field": "sex", "is": "in", "value": ["f"]}, {"all": inner}]}
    assert route.settings["config"]["rules"][0]["if"] == [
        {"field": "age", "is": "==", "value": 3},
        {"any": [{"field": "age", "is": "<", "value": 9}, whole]},
    ]
    assert (
        title({"kind": "route", "name": "route", **route.settings}) == "route rules: age == 3 and "
        "(age < 9 or (sex in f and (b == 1 and any in 1, 2))) → x; otherwise x"
    )


def test_a_sticky_route_ramps_from_even_shares() -> None:
    text = (
        b"endpoint: a\ngraph: {route: {kind: sticky, ramp: {to: {x: 0, y: 1}, over: 90s}}, "
        b"arms: {x: a@1, y: a@2}}"
    )
    route = parse_endpoint(text, Path("endpoints/a.yaml")).root
    assert isinstance(route, DeclaredNode)
    assert route.settings["config"]["weights"] == {"x": 0.5, "y": 0.5}
    assert route.settings["config"]["ramp"] == {"to": {"x": 0.0, "y": 1.0}, "over_s": 90.0}


def test_a_ramp_and_a_stack_are_read() -> None:
    text = (
        b"endpoint: a\ngraph: {route: {kind: weights, weights: {x: 1, y: 0}, "
        b"ramp: {to: {x: 0.5, y: 0.5}, over: 1.5h}}, arms: {x: a@1, y: {combine: "
        b"{kind: stack, model: s@1}, branches: [a@1, a@2]}}}"
    )
    route = parse_endpoint(text, Path("endpoints/a.yaml")).root
    assert isinstance(route, DeclaredNode)
    assert route.settings["config"]["ramp"] == {"to": {"x": 0.5, "y": 0.5}, "over_s": 5400.0}
    arms = route.children["arms"]
    assert isinstance(arms, dict)
    stack = arms["y"]
    assert stack.settings["config"]["model"].wanted == "s@1"
    assert list(stack.children["branches"]) == ["a-1", "a-2"]
