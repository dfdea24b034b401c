"""`cl.register`: a step of a pipeline, or a run of its own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import polars as pl
import pytest
from sklearn.tree import DecisionTreeClassifier

import clewline as cl
from clewline.errors import IntegrityError, NotFound, NotSupported, UsageError
from clewline.flow.replay import replay
from clewline.flow.run import execute
from clewline.model.conformal_scores import read_conformal_scores
from clewline.model.evaluation_record import read_evaluation
from clewline.model.families.family import CONFORMAL
from clewline.model.registry import Registry, load_predictor
from clewline.model.verify import verify
from clewline.store.records import Artifact, Edge, Run, StepRun

from .conftest import add

TABLE = pl.DataFrame(
    {
        "age": [20.0, 30.0, 40.0, 50.0, 60.0, 70.0] * 20,
        "y": ["no", "no", "yes", "no", "yes", "yes"] * 20,
    }
)


@cl.step
def load() -> pl.DataFrame:
    return TABLE


@cl.step
def fit(train: pl.DataFrame, *, depth: int) -> DecisionTreeClassifier:
    model = DecisionTreeClassifier(max_depth=depth, random_state=0)
    return model.fit(train.drop("y"), train["y"])


@cl.pipeline
def ages(depth: int = 3) -> None:
    train = load()
    model = fit(train, depth=depth)
    report = cl.evaluate(model, train, target="y", resamples=20)
    cl.register("ages", model, train=train, test=train, target="y", report=report)


def run(registry: Registry, pipeline: Any = ages, **params: Any) -> Run:
    return execute(pipeline, params, project=registry.project, store=registry.store)


def test_a_version_knows_the_run_data_code_and_report_that_made_it(registry: Registry) -> None:
    done = run(registry)
    version = registry.get("ages@1")
    package = registry.open("ages@1")
    model = load_predictor(package)
    model.close()
    manifest = package.manifest
    assert version.run == manifest.run == done.id
    assert manifest.code["snapshot"] == done.snapshot
    assert manifest.report is not None
    assert manifest.report["metrics"]["accuracy"]["value"] == version.metrics["accuracy"] == 1.0
    whole = read_evaluation(package)
    assert whole is not None
    assert msgspec.json.encode(whole.small) == msgspec.json.encode(manifest.report)
    table = registry.store.catalog.get(Artifact, manifest.data["train"]["artifact"])
    assert table is not None
    assert table.rows == manifest.data["train"]["rows"] == 120
    edges = registry.store.catalog.find(Edge, target="model:ages@1")
    assert [(edge.source, edge.role) for edge in edges] == [
        (f"step:{version.step_run}", "registered")
    ]


def test_a_version_that_was_registered_without_an_evaluation_has_no_record(
    registry: Registry,
) -> None:
    package = registry.open(add(registry, b"model").ref)
    assert read_evaluation(package) is None


def test_an_evaluation_record_that_cannot_be_read_is_named(registry: Registry) -> None:
    newer = add(registry, b"model", extra={"evaluation.json": b'{"task": "dance"}'})
    with pytest.raises(IntegrityError, match=r"evaluation.json of income@1 .* cannot read it"):
        read_evaluation(registry.open(newer.ref))


def test_the_same_model_is_the_same_version_in_any_run(registry: Registry) -> None:
    run(registry)
    run(registry, depth=1)
    run(registry)
    versions = registry.list("ages")
    assert [version.number for version in versions] == [2, 1]
    assert versions[0].metrics["accuracy"] < versions[1].metrics["accuracy"]
    assert verify(registry).sound


def test_two_runs_record_the_same_thing_for_a_replay_to_compare(registry: Registry) -> None:
    """Ids, times and numbers differ from run to run; what a version answers with does not."""
    for _ in range(2):
        run(registry)
    steps = registry.store.catalog.find(StepRun, name="register", order="started")
    assert [step.status for step in steps] == ["done", "done"]
    assert steps[0].files == steps[1].files
    assert set(steps[0].files) == {"version"}


def test_outside_a_pipeline_it_is_a_run_of_its_own(
    registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(registry.project.root)
    model = DecisionTreeClassifier(max_depth=3, random_state=0).fit(TABLE.drop("y"), TABLE["y"])
    version = cl.register("ages", model, train=TABLE, test=TABLE, target="y")
    assert (version.name, version.number) == ("ages", 1)
    assert version.run is not None
    recorded = registry.store.catalog.get(Run, version.run)
    assert recorded is not None
    assert (recorded.pipeline, recorded.status) == ("register-ages", "done")
    assert version.metrics["accuracy"] == 1.0  # evaluated, since no report was given
    with pytest.raises(NotSupported, match="registered 'ages' outside of a pipeline"):
        replay(registry.project, registry.store, version.run, prepare=lambda root: None)


def test_outside_a_project_it_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    model = DecisionTreeClassifier().fit(TABLE.drop("y"), TABLE["y"])
    with pytest.raises(NotFound, match="not inside a clewline project"):
        cl.register("ages", model, train=TABLE, target="y")


def test_a_bad_name_is_refused_before_anything_is_done(registry: Registry) -> None:
    with pytest.raises(UsageError, match="cannot name a model"):
        cl.register("a/b", None, train=TABLE, target="y")


def test_a_model_without_onnx_form_is_the_same_version_again(registry: Registry) -> None:
    """Its file's bytes differ each time that it is written; its fitted state does not."""
    from sklearn.neighbors import NearestCentroid

    few = TABLE[:30]

    @cl.pipeline
    def odd() -> None:
        model = NearestCentroid().fit(few.drop("y"), few["y"])
        cl.register("odd", model, train=few, target="y")

    run(registry, odd)
    run(registry, odd)
    version = registry.get("odd")
    assert (version.runtime, version.number) == ("sklearn", 1)
    assert (version.equality["verified"], version.equality["form"]) == (False, "scikit-learn")


@cl.pipeline
def parted(same: bool = False) -> None:
    table = load().value()
    train, hold, test = table[:60], table[60:90], table[93:]
    model = cl.calibrate(fit(train, depth=1), hold, target="y", kind="sigmoid")
    tested = hold if same else test
    cl.register("ages", model, train=train, test=tested, target="y")


def test_rows_that_a_model_was_fitted_on_give_no_conformal_scores(
    registry: Registry, capsys: pytest.CaptureFixture[str]
) -> None:
    run(registry)
    assert CONFORMAL not in registry.open("ages@1").manifest.files
    assert "no conformal scores" in capsys.readouterr().err
    run(registry, parted)
    assert CONFORMAL in registry.open("ages@2").manifest.files
    scores = read_conformal_scores(registry.open("ages@2"))
    assert scores is not None
    assert scores.rows == 27
    run(registry, parted, same=True)
    assert CONFORMAL not in registry.open("ages@3").manifest.files
