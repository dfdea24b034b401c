"""What a loaded model counts as, against the bound of the models in memory."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec
import pytest
from support import TREES_IN_ONNX

from clewline.model import package as packages
from clewline.project import Project
from clewline.serve.model_cache.loaded_models import LoadedModel, SharedModels, memory_bytes
from clewline.signature.check import Checker
from clewline.signature.columns import Columns
from clewline.store.records import ModelVersion
from clewline.store.store import Store


@TREES_IN_ONNX
@pytest.mark.parametrize(
    ("runtime", "factor"), [("onnx", 6), ("linear_text_model", 6), ("lightgbm", 2), ("xgboost", 2)]
)
def test_a_model_counts_by_its_own_files_and_as_its_runtime_holds_them(
    runtime: str, factor: int, loans: Callable[[Path], Project], tmp_path: Path
) -> None:
    project = loans(tmp_path)
    with Store.open(project.store_root, write=False) as store:
        (version,) = store.catalog.find(ModelVersion, name="income", number=1)
    pool = SharedModels(project)
    pool.pin({"income@1": version.package})
    assert project.public_key is not None
    found = packages.open_package(
        project.packages / "income" / "1", project.public_key, version.package
    )
    model = len(found.files["model.onnx"])
    manifest = msgspec.structs.replace(found.manifest, runtime=runtime)
    package = msgspec.structs.replace(found, manifest=manifest)
    assert memory_bytes(package) == (96 << 10) + factor * model
    if runtime == found.manifest.runtime:
        assert pool.take("income@1").size_bytes == memory_bytes(package)


@TREES_IN_ONNX
def test_a_compiled_model_answers_several_calls_at_once_with_the_same_bits(
    loans: Callable[[Path], Project], tmp_path: Path
) -> None:
    project = loans(tmp_path)
    with Store.open(project.store_root, write=False) as store:
        (version,) = store.catalog.find(ModelVersion, name="income", number=1)
    pool = SharedModels(project)
    pool.pin({"income@1": version.package})
    model = pool.take("income@1")
    checker = Checker(model.signature)
    columns = checker.columns(checker.decode(model.background)).columns
    expected = _bits(model, columns)
    with ThreadPoolExecutor(4) as threads, model.lock:  # as if one call were under way
        calls = [threads.submit(_bits, model, columns) for _ in range(200)]
        assert {call.result(5) for call in calls} == {expected}
    model.release()


def _bits(model: LoadedModel, columns: Columns) -> bytes:
    with model.lock:
        outputs = model.predictor.predict(columns)
    assert outputs.probabilities is not None
    return outputs.probabilities.tobytes()
