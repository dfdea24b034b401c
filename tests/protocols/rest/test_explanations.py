"""A server explains logged predictions, in a process of its own."""

from __future__ import annotations

import http.client
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import msgspec
import pytest
from support import wait_for

from clewline.explain.requests import WAITING
from clewline.serve import revision
from clewline.serve.endpoint_file import parse_endpoint
from clewline.store.store import Store

ROW = {"age": 39, "hours": 40.5, "job": "nurse"}
UNKNOWN = "01a1fc0f-da59-7789-becf-2d0773e288df"
INPUTS = [
    {"name": "age", "datatype": "INT64", "shape": [2], "data": [39, 80]},
    {"name": "hours", "datatype": "FP64", "shape": [2], "data": [40.5, 1]},
    {"name": "job", "datatype": "BYTES", "shape": [2], "data": ["nurse", None]},
]


def explain(server: Any, prediction: str, body: Any = None, **headers: str) -> tuple[int, Any]:
    data = b"" if body is None else msgspec.json.encode(body)
    status, answer, _ = server.ask("POST", f"/v1/predictions/{prediction}/explain", data, **headers)
    return status, answer


@pytest.fixture(scope="module")
def predicted(income) -> str:
    return str(income.predict(ROW)[1]["predictions"][0]["id"])


def test_a_prediction_is_explained(income, predicted):
    status, found = explain(income, predicted, {"kind": "attributions"})
    assert status == 200
    assert found["prediction"] == predicted
    assert found["model"] == "income@1"
    assert {each["field"] for each in found["fields"]} == {"age", "hours", "job"}
    total = found["base"] + sum(each["attribution"] for each in found["fields"])
    assert total == pytest.approx(found["total"])


def test_the_same_request_has_the_same_bytes(income, predicted):
    asked = {"kind": "counterfactuals", "options": {"count": 1, "keep": ["job"]}}
    first, second = (explain(income, predicted, asked) for _ in range(2))
    assert first == second
    assert first[1]["terms"]["keep"] == ["job"]


def test_stored_explanations_are_listed(income):
    id_ = income.predict(ROW)[1]["predictions"][0]["id"]
    path = f"/v1/predictions/{id_}/explanations"
    assert income.ask("GET", path)[1] == {"explanations": [], "failed": []}
    status, first = explain(income, id_)
    assert status == 200
    assert explain(income, id_, {"fresh": True}) == (200, first)
    explain(income, id_, {"kind": "counterfactuals"})
    found = income.ask("GET", path)[1]["explanations"]
    assert [each["kind"] for each in found] == [first["kind"], "counterfactuals"]
    assert found[0]["explanation"] == first
    assert income.ask("GET", f"/v1/predictions/{UNKNOWN}/explanations")[0] == 404
    assert income.ask("GET", "/v1/predictions/x/explanations")[0] == 404


@pytest.mark.parametrize(
    ("prediction", "body", "status", "says"),
    [
        (UNKNOWN, None, 404, "No prediction"),
        ("x", None, 404, "not a prediction id"),
        (None, {"kind": "attribution"}, 501, "attributions"),
        (None, {"kind": "attributions", "options": {"budgt": 1}}, 422, "budget"),
        (None, {"kind": "counterfactuals", "options": {"count": 0}}, 422, "count"),
        (None, {"kind": 4}, 400, "kind"),
        (None, {"knd": "anchors"}, 400, "knd"),
        (None, {"options": {"to": "x" * 20_000}}, 413, "limit"),
    ],
)
def test_what_cannot_be_explained_is_refused(income, predicted, prediction, body, status, says):
    found = explain(income, prediction or predicted, body)
    assert found[0] == status
    assert says in found[1]["error"]["message"]


def test_a_caller_who_does_not_wait_is_told_that_it_is_still_being_computed(income, predicted):
    status, answer = explain(income, predicted, **{"timeout-ms": "0.001"})
    assert status == 504
    assert "Ask again" in answer["error"]["message"]
    assert explain(income, predicted)[0] == 200


