"""The real `tritonclient`, of HTTP and of gRPC, sync and async, gets what native REST answers."""

from __future__ import annotations

import asyncio
import subprocess
from pathlib import Path
from typing import Any

import msgspec
import pytest

from clewline.protocols.http.health import ServerHealth
from clewline.protocols.http.host_check import HostCheck
from clewline.protocols.oip.grpc import OipGrpcServer
from clewline.protocols.rest.routes import RestRoutes
from clewline.serve.access import TokenChecker

SCRIPT = Path(__file__).with_name("triton_client.py")
ROWS = [
    {"age": 39, "hours": 40.5, "job": "nurse"},
    {"age": 40, "hours": 1, "job": "smith"},
    {"age": 120, "hours": 2, "job": "clerk"},
]


@pytest.fixture(scope="module")
def found(income: Any, clients: Path) -> dict[str, Any]:
    """What the client printed."""
    health = ServerHealth()
    ready = RestRoutes(income.endpoints, health).ready
    checker = TokenChecker(income.project)
    served = OipGrpcServer(income.endpoints, checker, ready, health, HostCheck())

    async def start() -> int:
        port = served.listen("127.0.0.1", 0)
        await served.start()
        return port

    def run(what: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(what, income._loop).result(20)

    port = run(start())
    try:
        done = subprocess.run(
            [clients / "python", SCRIPT, str(income.port), str(port)],
            capture_output=True,
            check=False,
            timeout=60,
        )
        assert done.returncode == 0, done.stderr.decode()
        printed: dict[str, Any] = msgspec.json.decode(done.stdout)
        return printed
    finally:
        run(served.drain())


@pytest.fixture
def wanted(income: Any) -> dict[str, Any]:
    predictions = income.predict({"rows": ROWS})[1]["predictions"]
    return {
        "label": [each["label"] for each in predictions],
        "probabilities": [list(each["probabilities"].values()) for each in predictions],
    }


@pytest.mark.parametrize("over", ["http", "grpc"])
def test_a_server_is_described_and_its_models_are_moved(found, over):
    said = found[over]
    assert said["live"]
    assert said["ready"]
    assert said["model ready"]
    assert (said["unloaded"], said["loaded"]) == (False, True)
    assert (said["metadata"], said["index"]) == ("INT64", "READY")


@pytest.mark.parametrize("how", ["binary", "json", "gzip"])
def test_http_infers_what_native_rest_answers(found, wanted, how):
    assert found["http"][how] == wanted


def test_grpc_infers_what_native_rest_answers(found, wanted):
    assert found["grpc"]["raw"] == wanted


@pytest.mark.parametrize("over", ["http", "grpc"])
def test_async_calls_beside_each_other_infer_the_same(found, wanted, over):
    assert found["aio"][over] == [wanted] * 8


@pytest.mark.parametrize("over", ["http", "grpc"])
def test_ids_come_back_and_lead_to_the_log(found, income, over):
    assert found[over]["id"] == "q"
    last = found[over]["ids"].split(",")[2]
    assert income.ask("GET", f"/v1/predictions/{last}")[1]["row"] == ROWS[2]


@pytest.mark.parametrize(
    ("over", "status"), [("http", "422"), ("grpc", "StatusCode.INVALID_ARGUMENT")]
)
def test_an_error_says_what_is_wrong(found, over, status):
    assert found[over]["missing"].startswith(status)
    assert "'job'" in found[over]["missing"]
    assert "Did you mean 'income'?" in found[over]["unknown"]
