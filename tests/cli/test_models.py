"""`clewline models`, as a person and as a program calls it."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from projects import make_project

from clewline.cli.main import status
from clewline.model.package import PackageMetadata
from clewline.model.registry import Registry
from clewline.store.store import Store

SIGNATURE = (
    b'{"fields": [{"name": "age", "kind": "integer", "bounds": [17, 90]}], '
    b'"output": {"name": "income", "task": "binary", "labels": ["<=50K", ">50K"]}}'
)

Said = tuple[int, str, str]
Call = Callable[..., Said]


def add(registry: Registry, content: bytes, accuracy: float) -> None:
    metric = {"accuracy": {"value": accuracy, "low": accuracy - 0.01, "high": accuracy + 0.01}}
    files = {
        "signature.json": SIGNATURE,
        "model.onnx": content,
        "equality.json": b'{"verified": true}',
        "background.json": b"[]",
    }
    about = PackageMetadata(
        name="income",
        number=0,
        runtime="onnx",
        task="binary",
        target="income",
        created=0.0,
        report={"metrics": metric, "headline": "accuracy", "verdict": "better"},
        equality={"verified": True, "form": "folded trees", "rows": 12, "synthetic_rows": 0},
        data={"train": {"artifact": "ab" * 32, "rows": 32561}},
    )
    registry.add(files, about)


@pytest.fixture
def call(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Call:
    """A project with two versions, and the command line in it."""
    project = make_project(tmp_path)
    (tmp_path / "gate.yaml").write_text("income:\n  metrics:\n    accuracy: {min: 0.85}\n")
    with Store.open(project.store_root) as store:
        registry = Registry(project, store)
        add(registry, b"first", 0.8)
        add(registry, b"second", 0.9)
    monkeypatch.chdir(tmp_path)

    def run(*words: str) -> Said:
        capsys.readouterr()
        code = status(["models", *words])
        said = capsys.readouterr()
        return code, said.out, said.err

    return run


def test_list_shows_newest_first_with_alias_and_metric(call: Call) -> None:
    call("promote", "income@2", "champion")
    code, out, _ = call("list")
    assert code == 0
    lines = out.splitlines()
    assert lines[1].split()[:4] == ["income@2", "champion", "binary", "accuracy"]
    assert lines[2].startswith("income@1")


def test_lists_and_gates_fit_a_hundred_columns(call: Call) -> None:
    for words in (("list",), ("promote", "income@1", "champion")):
        assert max(map(len, call(*words)[1].splitlines())) <= 100


def test_list_says_that_there_are_more(call: Call) -> None:
    _, out, err = call("list", "--limit", "1")
    assert "income@1" not in out
    assert "--offset 1" in err


def test_a_page_beyond_the_last_version_does_not_say_that_there_is_none(call: Call) -> None:
    code, _, err = call("list", "--offset", "2")
    assert (code, err) == (0, "There are no more than 2.\n")
    _, _, err = call("list", "--limit", "1", "--offset", "1")
    assert "--offset 2" in err


@pytest.mark.parametrize("words", [("--limit", "0"), ("--limit", "-1"), ("--offset", "-1")])
def test_a_page_of_no_size_or_before_the_first_is_refused(call: Call, words) -> None:
    code, _, err = call("list", *words)
    assert code == 2
    assert words[0] in err


def test_the_project_may_be_named_with_an_equals_sign(
    call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CLEWLINE_PROJECT", "/")  # put back afterwards
    code, out, _ = call("list", f"--project={tmp_path}")
    assert (code, "income@2" in out) == (0, True)


@pytest.mark.parametrize("form", ["--project={}", "--project {}"])
def test_a_folder_that_is_not_there_is_none_of_the_project_around_it(
    call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form: str
) -> None:
    monkeypatch.setenv("CLEWLINE_PROJECT", "/")  # put back afterwards
    code, _, err = call("list", *form.format(tmp_path / "nowhere").split())
    assert code == 2
    assert f"There is no folder {tmp_path / 'nowhere'}" in err


def test_json_is_for_programs(call: Call) -> None:
    listed = json.loads(call("list", "--json")[1])
    assert [(item["name"], item["number"]) for item in listed] == [("income", 2), ("income", 1)]
    shown = json.loads(call("show", "income@1", "--json")[1])
    assert shown["equality"] == {"verified": True}
    assert shown["manifest"]["files"]["model.onnx"]["size_bytes"] == 5
    assert json.loads(call("verify", "--json")[1])["sound"] is True


def test_show_prints_output_metrics_and_origin(call: Call) -> None:
    code, out, _ = call("show", "income@2")
    assert code == 0
    for text in (
        "income: <=50K, >50K",
        "ONNX (folded trees) verified equal on 12 rows",
        "32,561 rows",
        "[0.89, 0.91]",
        "17 to 90",
    ):
        assert text in out


def test_diff_shows_only_differences(call: Call) -> None:
    _, out, _ = call("diff", "income@1", "income@2")
    assert "0.8 [0.79, 0.81]" in out
    assert "train data" not in out
    assert "do not differ" in call("diff", "income@1", "income@1")[2]


def test_a_refused_promotion_shows_each_line_and_exits_1(call: Call) -> None:
    code, out, err = call("promote", "income@1", "champion")
    assert code == 1
    assert "✗  line 3  metrics.accuracy  at least 0.85  0.8 [0.79, 0.81]" in out
    assert "--force" in err
    code, out, _ = call("promote", "income@1", "champion", "--force", "it is the only one")
    assert code == 0
    assert "it is the only one" in out


def test_verify_names_a_flipped_byte_and_exits_1(call: Call) -> None:
    assert call("verify")[0] == 0
    path = Path(".clewline/models/income/1/model.onnx")
    path.chmod(0o644)
    path.write_bytes(b"First")
    code, out, _ = call("verify")
    assert code == 1
    assert "✗ income@1" in out
    assert "model.onnx changed" in out
    assert "✓ income@2  sound" in out
    assert call("show", "income@1")[0] == 1


def test_an_unknown_version_exits_2_and_names_the_nearest(call: Call) -> None:
    code, _, err = call("show", "incom@1")
    assert code == 2
    assert "Did you mean 'income@1'?" in err


def test_promote_names_the_ref_that_holds_the_head(call: Call) -> None:
    subprocess.run(["git", "init", "--quiet"], check=True)
    assert (
        "git push origin refs/clewline/0123456789abcdef"
        in call("promote", "income@2", "champion")[2]
    )
