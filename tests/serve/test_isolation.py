"""A model of a graph that says `isolate: true` lives in a process of its own."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from clewline.errors import IntegrityError, ModelFailed
from clewline.model.isolation.isolated_predictor import IsolatedPredictor, IsolationLimits
from clewline.project import Project
from clewline.serve import revision
from clewline.serve.endpoint_file import parse_endpoint, read_endpoint
from clewline.serve.endpoint_server import EndpointServer
from clewline.serve.graph.builder import isolation_of
from clewline.serve.graph.tree import of_revision
from clewline.serve.model_cache.loaded_models import Isolation, LoadedModel, SharedModels
from clewline.signature.check import Checker
from clewline.store.records import ModelVersion
from clewline.store.store import Store

APART = Isolation("income", IsolationLimits())

Loans = Callable[[Path], Project]


@pytest.fixture(scope="module")
def project(loans: Loans, tmp_path_factory: pytest.TempPathFactory) -> Project:
    return loans(tmp_path_factory.mktemp("loans"))


@pytest.fixture
def pool(project: Project) -> SharedModels:
    made = SharedModels(project)
    with Store.open(project.store_root, write=False) as store:
        (version,) = store.catalog.find(ModelVersion, name="income", number=1)
    made.pin({"income@1": version.package})
    return made


def background(model: LoadedModel) -> Any:
    checker = Checker(model.signature)
    rows = msgspec.json.decode(model.background, type=list[msgspec.Raw])
    return checker.columns([row for raw in rows for row in checker.decode(bytes(raw))]).columns


def test_it_is_shared_by_those_who_ask_for_it_and_answers_as_in_the_server(
    pool: SharedModels,
) -> None:
    here, away = pool.take("income@1"), pool.take("income@1", APART)
    again = pool.take("income@1", APART)
    assert again is away
    assert isinstance(away.predictor, IsolatedPredictor)
    assert away.size_bytes > 10 << 20  # of its process
    rows = background(here)
    wanted, found = here.predictor.predict(rows), away.predictor.predict(rows)
    assert found.probabilities is not None
    assert wanted.probabilities is not None
    assert found.probabilities.tobytes() == wanted.probabilities.tobytes()
    pid = away.predictor.pid
    away.release()
    assert Path(f"/proc/{pid}").exists()
    again.release()
    assert not Path(f"/proc/{pid}").exists()
    here.release()


def test_the_endpoints_file_states_the_limits_of_its_process(project: Project) -> None:
    def isolation(text: str) -> Isolation | None:
        spec = parse_endpoint(f"endpoint: limited\n{text}".encode(), Path("limited.yaml"))
        with Store.open(project.store_root, write=False) as store:
            draft = revision.resolve(project, store.catalog, spec)
        tree = of_revision(draft.revision)
        return isolation_of(tree.get("isolate"), draft.revision)

    graph = "timeout_ms: 900\ngraph: {model: income@1, isolate: ISOLATE}"
    for text, limits in {
        "true": IsolationLimits(0.9),
        "{timeout: 5s}": IsolationLimits(5.0),
        "{memory: 2GiB}": IsolationLimits(0.9, 2 << 30),
        "{memory: 512MiB, timeout: 1500ms}": IsolationLimits(1.5, 512 << 20),
    }.items():
        assert isolation(graph.replace("ISOLATE", text)) == Isolation("limited", limits)
    assert isolation(graph.replace("ISOLATE", "false")) is None
    assert isolation("model: income@1") is None


def test_two_endpoints_have_two_processes(pool: SharedModels) -> None:
    one, other = (pool.take("income@1", Isolation(name, IsolationLimits())) for name in ("a", "b"))
    assert isinstance(one.predictor, IsolatedPredictor)
    assert isinstance(other.predictor, IsolatedPredictor)
    assert one.predictor.pid != other.predictor.pid
    one.release()
    other.release()


def test_after_a_crash_its_package_is_read_and_checked_again(
    pool: SharedModels, project: Project
) -> None:
    model = pool.take("income@1", APART)
    predictor = model.predictor
    assert isinstance(predictor, IsolatedPredictor)
    rows = background(model)
    path = project.packages / "income" / "1" / "background.json"
    kept = path.read_bytes()
    crash(predictor, rows)
    predictor.predict(rows)
    crash(predictor, rows)
    path.chmod(0o644)
    path.write_bytes(kept + b" ")
    with pytest.raises(IntegrityError, match=r"background\.json changed"):
        predictor.predict(rows)
    path.write_bytes(kept)
    predictor.predict(rows)
    model.release()


def crash(predictor: IsolatedPredictor, rows: Any) -> None:
    assert predictor.pid is not None
    os.kill(predictor.pid, signal.SIGSEGV)
    with pytest.raises(ModelFailed, match="SIGSEGV"):
        predictor.predict(rows)


def test_a_model_whose_process_ends_again_and_again_fails_its_endpoint_with_the_reason(
    project: Project,
) -> None:
    (project.endpoints).mkdir(exist_ok=True)
    text = "endpoint: apart\ngraph: {model: income@1, isolate: true}\n"
    (project.endpoints / "apart.yaml").write_text(text)
    with Store.open(project.store_root) as store:
        revision.apply(project, store, read_endpoint(project, "apart"))

    async def main() -> None:
        endpoints = EndpointServer(project, ["apart"])
        await endpoints.open()
        endpoint = endpoints.get("apart")
        assert (endpoint.state, endpoint.trouble, endpoints.ready) == ("ready", None, True)
        assert endpoint.serving is not None
        (model,) = endpoint.serving.loaded.models
        assert isinstance(model.predictor, IsolatedPredictor)
        model.predictor._limits = IsolationLimits(timeout_s=0.0)
        for _ in range(3):
            with pytest.raises(ModelFailed):
                model.predictor.predict(background(model))
        assert (endpoint.state, endpoints.ready) == ("failed", False)
        assert "income@1 stays failed after 3 crashes in a row" in str(endpoint.trouble)
        await endpoints.unload("apart")
        await endpoints.load("apart")
        assert (endpoint.state, endpoint.trouble, endpoints.ready) == ("ready", None, True)
        await endpoints.close()

    asyncio.run(main())