def test_more_requests_than_may_wait_are_answered_or_refused_at_once(income, predicted):
    def ask(number: int) -> list[int]:
        connection = http.client.HTTPConnection("127.0.0.1", income.port, timeout=120)
        statuses = []
        for _ in range(20):
            connection.request("POST", f"/v1/predictions/{predicted}/explain")
            answer = connection.getresponse()
            answer.read()
            statuses.append(answer.status)
            assert answer.status == 200 or answer.headers["retry-after"] == "1"
        connection.close()
        return statuses

    with ThreadPoolExecutor(100) as threads:
        found = [status for each in threads.map(ask, range(100)) for status in each]
    assert set(found) == {200, 503}
    assert found.count(200) >= WAITING
    assert income.predict(ROW)[0] == 200


def test_rows_are_predicted_logged_and_explained_over_the_open_inference_protocol(income):
    body = {"id": "7", "inputs": INPUTS, "parameters": {"kind": "attributions"}}
    status, answer, _ = income.ask("POST", "/v2/models/income/explain", msgspec.json.encode(body))
    assert status == 200, answer
    assert (answer["id"], answer["model_name"], answer["model_version"]) == ("7", "income", "1")
    output = answer["outputs"][0]
    assert (output["name"], output["datatype"], output["shape"]) == ("explanation", "BYTES", [2])
    found = [msgspec.json.decode(each) for each in output["data"]]
    assert [each["label"] for each in found] == ["<=50K", ">50K"]
    ids = answer["parameters"]["prediction_ids"].split(",")
    assert [each["prediction"] for each in found] == ids
    assert income.ask("GET", f"/v1/predictions/{ids[1]}")[1]["row"]["age"] == 80


def test_a_logged_prediction_is_explained_over_the_open_inference_protocol(income, predicted):
    parameters = {"prediction": predicted, "kind": "counterfactuals", "options": '{"count": 1}'}
    body = msgspec.json.encode({"parameters": parameters})
    status, answer, _ = income.ask("POST", "/v2/models/income/versions/1/explain", body)
    assert status == 200, answer
    found = msgspec.json.decode(answer["outputs"][0]["data"][0])
    asked = {"kind": "counterfactuals", "options": {"count": 1}}
    assert found == explain(income, predicted, asked)[1]


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"inputs": [INPUTS[0] | {"shape": [17], "data": [1] * 17}]}, 413),
        ({"inputs": INPUTS[:1]}, 422),
        ({"inputs": INPUTS, "parameters": {"kind": 5}}, 400),
        ({"inputs": INPUTS, "parameters": {"options": "{"}}, 400),
        ({"parameters": {"prediction": UNKNOWN}}, 404),
        ({"parameters": {"prediction": "x"}}, 404),
    ],
)
def test_the_open_inference_protocol_refuses_in_its_own_shape(income, body, status):
    found = income.ask("POST", "/v2/models/income/explain", msgspec.json.encode(body))
    assert found[0] == status, found[1]
    assert isinstance(found[1]["error"], str)


def test_predictions_that_a_rule_matches_are_explained_by_themselves(income):
    text = b"endpoint: watched\nmodel: income@1\n"
    text += b'explain: {kind: counterfactuals, count: 1, when: "age > 60"}\n'
    with Store.open(income.project.store_root) as store:
        revision.apply(income.project, store, parse_endpoint(text, Path("endpoints/watched.yaml")))
    wait_for(lambda: income.ask("GET", "/v1/endpoints/watched")[0] == 200)
    answer = income.predict({"rows": [ROW, ROW | {"age": 80}]}, "watched")[1]
    young, old = (each["id"] for each in answer["predictions"])

    def stored(prediction: str) -> list[Any]:
        path = f"/v1/predictions/{prediction}/explanations"
        return income.ask("GET", path)[1]["explanations"]

    wait_for(lambda: stored(old))
    assert [each["kind"] for each in stored(old)] == ["counterfactuals"]
    assert stored(young) == []
    labels = 'trigger="background",kind="counterfactuals",outcome="made"'
    counted = f"clewline_explanations_total{{{labels}}} 1.0"
    wait_for(lambda: counted in income.ask("GET", "/metrics")[1])  # it is counted once it is kept


def test_the_routes_are_described_and_counted(income, predicted):
    explain(income, predicted)
    paths = income.ask("GET", "/openapi.json")[1]["paths"]
    assert "post" in paths["/v1/predictions/{id}/explain"]
    assert "post" in paths["/v2/models/{name}/explain"]
    text = income.ask("GET", "/metrics")[1]
    labels = 'trigger="request",kind="attributions",outcome="made"'
    assert f"clewline_explanations_total{{{labels}}}" in text
    assert "clewline_explain_requests_waiting 0.0" in text
