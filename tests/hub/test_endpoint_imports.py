"""An endpoint may name a file of a hub wherever a model may stand; apply brings it, pinned."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from clewline.cli.main import status
from clewline.project import Project
from clewline.serve.endpoint_file import read_endpoint
from clewline.serve.graph.problems import InvalidEndpoint
from clewline.serve.revision import resolve
from clewline.store.store import Store

FILE = "owner/repo/model.onnx"


@pytest.fixture
def call(project: Project, capsys: pytest.CaptureFixture[str]) -> Any:
    def run(*words: str) -> tuple[int, str]:
        capsys.readouterr()
        code = status(list(words))
        said = capsys.readouterr()
        return code, said.out + said.err

    return run


def write(project: Project, text: str) -> None:
    (project.endpoints / "find.yaml").write_text(f"endpoint: find\n{text}\n")


def test_apply_brings_a_file_and_serves_it(
    hub: Any, project: Project, call: Any, onnx_file: bytes
) -> None:
    digest = hub.put(FILE, onnx_file)
    write(project, f"model: {{from: 'hf:{FILE}', digest: '{digest}', name: detector}}")
    code, said = call("endpoints", "apply")
    assert code == 0, said
    assert "detector@1" in said
    hub.asked.clear()
    code, said = call("endpoints", "apply")
    assert code == 0
    assert hub.asked == []
    assert call("endpoints", "check", "find")[0] == 0


def test_a_graph_may_import_a_model_anywhere(
    hub: Any, project: Project, call: Any, onnx_file: bytes
) -> None:
    digest = hub.put(FILE, onnx_file)
    there = f"{{from: 'hf:{FILE}@v1', digest: '{digest}', name: detector}}"
    write(
        project,
        "graph:\n"
        "  route: {kind: weights, weights: {a: 0.5, b: 0.5}}\n"
        f"  arms: {{a: {there}, b: {{model: {there}}}}}\n"
        f"shadow: {{c: {there}}}",
    )
    code, said = call("endpoints", "check", "find")
    assert code == 0, said
    with Store.open(project.store_root) as store:
        draft = resolve(project, store.catalog, read_endpoint(project, "find"))
    assert set(draft.revision.models.values()) == {"detector@1"}
    assert len(hub.methods("cdn")) == 1


@pytest.mark.parametrize(
    "text",
    ["model: 'hf:{file}'", "model: {{from: 'hf:{file}', name: detector}}", "graph: 'hf:{file}'"],
)
def test_without_a_digest_the_error_names_the_found_one(
    hub: Any, project: Project, call: Any, onnx_file: bytes, text: str
) -> None:
    digest = hub.put(FILE, onnx_file)
    write(project, text.format(file=FILE))
    code, said = call("endpoints", "check", "find")
    assert code == 1
    assert digest in said.replace("\n", "")
    assert hub.methods("cdn") == []


def test_resolving_alone_fetches_nothing(hub: Any, project: Project, onnx_file: bytes) -> None:
    digest = hub.put(FILE, onnx_file)
    write(project, f"graph: {{model: {{from: 'hf:{FILE}', digest: '{digest}', name: detector}}}}")
    with (
        Store.open(project.store_root) as store,
        pytest.raises(InvalidEndpoint, match="No version of detector"),
    ):
        resolve(project, store.catalog, read_endpoint(project, "find"))
    assert hub.asked == []


def test_all_faults_of_the_mapping_are_named_at_once(project: Project) -> None:
    write(project, "model: {from: model.onnx, digest: abc, nam: x}")
    with pytest.raises(InvalidEndpoint) as told:
        read_endpoint(project, "find")
    for said in ("model.from is 'model.onnx'", "model.digest is 'abc'", "model.name is None"):
        assert said in told.value.message
    assert "Did you mean 'name'?" in told.value.message


def test_import_says_what_a_repository_of_code_needs(call: Any) -> None:
    for source in ("torch.hub:pytorch/vision", "https://github.com/pytorch/vision"):
        code, said = call("models", "import", source, "--name", "vision")
        assert code == 2
        assert "pytorch/vision is a repository of code" in said
        assert "ONNX file" in said


def test_a_sample_and_a_signature_describe_a_booster(
    hub: Any, project: Project, call: Any, tmp_path: Path
) -> None:
    lightgbm = pytest.importorskip("lightgbm")
    rows = np.random.default_rng(0).normal(size=(80, 2))
    data = lightgbm.Dataset(rows, (rows[:, 0] > 0).astype(int))
    booster = lightgbm.train({"objective": "binary", "verbose": -1}, data, 4)
    digest = hub.put("owner/repo/model.txt", booster.model_to_string().encode())
    words = ("models", "import", "hf:owner/repo/model.txt", "--digest", digest, "--name", "b")
    code, said = call(*words)
    assert code == 1, said
    assert "--signature FILE" in said
    assert "--sample FILE" in said
    lines = ["x,y", *(f"{a},{b}" for a, b in rows)]
    (tmp_path / "rows.csv").write_text("\n".join(lines))
    code, said = call(*words, "--sample", "rows.csv")
    assert code == 0, said
    assert "b@1" in said
    stated = {
        "fields": [{"name": "x", "kind": "number"}, {"name": "y", "kind": "number"}],
        "output": {"name": "found", "task": "binary", "labels": ["no", "yes"]},
    }
    (tmp_path / "signature.yaml").write_text(json.dumps(stated))
    code, said = call(*words, "--signature", "signature.yaml")
    assert code == 0, said
    assert "b@2" in said
    assert "made from the signature" in said
    assert call(*words, "--sample", "rows.csv", "--train", "rows.csv")[0] == 2
    hub.asked.clear()
    code, said = call(*words, "--sample", "rows.csv")
    assert "b@1" in said
    assert hub.asked == []
