"""A node kind of a plug-in is a key in an endpoint's file, as `transform:` is."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from clewline.cli import main
from clewline.project import Project
from clewline.serve import revision
from clewline.serve.endpoint_file import parse_endpoint
from clewline.serve.graph.problems import InvalidEndpoint
from clewline.serve.graph.tree import title
from clewline.serve.loaded_revision import LoadedRevision
from clewline.serve.log.frame import LoggedRequest
from clewline.serve.log.writer import LogWriter
from clewline.serve.model_cache.loaded_models import SharedModels
from clewline.serve.prediction_replay import replay_prediction
from clewline.store.ids import id_text
from clewline.store.store import Store

SCALED = "endpoint: scaled\ngraph: {scale: {field: hours, by: 2}, model: price@1}\n"
PLAIN = "endpoint: plain\nmodel: price@1\n"


@pytest.fixture
def project(
    tmp_path: Path, shop: Callable[..., Project], plug_in: None, monkeypatch: pytest.MonkeyPatch
) -> Project:
    """A project with a plug-in's node before a model, in which commands are typed."""
    files = {"endpoints/scaled.yaml": SCALED, "endpoints/plain.yaml": PLAIN}
    monkeypatch.chdir(tmp_path)
    return shop(tmp_path, files)


def test_it_is_checked_applied_served_and_replayed(
    project: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main.status(["endpoints", "check", "scaled"]) == 0
    assert "+ node scale: scale: field hours; by 2" in capsys.readouterr().out
    assert main.status(["endpoints", "apply"]) == 0
    bodies = {"scaled": b'{"rows": [{"age": 40, "hours": 20}]}',
              "plain": b'{"rows": [{"age": 40, "hours": 40}]}'}  # fmt: skip
    values = []
    for name, body in bodies.items():
        with Store.open(project.store_root) as store:
            live = revision.require_live(store.catalog, name)
        loaded = LoadedRevision.load(live, SharedModels(project))
        answers = loaded.answer(loaded.checker.decode(body[9:-1]), [None])
        with LogWriter(project.log) as log:
            assert log.write_now(loaded.frame(answers, [LoggedRequest("json", body, 1)]))
        loaded.close()
        assert replay_prediction(project, id_text(answers.ids[0])).equal
        values.append(msgspec.json.decode(answers.answers[0])["value"])
    assert values[0] == values[1]


def test_its_children_and_settings_stand_in_the_tree(project: Project) -> None:
    text = (
        "endpoint: scaled\ngraph:\n  scale: [{field: age, by: 1}, {field: hours, by: 2}]\n"
        "  route: sticky\n  arms: {a: price@1, b: {scale: {field: age, by: 3}, model: price@1}}\n"
    )
    spec = parse_endpoint(text.encode(), Path("endpoints/scaled.yaml"))
    with Store.open(project.store_root) as store:
        tree = revision.resolve(project, store.catalog, spec).revision.graph
    assert (tree["name"], tree["field"], tree["then"]["name"]) == ("scale", "age", "scale-2")
    arm = tree["then"]["then"]["arms"]["b"]
    assert (arm["kind"], arm["name"], arm["by"], arm["then"]["model"]) == (
        "scale", "b/scale", 3, "price@1"
    )  # fmt: skip
    assert title(arm) == "scale: field age; by 3"


@pytest.mark.parametrize(
    ("graph", "message"),
    [
        ("{scal: {}, model: price@1}", "key graph.scal is unknown. Did you mean 'scale'"),
        ("{scale: 3, model: price@1}", "graph.scale is 3. Write a mapping of its settings"),
        ("{scale: {by: 3}}", "graph has none of"),
        ("{score: {takes: [x]}, model: price@1}", "graph has score and model"),
    ],
)
def test_mistakes_around_its_key_are_named(project: Project, graph: str, message: str) -> None:
    with pytest.raises(InvalidEndpoint, match=message):
        parse_endpoint(f"endpoint: a\ngraph: {graph}\n".encode(), Path("endpoints/a.yaml"))


def test_a_command_says_which_error_the_node_raised(
    project: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    wrong = SCALED.replace("by: 2", "by: [1, 2, 3]")
    (project.endpoints / "scaled.yaml").write_text(wrong)
    assert main.status(["endpoints", "check", "scaled"]) == 1
    printed = capsys.readouterr().out
    assert "endpoint scaled: node 'scale' raised ValueError: " in " ".join(printed.split())
    assert "Run with --debug for the traceback." in printed
    with pytest.raises(InvalidEndpoint) as raised:
        main.status(["--debug", "endpoints", "check", "scaled"])
    assert isinstance(raised.value.__cause__, ValueError)
