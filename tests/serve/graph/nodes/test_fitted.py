"""Fitted preprocessing, a package of its own, stands before a model and replays."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import polars as pl
import pytest
from sklearn.linear_model import LinearRegression
from sklearn.preprocessing import StandardScaler

from clewline.model.families.family import RegistrationInputs
from clewline.model.package import PackageMetadata
from clewline.model.registry import Registry
from clewline.model_families import family_named
from clewline.project import Project
from clewline.serve import revision as revisions
from clewline.serve.endpoint_file import read_endpoint
from clewline.serve.loaded_revision import LoadedRevision
from clewline.serve.log.frame import LoggedRequest
from clewline.serve.log.writer import LogWriter
from clewline.serve.model_cache.loaded_models import SharedModels
from clewline.serve.prediction_replay import replay_prediction
from clewline.store.ids import id_text
from clewline.store.store import Store

GRAPH = "endpoint: fitted\ntimeout_ms: 9000\ngraph: {transform: %s, model: scaled@1}\n"


def about(name: str, contents: Any, task: str) -> PackageMetadata:
    return PackageMetadata(
        name=name,
        number=0,
        runtime=contents.compiled.runtime,
        task=task,
        target="y",
        created=0.0,
        equality=msgspec.to_builtins(contents.compiled.equality),
        versions={},
    )


@pytest.mark.parametrize("apart", [False, True])
def test_a_model_gets_what_the_preprocessing_makes_and_a_replay_the_same(
    shop: Callable[..., Project], tmp_path: Path, apart: bool
) -> None:
    """Also where the preprocessing lives in a process of its own."""
    random = np.random.default_rng(3)
    table = pl.DataFrame({"age": random.uniform(17, 90, 200), "hours": random.uniform(1, 99, 200)})
    target = table["age"].to_numpy() * 2 + table["hours"].to_numpy()
    scaler = StandardScaler().set_output(transform="polars").fit(table)
    scaled = scaler.transform(table)
    model = LinearRegression().fit(scaled, target)
    named = "{model: scale@1, isolate: true}" if apart else "scale@1"
    project = shop(tmp_path, {"endpoints/fitted.yaml": GRAPH % named})
    made = family_named("sklearn").convert(scaler, given(table, None))
    fitted = family_named("sklearn").convert(model, given(scaled.with_columns(y=target), "y"))
    with Store.open(project.store_root) as store:
        registry = Registry(project, store)
        registry.add(dict(made.files), about("scale", made, "transform"))
        registry.add(dict(fitted.files), about("scaled", fitted, "regression"))
        revision = revisions.apply(project, store, read_endpoint(project, "fitted")).revision
    loaded = LoadedRevision.load(revision, SharedModels(project))
    body = b'{"rows": [{"age": 40.5, "hours": 3.25}, {"age": 20.0, "hours": 77.0}]}'
    predictions = loaded.answer(loaded.json_reader.read(body).rows, [None, None])
    frame = loaded.frame(predictions, [LoggedRequest("json", body, 2)])
    pids = [getattr(model.predictor, "pid", None) for model in loaded.models]
    loaded.close()
    assert [pid is not None for pid in pids] == [False, apart]
    assert not any(Path(f"/proc/{pid}").exists() for pid in pids if pid is not None)
    values = [msgspec.json.decode(answer)["value"] for answer in frame.answers]
    assert np.allclose(values, [84.25, 117.0])
    assert [node for node, _ in frame.route_path(0).path] == ["scale-1", "model"]
    with LogWriter(project.log) as log:
        assert log.write_now(frame)
    assert replay_prediction(project, id_text(frame.ids[:16])).equal


def given(train: pl.DataFrame, target: str | None) -> RegistrationInputs:
    return RegistrationInputs(train=train, test=None, target=target)
