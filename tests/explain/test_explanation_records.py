"""An explanation is kept under its question, and outlives what it explains."""

from __future__ import annotations

import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import msgspec
import pytest
from explained import classified, fitted, serve_two_rows
from sklearn.ensemble import RandomForestClassifier
from support import start_process

import clewline as cl
from clewline.cli import explain as command
from clewline.cli.main import status
from clewline.errors import IntegrityError, NotFound
from clewline.explain import explain_prediction as explaining
from clewline.explain.explain_prediction import (
    ExplanationDiffers,
    PredictionExplainer,
    explain_prediction,
    stored_explanations,
)
from clewline.explainer_kinds import explainer_of
from clewline.project import Project
from clewline.serve.doctor import check_project, finding_text
from clewline.store.catalog import Transaction
from clewline.store.records import ExplanationRecord
from clewline.store.store import Store

RULES = "model: m@1\nexplain: [{kind: counterfactuals, keep: [work]}, {kind: attributions}]"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Project, list[str]]:
    """A project whose endpoint has no explainer of its own."""
    train = classified()
    model = fitted(RandomForestClassifier(3, random_state=0), train)
    return serve_two_rows(tmp_path_factory.mktemp("made"), model, train)


@pytest.fixture(scope="module")
def ruled(tmp_path_factory: pytest.TempPathFactory) -> tuple[Project, list[str]]:
    """A project whose endpoint names its explainers."""
    train = classified()
    model = fitted(RandomForestClassifier(3, random_state=0), train)
    return serve_two_rows(tmp_path_factory.mktemp("ruled"), model, train, RULES)


