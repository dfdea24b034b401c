"""The Open Inference Protocol over REST: what it describes, answers and refuses."""

from __future__ import annotations

import gzip
import http.client
import struct
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from clewline.protocols.oip.grpc import CODES
from clewline.protocols.oip.grpc_messages import CLASSES
from clewline.serve.prediction_replay import replay_prediction

INFER = "/v2/models/income/infer"
INPUTS = [
    {"name": "age", "datatype": "INT64", "shape": [2], "data": [39, 120]},
    {"name": "hours", "datatype": "FP64", "shape": [2, 1], "data": [[40.5], [1]]},
    {"name": "job", "datatype": "BYTES", "shape": [2], "data": ["nurse", None]},
]
ROWS = [{"age": 39, "hours": 40.5, "job": "nurse"}, {"age": 120, "hours": 1, "job": None}]


def infer(up: Any, path: str = INFER, **asked: Any) -> tuple[int, Any]:
    body = msgspec.json.encode({"inputs": INPUTS} | asked)
    status, answer, _ = up.ask("POST", path, body)
    return status, answer


def raw_request(**parameters: Any) -> tuple[bytes, int]:
    raws = [
        np.array([39, 40], "<i8").tobytes(),
        np.array([40.5, 1], "<f8").tobytes(),
        b"".join(struct.pack("<I", len(x)) + x for x in (b"nurse", b"smith")),
    ]
    inputs = [
        {"name": each["name"], "datatype": each["datatype"], "shape": [2]}
        | {"parameters": {"binary_data_size": len(raw)}}
        for each, raw in zip(INPUTS, raws, strict=True)
    ]
    header = msgspec.json.encode({"inputs": inputs, "parameters": parameters})
    return header + b"".join(raws), len(header)


def raw_ask(up: Any, body: bytes, length: int | str, **more: str) -> tuple[int, bytes, Any]:
    connection = http.client.HTTPConnection("127.0.0.1", up.port, timeout=20)
    try:
        headers = {"Inference-Header-Content-Length": str(length)} | more
        connection.request("POST", INFER, body, headers)
        answer = connection.getresponse()
        return answer.status, answer.read(), answer.headers
    finally:
        connection.close()


def test_an_endpoint_is_described_as_a_model_of_tensors(income):
    status, answer, _ = income.ask("GET", "/v2/models/income")
    assert status == 200
    assert (answer["name"], answer["versions"], answer["platform"]) == ("income", ["1"], "clewline")
    inputs = {each["name"]: (each["datatype"], each["shape"]) for each in answer["inputs"]}
    assert inputs == {"age": ("INT64", [-1]), "hours": ("FP64", [-1]), "job": ("BYTES", [-1])}
    outputs = {each["name"]: (each["datatype"], each["shape"]) for each in answer["outputs"]}
    assert outputs == {"label": ("BYTES", [-1]), "probabilities": ("FP64", [-1, 2])}
    assert income.ask("GET", "/v2/models/income/versions/1")[1] == answer


def test_a_server_and_its_health_are_described(income):
    assert income.ask("GET", "/v2")[1]["extensions"] == [
        "binary_tensor_data", "model_repository", "parameters",
    ]  # fmt: skip
    assert income.ask("GET", "/v2/health/live")[:2] == (200, {"live": True})
    assert income.ask("GET", "/v2/health/ready")[1]["ready"] is True
    for path in ("/v2/models/income/ready", "/v2/models/income/versions/1/ready"):
        assert income.ask("GET", path)[:2] == (200, {"name": "income", "ready": True})


@pytest.mark.parametrize("path", [INFER, "/v2/models/income/versions/1/infer"])
def test_an_inference_answers_what_native_rest_answers(income, path):
    status, answer = infer(income, path, id="seven")
    native = income.predict({"rows": ROWS})[1]
    assert status == 200
    assert (answer["model_name"], answer["model_version"], answer["id"]) == ("income", "1", "seven")
    label, probabilities = answer["outputs"]
    assert label["data"] == [each["label"] for each in native["predictions"]]
    assert probabilities["shape"] == [2, 2]
    assert probabilities["data"] == [
        share for each in native["predictions"] for share in each["probabilities"].values()
    ]
    said = answer["parameters"]
    assert (said["revision"], said["model"]) == ("income#1", "income@1")
    assert msgspec.json.decode(said["flags"])[0]["row"] == 1
    first = said["prediction_ids"].split(",")[0]
    logged = income.ask("GET", f"/v1/predictions/{first}")[1]
    assert logged["row"] == ROWS[0]


