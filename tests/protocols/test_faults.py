"""
Whatever raises between a model and a reply, on any protocol: every caller is answered in time.

The points are found, not listed: a profile hook sees each function of clewline that is called
from the turn that forms a batch until the answers have left, and raises in one of them at a time.
"""

from __future__ import annotations

import asyncio
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

import grpc
import msgspec
import pytest
from support import PATIENCE_S, wait_for

import clewline
from clewline.protocols.http.health import ServerHealth
from clewline.protocols.http.host_check import HostCheck
from clewline.protocols.http.request import HttpLimits
from clewline.protocols.oip.grpc import OipGrpcServer
from clewline.protocols.oip.grpc_messages import CLASSES, SERVICE
from clewline.protocols.rest.routes import RestRoutes
from clewline.serve.access import TokenChecker
from clewline.serve.batcher import Batcher

SOURCE = str(Path(clewline.__file__).parent)
ROW: dict[str, Any] = {"age": 39, "hours": 40.5, "job": "nurse"}
ROWS = {"rows": [ROW] * 3}
PREDICT = "/v1/endpoints/income/predict"
JSON = "application/json"
TENSORS = [
    {"name": "age", "shape": [1], "datatype": "INT64", "data": [39]},
    {"name": "hours", "shape": [1], "datatype": "FP64", "data": [40.5]},
    {"name": "job", "shape": [1], "datatype": "BYTES", "data": ["nurse"]},
]
RAW = {"inputs": TENSORS, "parameters": {"binary_data_output": True}}
HTTP: dict[str, tuple[str, Any, dict[str, str]]] = {
    "rest": (PREDICT, ROW, {}),
    "rest, many rows": (PREDICT, {"rows": [ROW] * 700}, {}),
    "rest, keyed": (PREDICT, ROW, {"idempotency-key": "the same"}),
    "rest, csv": (PREDICT, ROWS, {"accept": "text/csv"}),
    "rest, stream": (PREDICT, {"rows": [ROW] * 700}, {"accept": "application/x-ndjson"}),
    "oip": ("/v2/models/income/infer", {"inputs": TENSORS}, {}),
    "oip, raw": ("/v2/models/income/infer", RAW, {}),
    "mlflow": ("/invocations", {"instances": [ROW]}, {}),
}
ENTRIES = {
    "Batcher._turn",
    "Batcher._compute_on_thread.<locals>.computed",
    "Batcher._log_calls.<locals>.settled",
    "HttpConnection._go_on",
    "Idempotency._look_up.<locals>.then",
    "PendingPrediction._read_on_thread",
    "run_on_thread.<locals>.finish",
}
"""Where the event loop calls us: nothing of ours is outside of these, to catch what they raise."""


class Injected(RuntimeError):
    """Raised on purpose."""


class Hook:
    """Sees the calls of clewline's functions on all threads of a server; raises in one of them."""

    def __init__(self) -> None:
        self.seen: dict[CodeType, None] = {}
        self.point: CodeType | None = None
        self.raised = threading.Event()
        self._is_answering = False

    def __call__(self, frame: FrameType, event: str, _: Any) -> None:
        code = frame.f_code
        if event != "call" or not code.co_filename.startswith(SOURCE):
            return
        if code is Batcher._turn.__code__:
            self._is_answering = True
        if self._is_answering:
            self.seen[code] = None
        if code is self.point:
            self.point = None
            self.raised.set()
            raise Injected(code.co_qualname)


