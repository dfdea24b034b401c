"""The Open Inference Protocol over gRPC: the answers and refusals of REST, in its own words."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from clewline.errors import BodyTooLarge
from clewline.protocols.http.access_log import AccessLog
from clewline.protocols.http.health import ServerHealth
from clewline.protocols.http.host_check import HostCheck
from clewline.protocols.http.request import HttpLimits
from clewline.protocols.oip.grpc import OipGrpcServer
from clewline.protocols.oip.grpc_messages import (
    CLASSES,
    MOST_ELEMENTS,
    SERVICE,
    read_inference,
)
from clewline.protocols.oip.infer_request import MOST_INPUTS, MOST_PARAMETERS
from clewline.protocols.oip.tensor_data import pack_strings
from clewline.protocols.rest.routes import RestRoutes
from clewline.serve.access import TokenChecker

TENSORS = (
    ("age", "INT64", "int64_contents", [39, 40]),
    ("hours", "FP64", "fp64_contents", [40.5, 1.0]),
    ("job", "BYTES", "bytes_contents", [b"nurse", b"smith"]),
)


class Calls:
    """gRPC on the loop of a running server, and a channel to it."""

    def __init__(
        self, up: Any, *, required: bool = False, pem: Any = None, log: AccessLog | None = None
    ) -> None:
        self.health = ServerHealth()
        self._loop = up._loop
        token_checker = TokenChecker(up.project, required=required)
        limits = HttpLimits(body_bytes=100_000, drain_s=5.0)
        ready = RestRoutes(up.endpoints, self.health).ready
        self.served = OipGrpcServer(
            up.endpoints, token_checker, ready, self.health, HostCheck(), limits, log
        )
        self.port = self.run(self._start(pem))
        address = f"127.0.0.1:{self.port}"
        self.channel = grpc.insecure_channel(address) if pem is None else trusting(address, pem)

    async def _start(self, pem: Any) -> int:
        port = self.served.listen("127.0.0.1", 0, certificate=pem)
        await self.served.start()
        return port

    def run(self, what: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(what, self._loop).result(20)

    def bytes(self, method: str, data: bytes, **options: Any) -> bytes:
        call = self.channel.unary_unary(f"/{SERVICE}/{method}")
        return call(data, timeout=options.pop("timeout", 20), **options)

    def __call__(self, method: str, message: Any = None, **options: Any) -> Any:
        request = b"" if message is None else message.SerializeToString()
        kind = CLASSES[f"{method}Response"]
        return kind.FromString(self.bytes(method, request, **options))

    def refused(self, method: str, message: Any = None, **options: Any) -> tuple[Any, str, str]:
        """Give the status, the message and the code of a refusal."""
        with pytest.raises(grpc.RpcError) as caught:
            self(method, message, **options)
        error = caught.value
        trailing = dict(error.trailing_metadata() or ())
        return error.code(), error.details(), trailing.get("clewline-code", "")

    def stop(self) -> None:
        self.channel.close()
        self.run(self.served.drain())


def trusting(address: str, pem: tuple[Path, Path]) -> grpc.Channel:
    """A channel over TLS that trusts one certificate."""
    credentials = grpc.ssl_channel_credentials(pem[0].read_bytes())
    # The certificate says localhost.
    return grpc.secure_channel(
        address, credentials, [("grpc.ssl_target_name_override", "localhost")]
    )


@pytest.fixture(scope="module")
def calls(income: Any) -> Iterator[Calls]:
    started = Calls(income)
    yield started
    started.stop()


def request(*, raw: bool = False, **more: Any) -> Any:
    made = CLASSES["ModelInferRequest"](model_name="income", **more)
    for name, datatype, place, elements in TENSORS:
        tensor = made.inputs.add(name=name, datatype=datatype, shape=[2])
        if not raw:
            getattr(tensor.contents, place).extend(elements)
        elif datatype == "BYTES":
            made.raw_input_contents.append(pack_strings(elements))
        else:
            made.raw_input_contents.append(np.array(elements).tobytes())
    return made


def named(name: str, kind: str = "ModelReadyRequest", **more: Any) -> Any:
    return CLASSES[kind](name=name, **more)


def test_the_server_and_a_model_are_described(calls, income):
    assert calls("ServerLive").live
    assert calls("ServerReady").ready
    assert "model_repository" in calls("ServerMetadata").extensions
    assert calls("ModelReady", named("income", version="1")).ready
    found = calls("ModelMetadata", named("income", "ModelMetadataRequest"))
    shown = income.ask("GET", "/v2/models/income")[1]
    for ours, theirs in ((found.inputs, shown["inputs"]), (found.outputs, shown["outputs"])):
        assert [(t.name, t.datatype, list(t.shape)) for t in ours] == [
            (t["name"], t["datatype"], t["shape"]) for t in theirs
        ]


def test_typed_and_raw_contents_are_answered_alike_each_in_its_way(calls, income):
    typed, raw = calls("ModelInfer", request(id="q")), calls("ModelInfer", request(raw=True))
    assert (typed.id, raw.id, typed.model_version) == ("q", "", "1")
    rows = [{"age": a, "hours": h, "job": j} for a, h, j in ((39, 40.5, "nurse"), (40, 1, "smith"))]
    native = income.predict({"rows": rows})[1]["predictions"]
    labels, shares = (tensor.contents for tensor in typed.outputs)
    assert list(labels.bytes_contents) == [each["label"].encode() for each in native]
    assert list(shares.fp64_contents) == [x for e in native for x in e["probabilities"].values()]
    assert raw.raw_output_contents[0] == pack_strings(labels.bytes_contents)
    assert np.frombuffer(raw.raw_output_contents[1]).tolist() == list(shares.fp64_contents)
    assert typed.parameters["revision"].string_param == "income#1"


def test_a_prediction_is_logged_as_rows_that_anybody_can_read(calls, income):
    asked = request()
    asked.parameters["entities"].string_param = '["c-1","c-2"]'
    said = calls("ModelInfer", asked).parameters["prediction_ids"].string_param
    logged = income.ask("GET", f"/v1/predictions/{said.split(',')[1]}")[1]
    assert logged["row"] == {"age": 40, "hours": 1.0, "job": "smith"}
    assert logged["entity"] == "c-2"


def test_a_key_in_the_metadata_gets_the_first_answer_again(calls):
    metadata = (("idempotency-key", "grpc-once"),)
    first = calls("ModelInfer", request(), metadata=metadata)
    assert calls("ModelInfer", request(), metadata=metadata) == first


def test_raw_contents_beside_typed_ones_are_refused(calls):
    mixed = request()
    mixed.raw_input_contents.append(b"")
    status, message, code = calls.refused("ModelInfer", mixed)
    assert (status, code) == (grpc.StatusCode.INVALID_ARGUMENT, "malformed_input")
    assert "1 raw contents for 3 inputs" in message


@pytest.mark.parametrize(
    ("datatype", "place", "said"),
    [
        ("INT64", "fp64_contents", "fp64_contents for 'INT64'"),
        ("FP16", "fp32_contents", "for 'FP16'"),
        ("NONE", "fp32_contents", "for 'NONE'"),
    ],
)
def test_typed_contents_in_another_place_are_refused(calls, datatype, place, said):
    asked = request()
    asked.inputs[0].datatype = datatype
    asked.inputs[0].ClearField("contents")
    getattr(asked.inputs[0].contents, place).extend([1, 2])
    status, message, _ = calls.refused("ModelInfer", asked)
    assert status is grpc.StatusCode.INVALID_ARGUMENT
    assert said in message


def test_an_integer_that_its_datatype_does_not_hold_is_refused(calls):
    asked = request()
    asked.inputs[0].datatype = "INT8"
    asked.inputs[0].ClearField("contents")
    asked.inputs[0].contents.int_contents.extend([1, 300])
    assert "INT8 does not hold" in calls.refused("ModelInfer", asked)[1]


def test_errors_have_the_statuses_of_one_table(calls):
    codes = grpc.StatusCode
    assert calls.refused("ModelReady", named("incom"))[::2] == (codes.NOT_FOUND, "not_found")
    version = named("income", "ModelMetadataRequest", version="9")
    assert "the live one is 1" in calls.refused("ModelMetadata", version)[1]
    short = request()
    del short.inputs[0]
    assert calls.refused("ModelInfer", short)[::2] == (codes.INVALID_ARGUMENT, "invalid_input")
    large = request()
    large.inputs[2].contents.bytes_contents.append(b"x" * 200_000)
    assert calls.refused("ModelInfer", large)[0] is codes.RESOURCE_EXHAUSTED
    config = CLASSES["RepositoryModelLoadRequest"](model_name="income")
    config.parameters["config"].string_param = "{}"
    assert calls.refused("RepositoryModelLoad", config)[0] is codes.UNIMPLEMENTED
    with pytest.raises(grpc.RpcError) as caught:
        calls.bytes("ModelConfig", b"")
    assert caught.value.code() is codes.UNIMPLEMENTED


def test_a_time_that_is_over_is_told(calls):
    late = request()
    late.parameters["timeout"].int64_param = 1  # microsecond
    status, _, code = calls.refused("ModelInfer", late)
    assert (status, code) == (grpc.StatusCode.DEADLINE_EXCEEDED, "deadline_exceeded")


def test_a_model_is_unloaded_and_loaded_by_its_name(loans, up):
    calls = Calls(up(loans.project))
    try:
        move = CLASSES["RepositoryModelUnloadRequest"](model_name="income")
        calls("RepositoryModelUnload", move)
        (listed,) = calls("RepositoryIndex").models
        assert (listed.name, listed.state) == ("income", "UNAVAILABLE")
        assert not calls("ModelReady", named("income")).ready
        assert calls.refused("ModelInfer", request())[0] is grpc.StatusCode.NOT_FOUND
        calls("RepositoryModelLoad", move)
        assert calls("ModelInfer", request()).model_version == "1"
    finally:
        calls.stop()


def test_tokens_guard_all_but_health(income):
    calls = Calls(income, required=True)
    try:
        assert calls("ServerLive").live
        assert calls("ServerReady").ready
        for method in ("ServerMetadata", "ModelInfer", "RepositoryModelUnload", "RepositoryIndex"):
            status, _, code = calls.refused(method)
            assert (status, code) == (grpc.StatusCode.UNAUTHENTICATED, "unauthorized")
        wrong = (("authorization", "Bearer cl_000000000000_nonsense"),)
        assert calls.refused("ModelInfer", request(), metadata=wrong)[2] == "unauthorized"
        assert calls.health.statuses["oip.grpc.ModelInfer", 401] == 2
    finally:
        calls.stop()


def test_a_page_of_another_site_is_refused(calls):
    for metadata in ((("origin", "https://evil.example"),), (("sec-fetch-site", "cross-site"),)):
        for method in ("ServerLive", "ModelInfer", "RepositoryModelUnload"):
            status, _, code = calls.refused(method, metadata=metadata)
            assert (status, code) == (grpc.StatusCode.PERMISSION_DENIED, "cross_site")
    assert calls("ModelInfer", request()).model_version == "1"


def test_over_tls_callers_are_answered_and_clear_text_is_not(income, pem, pem_in, tmp_path):
    calls = Calls(income, pem=pem)
    address = f"127.0.0.1:{calls.port}"
    try:
        assert calls("ModelInfer", request()).model_version == "1"
        stranger = pem_in(tmp_path)
        for channel in (grpc.insecure_channel(address), trusting(address, stranger)):
            live = channel.unary_unary(f"/{SERVICE}/ServerLive")
            with pytest.raises(grpc.RpcError) as caught:
                live(b"", timeout=5)
            assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
            channel.close()
        with socket.create_connection(("127.0.0.1", calls.port)) as clear:
            clear.sendall(b"POST / HTTP/1.1\r\nhost: x\r\n\r\n" + bytes(range(256)))
            clear.settimeout(10)
            while clear.recv(4096):
                continue  # an alert, perhaps, and the end
        assert calls("ModelInfer", request()).model_version == "1"
    finally:
        calls.stop()


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_message_with_bytes_changed_never_fails_the_server(calls, data):
    changed = bytearray(request(raw=data.draw(st.booleans()), id="q").SerializeToString())
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(changed) - 1))
        changed[place : place + data.draw(st.integers(0, 2))] = data.draw(st.binary(max_size=2))
    assert outcome(calls, bytes(changed)) in (
        grpc.StatusCode.OK,
        grpc.StatusCode.INVALID_ARGUMENT,
        grpc.StatusCode.NOT_FOUND,
        grpc.StatusCode.UNIMPLEMENTED,
    )


def outcome(calls: Calls, data: bytes) -> grpc.StatusCode:
    try:
        CLASSES["ModelInferResponse"].FromString(calls.bytes("ModelInfer", data))
    except grpc.RpcError as error:
        return error.code()
    return grpc.StatusCode.OK


def test_calls_leave_lines_in_the_access_log(income: Any, tmp_path: Path) -> None:
    log = AccessLog(str(tmp_path / "access.log"))
    calls = Calls(income, log=log)
    answer = calls("ModelInfer", request())
    unknown = request()
    unknown.model_name = "nobody"
    calls.refused("ModelInfer", unknown)
    calls.stop()
    log.close()
    first, second = map(json.loads, (tmp_path / "access.log").read_text().splitlines())
    assert (first["route"], first["status"]) == ("oip.grpc.ModelInfer", 200)
    assert (first["endpoint"], first["rows"], first["peer"]) == ("income", 2, "127.0.0.1")
    assert first["path"] == f"/{SERVICE}/ModelInfer"
    assert first["bytes"] == len(answer.SerializeToString())
    assert first["first_id"]
    assert (second["status"], second.get("rows")) == (404, None)


def test_the_trace_of_a_call_comes_from_its_metadata(calls: Calls, income: Any) -> None:
    carriers = []

    class Tracer:
        def follow(self, endpoint: str, ask: Any, reply: Any) -> Any:
            carriers.append(ask.trace)
            return reply

    parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    income.endpoints.tracer = Tracer()
    try:
        calls("ModelInfer", request(), metadata=(("traceparent", parent),))
    finally:
        income.endpoints.tracer = None
    assert carriers == [{"traceparent": parent}]


def test_more_inputs_parameters_or_elements_than_a_request_may_have_are_refused():
    many = CLASSES["ModelInferRequest"](model_name="income")
    for _ in range(MOST_INPUTS + 1):
        many.inputs.add(datatype="BOOL")
    keyed = CLASSES["ModelInferRequest"](model_name="income")
    for number in range(MOST_PARAMETERS + 1):
        keyed.parameters[str(number)].bool_param = True
    typed = CLASSES["ModelInferRequest"](model_name="income")
    contents = typed.inputs.add(datatype="BOOL").contents
    contents.bool_contents.extend([True] * (MOST_ELEMENTS + 1))
    for message, wanted in ((many, "inputs"), (keyed, "parameters"), (typed, "elements")):
        with pytest.raises(BodyTooLarge, match=wanted):
            read_inference(message.SerializeToString())