def test_raw_tensors_are_answered_raw_where_that_is_asked(income):
    body, length = raw_request(binary_data_output=True)
    status, answer, headers = raw_ask(income, body, length)
    assert status == 200
    size = int(headers["Inference-Header-Content-Length"])
    said = msgspec.json.decode(answer[:size])
    sizes = [each["parameters"]["binary_data_size"] for each in said["outputs"]]
    assert sum(sizes) == len(answer) - size
    probabilities = np.frombuffer(answer, "<f8", 4, size + sizes[0]).reshape(2, 2)
    assert probabilities.sum(axis=1) == pytest.approx([1, 1])
    body, length = raw_request()
    plain = msgspec.json.decode(raw_ask(income, body, length)[1])
    assert plain["outputs"][1]["data"] == probabilities.ravel().tolist()


def test_a_compressed_body_is_read(income):
    body, length = raw_request()
    status, answer, _ = raw_ask(income, gzip.compress(body), length, **{"content-encoding": "gzip"})
    assert status == 200
    assert len(msgspec.json.decode(answer)["outputs"]) == 2


@pytest.mark.parametrize("is_raw", [False, True])
def test_a_prediction_is_replayed_from_its_tensors_bit_for_bit(income, is_raw):
    if is_raw:
        body, length = raw_request()
        answer = msgspec.json.decode(raw_ask(income, body, length)[1])
    else:
        answer = infer(income)[1]
    last = answer["parameters"]["prediction_ids"].split(",")[1]
    again = replay_prediction(income.project, last)
    assert again.equal
    assert msgspec.json.decode(again.input)["age"] == (40 if is_raw else 120)


def test_only_the_outputs_that_are_asked_for_come_in_that_order(income):
    answer = infer(income, outputs=[{"name": "probabilities"}, {"name": "label"}])[1]
    assert [each["name"] for each in answer["outputs"]] == ["probabilities", "label"]
    status, answer = infer(income, outputs=[{"name": "labels"}])
    assert (status, answer["code"]) == (422, "invalid_input")
    assert "did you mean 'label'?" in answer["error"]
    wanted = [{"name": "label", "parameters": {"classification": 2}}]
    assert infer(income, outputs=wanted)[0] == 501


def test_a_key_among_the_parameters_gets_the_first_answer_again(income):
    first = infer(income, parameters={"idempotency_key": "once"})[1]["parameters"]
    assert infer(income, parameters={"idempotency_key": "once"})[1]["parameters"] == first
    assert infer(income, parameters={"idempotency_key": 3})[0] == 400


def test_an_entity_is_logged_with_its_row(income):
    answer = infer(income, parameters={"entities": ["c-1", "c-2"]})[1]
    last = answer["parameters"]["prediction_ids"].split(",")[1]
    assert income.ask("GET", f"/v1/predictions/{last}")[1]["entity"] == "c-2"


@pytest.mark.parametrize("parameters", [{"timeout": "soon"}, {"timeout_ms": -1}, {"timeout": True}])
def test_a_timeout_that_is_none_is_refused(income, parameters):
    assert infer(income, parameters=parameters)[0] == 400
    assert infer(income, parameters={"timeout": 0, "timeout_ms": 10_000})[0] == 200