@pytest.fixture
def served(
    made: tuple[Project, list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[Project, list[str]]]:
    """A copy of the project, in which one may break things."""
    project, ids = made
    shutil.copytree(project.root, tmp_path / "copy")
    monkeypatch.chdir(tmp_path / "copy")
    with cl.open() as store:
        yield store.project, ids


def test_the_same_question_is_answered_from_the_catalog(served: tuple[Project, list[str]]) -> None:
    project, ids = served
    first = explain_prediction(project, ids[0])
    assert (first.is_new, first.explanation.kind) == (True, "attributions")
    again = explain_prediction(project, ids[0], "attributions", {"budget": "20000"})
    assert (again.is_new, again.explanation) == (False, first.explanation)
    other = explain_prediction(project, ids[0], "attributions", {"budget": 7})
    assert other.is_new
    explain_prediction(project, ids[1])
    found = stored_explanations(project, ids[0])
    assert [each.id for each in found] == [first.explanation.id, other.explanation.id]
    assert found[0].options == {"budget": 20000}
    assert (found[0].model, found[0].revision, found[0].status) == ("m@1", "e#1", "exact")
    assert found[0].made_by.startswith("clewline ")
    assert not {"created", "seconds"} & set(found[0].body)


def test_computed_anew_it_is_the_same_or_that_is_an_error(
    served: tuple[Project, list[str]],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    project, ids = served
    first = explain_prediction(project, ids[0]).explanation
    again = explain_prediction(project, ids[0], fresh=True)
    assert (again.is_new, again.explanation) == (True, first)
    assert len(stored_explanations(project, ids[0])) == 1
    assert status(["explain", ids[0], "--fresh"]) == 0
    capsys.readouterr()
    explain = type(explainer_of("attributions")).explain
    monkeypatch.setattr(
        type(explainer_of("attributions")),
        "explain",
        lambda *given: msgspec.structs.replace(explain(*given), base=0.25),
    )
    assert status(["explain", ids[0], "--fresh"]) == 1
    assert "differs from the stored one in base" in capsys.readouterr().err
    with pytest.raises(ExplanationDiffers):
        explain_prediction(project, ids[0], fresh=True)
    assert explain_prediction(project, ids[0]).explanation == first


def test_the_endpoints_own_explainer_is_taken_with_its_options(
    ruled: tuple[Project, list[str]],
) -> None:
    project, ids = ruled
    own = explain_prediction(project, ids[0]).explanation
    assert (own.kind, own.terms["keep"]) == ("counterfactuals", ["work"])
    named = explain_prediction(project, ids[0], "counterfactuals", {"to": "yes"}).explanation
    assert (named.terms["keep"], named.terms["to"]) == (["work"], "yes")
    assert explain_prediction(project, ids[0], "attributions").explanation.kind == "attributions"
    with closing(PredictionExplainer(project)) as explainer:
        of_a_rule = explainer.explain(ids[0], "counterfactuals", {"count": 1}, only_given=True)
    assert (of_a_rule.explanation.terms["keep"], of_a_rule.explanation.terms["count"]) == ([], 1)


def test_why_and_impact_follow_explanations(
    served: tuple[Project, list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    project, ids = served
    found = explain_prediction(project, ids[0]).explanation
    assert found.id is not None
    assert status(["why", ids[0]]) == 0
    assert "attributions, exact" in (printed := capsys.readouterr().out)
    assert found.id in printed
    for ref in (found.id, found.id[:8]):
        assert status(["why", ref]) == 0
        printed = capsys.readouterr().out
        assert "explanation attributions, exact" in printed
        for part in ("prediction no", "revision e#1", "model m@1"):
            assert part in printed
    assert status(["impact", ids[0]]) == 0
    assert found.id in capsys.readouterr().out
    for ref in ("m@1", "e#1"):
        assert status(["impact", ref]) == 0
        assert "1 explanation" in capsys.readouterr().out
    assert status(["impact", found.id]) == 0
    capsys.readouterr()
    assert status(["impact", ids[1]]) == 0
    assert "attributions" not in capsys.readouterr().out


def test_a_stored_explanation_outlives_log_and_package(
    served: tuple[Project, list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    project, ids = served
    found = explain_prediction(project, ids[0]).explanation
    shutil.rmtree(project.packages / "m")
    again = explain_prediction(project, ids[0])
    assert (again.is_new, again.explanation) == (False, found)
    with pytest.raises((NotFound, IntegrityError)):
        explain_prediction(project, ids[1])
    with pytest.raises((NotFound, IntegrityError)):
        explain_prediction(project, ids[0], fresh=True)
    shutil.rmtree(project.log)
    again = explain_prediction(project, ids[0], "attributions")
    assert (again.is_new, again.explanation) == (False, found)
    assert "is in the log" in again.note
    with pytest.raises(NotFound):
        explain_prediction(project, ids[0], "counterfactuals")
    assert status(["why", str(found.id)]) == 0
    assert "is in the log" in capsys.readouterr().out


def test_a_changed_explanation_is_refused_until_it_is_computed_anew(
    served: tuple[Project, list[str]],
) -> None:
    project, ids = served
    found = explain_prediction(project, ids[0]).explanation
    record = stored_explanations(project, ids[0])[0]
    changed = msgspec.structs.replace(record, body={**record.body, "base": 0.1})
    with Store.open(project.store_root) as store, store.catalog.transaction() as transaction:
        transaction.replace(changed)
    with pytest.raises(IntegrityError, match="was changed in the catalog"):
        explain_prediction(project, ids[0])
    (finding,) = check_project(project)
    _, what, fix = finding_text(finding)
    assert what == f"The stored explanation {record.id} was changed in the catalog."
    assert f"clewline explain {ids[0]} --kind attributions --fresh" in fix
    assert not check_project(project, deep=False)
    assert explain_prediction(project, ids[0], fresh=True).explanation == found
    assert not check_project(project)
    assert explain_prediction(project, ids[0]).explanation == found


def test_two_who_ask_at_once_store_it_once(
    served: tuple[Project, list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    project, ids = served
    both, record_of = threading.Barrier(2), explaining._record_of

    def wait_for_the_other(*given: object) -> ExplanationRecord:
        both.wait(60)
        return record_of(*given)  # type: ignore[arg-type]

    monkeypatch.setattr(explaining, "_record_of", wait_for_the_other)
    found: list[object] = []
    threads = [
        threading.Thread(
            target=lambda: found.append(explain_prediction(project, ids[0]).explanation)
        )
        for _ in range(2)
    ]
    for each in threads:
        each.start()
    for each in threads:
        each.join(60)
    assert found[0] == found[1]
    assert len(stored_explanations(project, ids[0])) == 1


def test_a_kill_leaves_whole_explanations(served: tuple[Project, list[str]]) -> None:
    project, ids = served
    script = """
import sys
from clewline.explain.explain_prediction import PredictionExplainer
from clewline.project import find
explainer = PredictionExplainer(find())
for budget in range(1, 10_000):
    explainer.explain(sys.argv[1], "attributions", {"budget": budget})
    print(budget, flush=True)
"""
    child = start_process(
        [sys.executable, "-c", script, ids[0]], stdout=subprocess.PIPE, cwd=project.root
    )
    assert child.stdout is not None
    for _ in range(3):
        assert child.stdout.readline().strip()
    child.kill()
    child.wait()
    child.stdout.close()
    stored = stored_explanations(project, ids[0])
    assert len(stored) >= 3
    assert not any(each.is_changed for each in stored)
    for budget in (1, len(stored) + 1):
        assert explain_prediction(project, ids[0], "attributions", {"budget": budget})


def test_on_a_full_disk_the_explanation_is_shown_and_not_kept(
    served: tuple[Project, list[str]],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    project, ids = served

    def full(*records: object) -> None:
        raise explaining.StoreFull("The disk is full.")

    monkeypatch.setattr(Transaction, "record", full)
    assert status(["explain", ids[0]]) == 0
    printed = capsys.readouterr()
    assert "Exact Shapley values" in printed.out
    assert "not kept: The disk is full" in printed.err
    assert "Explanation" not in printed.out
    assert stored_explanations(project, ids[0]) == []


def test_a_row_that_todays_limits_refuse_is_explained_as_it_was_answered(
    served: tuple[Project, list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    project, ids = served
    (project.signatures).mkdir(exist_ok=True)
    (project.signatures / "m.yaml").write_text(
        "fields:\n  age: {bounds: [30, 60]}\n  work: {levels: [state]}\n"
    )
    (project.root / "endpoints" / "e.yaml").write_text("endpoint: e\nmodel: m@1\n")
    assert status(["endpoints", "apply", "e"]) == 0
    assert "accepted age" in capsys.readouterr().out
    found = explain_prediction(project, ids[0]).explanation
    assert (found.revision, getattr(found, "label", None)) == ("e#1", "no")


def test_a_slow_model_is_named_once(capsys: pytest.CaptureFixture[str]) -> None:
    note = command.SlowModelNote()
    note(1000, 0.5)
    assert capsys.readouterr().err == ""
    note(1, 3.5)
    note(1, 9.0)
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("The model takes 4 ms a row, so this may take long. Ctrl-C stops it")
    command.SlowModelNote()(1, 1.0)
    assert "takes 1.0 s a row" in capsys.readouterr().err


def test_a_person_who_stops_it_leaves_nothing_behind(
    served: tuple[Project, list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    project, ids = served

    def stop(*given: object) -> object:
        raise KeyboardInterrupt

    monkeypatch.setattr(type(explainer_of("attributions")), "explain", stop)
    assert status(["explain", ids[0], "--kind", "attributions"]) == 130
    assert stored_explanations(project, ids[0]) == []
