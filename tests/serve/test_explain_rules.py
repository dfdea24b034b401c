"""`explain:` of an endpoint's file is checked when it is applied, and pinned by the revision."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from explained import classified, fitted, serve_two_rows
from sklearn.linear_model import LogisticRegression

from clewline.cli.main import status
from clewline.project import Project
from clewline.serve.endpoint_file import parse_endpoint
from clewline.serve.explain_rules import explain_rules
from clewline.serve.graph.problems import InvalidEndpoint
from clewline.serve.revision import require_live
from clewline.store.reader import FILE, CatalogReader

PATH = Path("endpoints/e.yaml")


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    train = classified()
    model = fitted(LogisticRegression(max_iter=1000), train)
    return serve_two_rows(tmp_path_factory.mktemp("rules"), model, train)[0]


def apply(project: Project, explain: str) -> int:
    (project.root / "endpoints").mkdir(exist_ok=True)
    text = f"endpoint: e\nmodel: m@1\n{explain}\n"
    (project.root / "endpoints" / "e.yaml").write_text(text)
    return status(["endpoints", "apply", "e"])


@pytest.mark.parametrize(
    ("explain", "message"),
    [
        ("3", "explain is 3"),
        ("[]", "explain is []"),
        ("[3]", "explain is [3]"),
        ("{when: 'true'}", "Write a kind"),
        ("[attributions, {kind: attribution}]", "explain[1].kind is 'attribution'"),
        ("{kind: attributions, bugdet: 5}", "Did you mean 'budget'"),
        ("{kind: attributions, budget: 0}", "expected `int` >= 1"),
        ("{kind: attributions, keep: [age]}", "option of the kind counterfactuals"),
        ("{kind: attributions, when: 3}", "when is 3"),
        ("{kind: attributions, when: probability <}", "is not a condition"),
    ],
)
def test_what_cannot_be_explained_so_is_refused(explain: str, message: str) -> None:
    with pytest.raises(InvalidEndpoint, match=re.escape(message)):
        parse_endpoint(f"endpoint: e\nmodel: m@1\nexplain: {explain}\n".encode(), PATH)


@pytest.mark.parametrize(
    ("when", "message"),
    [
        ("agee > 3", "'agee', but the endpoint has no such field. Did you mean 'age'"),
        ("value > 3", "which the endpoint does not answer. It answers with label and probability"),
    ],
)
def test_a_condition_on_what_is_not_there_is_refused_at_apply(
    project: Project,
    when: str,
    message: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(project.root)
    assert apply(project, f"explain: {{kind: attributions, when: '{when}'}}") == 2
    assert message in " ".join(capsys.readouterr().err.split())


def test_the_rules_are_pinned_shown_and_matched(
    project: Project, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(project.root)
    text = "explain: [{kind: counterfactuals, keep: [age], when: probability < 0.7}, attributions]"
    assert apply(project, text) == 0
    assert 'explain 1: counterfactuals keep ["age"]' in capsys.readouterr().out
    assert apply(project, f"# a comment\n{text}") == 0
    assert "was live already" in capsys.readouterr().out
    live = require_live(CatalogReader(project.store_root / FILE), "e")
    first, second = explain_rules(live)
    assert (first.kind, first.options, second.kind) == (
        "counterfactuals",
        {"keep": ["age"]},
        "attributions",
    )
    unsure = {"label": "no", "probabilities": {"no": 0.6, "yes": 0.4}}
    assert first.matches(unsure, {})
    assert not first.matches({"label": "no", "probabilities": {"no": 0.8, "yes": 0.2}}, {})
    assert not first.matches({"error": {"code": "model_failed", "message": "…"}}, {})
    assert not second.matches(unsure, {})
    assert status(["endpoints", "show", "e"]) == 0
    shown = capsys.readouterr().out
    assert 'counterfactuals  keep ["age"], when probability < 0.7' in shown
    assert apply(project, "explain: {kind: attributions, when: true}") == 0
    capsys.readouterr()
    live = require_live(CatalogReader(project.store_root / FILE), "e")
    assert explain_rules(live)[0].matches(unsure, {})