@pytest.mark.parametrize(
    ("method", "path", "status", "said"),
    [
        ("GET", "/v2/models/incom", 404, "'income'"),
        ("GET", "/v2/models/income/versions/7", 404, "the live one is 1"),
        ("POST", "/v2/models/income/versions/x/infer", 404, "the live one is 1"),
        ("GET", "/v2/models/income/versions/7/ready", 404, "the live one is 1"),
        ("GET", "/v2/models/income/nothing", 404, "nothing at"),
        ("GET", "/v2/models/income/versions/1/ready/more", 404, "nothing at"),
        ("GET", "/v2/models/", 404, "nothing at"),
        ("GET", INFER, 405, "Use POST"),
        ("POST", "/v2/models/income", 405, "Use GET"),
        ("POST", INFER, 400, "empty"),
        ("POST", "/v2/repository/models/incom/load", 404, "'income'"),
        ("POST", "/v2/repository/models/income/dance", 404, "nothing at"),
    ],
)
def test_an_error_is_a_text_under_error(income, method, path, status, said):
    found, answer, _ = income.ask(method, path, b"" if method == "POST" else None)
    assert found == status
    assert said in answer["error"]


def test_every_refused_value_is_named_beside_the_error(income):
    inputs = [dict(INPUTS[0], data=[1.5, 2**53 + 1]), *INPUTS[1:]]
    status, answer = infer(income, inputs=inputs)
    assert (status, answer["code"]) == (422, "invalid_input")
    assert [(each["row"], each["field"]) for each in answer["fields"]] == [(0, "age"), (1, "age")]


def test_a_model_is_unloaded_and_loaded_by_its_name(loans, up):
    server = up(loans.project)
    index = "/v2/repository/index"
    assert server.ask("POST", index, b"")[1][0]["state"] == "READY"
    move = "/v2/repository/models/income/"
    assert server.ask("POST", move + "unload", b"{}")[0] == 200
    (listed,) = server.ask("POST", index, b"")[1]
    assert (listed["state"], listed["reason"]) == ("UNAVAILABLE", "unloaded")
    assert server.ask("POST", index, b'{"ready":true}')[1] == []
    assert infer(server)[0] == 404
    assert server.ask("GET", "/v2/models/income/ready")[0] == 404
    assert server.ask("POST", move + "load", b'{"parameters":{"config":"{}"}}')[0] == 501
    assert server.ask("POST", move + "load", b"[]")[0] == 400
    assert server.ask("POST", move + "load", b"")[0] == 200
    assert infer(server)[0] == 200


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_body_with_bytes_changed_never_fails_the_server(income, data):
    body, length = raw_request(binary_data_output=True)
    changed = bytearray(body)
    for _ in range(data.draw(st.integers(0, 3))):
        place = data.draw(st.integers(0, len(changed) - 1))
        changed[place : place + data.draw(st.integers(0, 2))] = data.draw(st.binary(max_size=2))
    length = data.draw(st.just(length) | st.integers(-1, 400))
    status, answer, _ = raw_ask(income, bytes(changed), length)
    assert status in (200, 400, 413, 422, 501)
    if status != 200:
        assert isinstance(msgspec.json.decode(answer)["error"], str)


def test_every_route_and_every_status_of_grpc_is_documented():
    text = (Path(__file__).parents[3] / "docs" / "oip.md").read_text()
    for name in CLASSES:
        if name.endswith("Request"):
            assert f"`{name.removesuffix('Request')}`" in text
    for status, code in CODES.items():
        line = next(line for line in text.splitlines() if line.endswith(f"| `{code.name}` |"))
        assert str(status) in line


def test_a_large_request_and_its_answer_are_worked_on_elsewhere_with_the_same_outcome(income):
    rows = 9_000
    inputs = [
        {"name": "age", "datatype": "INT64", "shape": [rows], "data": [39] * rows},
        {"name": "hours", "datatype": "FP64", "shape": [rows], "data": [40.5] * rows},
        {"name": "job", "datatype": "BYTES", "shape": [rows], "data": ["nurse"] * rows},
    ]
    status, answer = infer(income, inputs=inputs)
    assert status == 200
    small = infer(
        income, inputs=[each | {"shape": [1], "data": each["data"][:1]} for each in inputs]
    )
    for large, one in zip(answer["outputs"], small[1]["outputs"], strict=True):
        assert large["data"] == one["data"] * rows
    assert infer(income, inputs=inputs, outputs=[{"name": "labels"}])[0] == 422
    inputs[1]["data"][8_999] = "x"
    status, answer = infer(income, inputs=inputs)
    assert (status, answer["fields"][0]["row"]) == (422, 8_999)