class Faulty:
    """A server whose threads all have the hook, over HTTP and gRPC."""

    def __init__(self, up: Any, hook: Hook) -> None:
        self.up, self.hook = up, hook
        self.channel: grpc.Channel

    def arm(self, point: CodeType | None) -> None:
        """Have one function raise, once; a hook that has raised must be set again."""
        self.hook.point, self.hook._is_answering = None, False
        self.hook.raised.clear()
        threads = self.up.endpoints.threads
        together = threading.Barrier(threads._max_workers + 1)

        def prepare() -> None:
            sys.setprofile(self.hook)
            together.wait(PATIENCE_S)

        for _ in range(threads._max_workers):
            threads.submit(prepare)
        done = threading.Event()
        self.up._loop.call_soon_threadsafe(lambda: (sys.setprofile(self.hook), done.set()))
        assert done.wait(PATIENCE_S)
        together.wait(PATIENCE_S)
        self.hook.point = point

    def ask(self, protocol: str) -> bytes:
        """Ask, and return the answer; empty if the connection was ended without one."""
        if protocol == "grpc":
            call = self.channel.unary_unary(f"/{SERVICE}/ModelInfer")
            message = CLASSES["ModelInferRequest"](model_name="income")
            for tensor, place in zip(TENSORS, ("int64", "fp64", "bytes"), strict=True):
                one = message.inputs.add(
                    name=tensor["name"], datatype=tensor["datatype"], shape=[1]
                )
                data = [d.encode() if isinstance(d, str) else d for d in tensor["data"]]
                getattr(one.contents, f"{place}_contents").extend(data)
            try:
                return bytes(call(message.SerializeToString(), timeout=PATIENCE_S))
            except grpc.RpcError as error:
                if error.code() == grpc.StatusCode.DEADLINE_EXCEEDED:
                    raise TimeoutError from error
                return b"an error"
        path, body, headers = HTTP[protocol]
        data = msgspec.json.encode(body)
        named = {"host": "localhost", "content-type": JSON, "connection": "close"} | headers
        lines = "".join(f"{name}: {value}\r\n" for name, value in named.items())
        head = f"POST {path} HTTP/1.1\r\n{lines}content-length: {len(data)}\r\n\r\n"
        with socket.create_connection(("127.0.0.1", self.up.port), timeout=PATIENCE_S) as caller:
            caller.sendall(head.encode() + data)
            answer = b""
            try:
                while piece := caller.recv(1 << 20):
                    answer += piece
            except ConnectionResetError:
                pass
            return answer


@pytest.fixture
def faulty(loans: Any, up: Callable[..., Any]) -> Iterator[Faulty]:
    hook = Hook()
    server = Faulty(up(loans.project), hook)
    health = ServerHealth()
    ready = RestRoutes(server.up.endpoints, health).ready
    checker = TokenChecker(server.up.project, required=False)
    limits = HttpLimits(drain_s=5.0)
    served = OipGrpcServer(server.up.endpoints, checker, ready, health, HostCheck(), limits)

    async def start() -> int:
        port = served.listen("127.0.0.1", 0)
        await served.start()
        return port

    def run(what: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(what, server.up._loop).result(PATIENCE_S)

    server.channel = grpc.insecure_channel(f"127.0.0.1:{run(start())}")
    yield server
    server.arm(None)
    server.channel.close()
    run(served.drain())


@pytest.mark.parametrize("protocol", [*HTTP, "grpc"])
def test_whatever_raises_between_model_and_reply_every_caller_is_answered(
    faulty: Faulty, protocol: str, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(3):
        faulty.arm(None)
        assert faulty.ask(protocol)
    points = [each for each in faulty.hook.seen if each.co_qualname not in ENTRIES]
    assert len(points) > 15
    hung = []
    for point in points:
        faulty.arm(point)
        with ThreadPoolExecutor(3) as callers:  # they may share a batch
            asked = [callers.submit(faulty.ask, protocol) for _ in range(3)]
            for each in asked:
                try:
                    each.result(PATIENCE_S + 5)
                except TimeoutError:
                    hung.append(f"{point.co_filename[len(SOURCE) :]}:{point.co_qualname}")
        caplog.clear()
    assert not hung
    faulty.arm(None)
    assert faulty.ask(protocol)
    wait_for(lambda: not faulty.up.endpoints.under_way)
    assert faulty.up.endpoints.get("income").serving.batcher.rows == 0
