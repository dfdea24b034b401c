"""MLflow's scoring protocol: callers of an MLflow server change the address alone."""

from __future__ import annotations

import gzip
import io
from typing import Any

import msgspec
import polars as pl
import pytest
import zstandard
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support import wait_for

from clewline.errors import Fault
from clewline.protocols.http.error_responses import STATUS
from clewline.protocols.http.health import ServerHealth
from clewline.protocols.mlflow.scoring import ERROR_CODES, MlflowRoutes, write_answer
from clewline.protocols.rest.routes import RestRoutes
from clewline.serve.prediction_replay import replay_prediction
from clewline.serve.request.predict_request import PredictResponse

INVOCATIONS = "/invocations"
JSON = {"Content-Type": "application/json"}
COLUMNS = ["age", "hours", "job"]
DATA = [[39, 40.5, "nurse"], [120, 1, None]]
ROWS = [dict(zip(COLUMNS, row, strict=True)) for row in DATA]


def invoke(up: Any, body: Any, path: str = INVOCATIONS, **headers: str) -> tuple[int, Any]:
    data = body if isinstance(body, bytes) else msgspec.json.encode(body)
    named = JSON | {name.replace("_", "-"): value for name, value in headers.items()}
    status, answer, _ = up.ask("POST", path, data, **named)
    return status, answer


def test_every_way_to_send_rows_gets_the_labels_of_native_rest(income):
    wanted = [each["label"] for each in income.predict({"rows": ROWS})[1]["predictions"]]
    columns = {name: [row[name] for row in ROWS] for name in COLUMNS}
    for sent in (
        {"dataframe_split": {"columns": COLUMNS, "index": [0, 1], "data": DATA}},
        {"dataframe_split": {"columns": COLUMNS[::-1], "data": [row[::-1] for row in DATA]}},
        {"dataframe_records": ROWS},
        {"instances": ROWS},
        {"inputs": columns},
        {"inputs": DATA},
        {"inputs": columns, "params": {"temperature": 0}},
    ):
        status, answer = invoke(income, sent)
        assert status == 200, answer
        assert answer["predictions"] == wanted


def test_an_answer_carries_ids_that_lead_to_the_log_and_what_was_flagged(income):
    answer = invoke(income, {"dataframe_records": ROWS, "entities": ["c-1", "c-2"]})[1]
    assert answer["revision"] == "income#1"
    assert answer["model"] == "income@1"
    assert [(flag["row"], flag["field"]) for flag in answer["flags"]] == [(1, "age")]
    shown = income.ask("GET", f"/v1/predictions/{answer['prediction_ids'][1]}")[1]
    assert shown["row"] == ROWS[1]
    assert shown["entity"] == "c-2"


def test_a_prediction_is_replayed_from_the_body_as_it_came(income):
    body = (
        b'{"dataframe_split": {"columns": ["job", "x", "age", "hours"], "data": [[NaN,[],39.0,1]]}}'
    )
    answer = invoke(income, body)[1]
    assert replay_prediction(income.project, answer["prediction_ids"][0]).equal


def test_a_table_of_columns_alone_is_read_by_its_order(income):
    wanted = invoke(income, {"dataframe_records": ROWS})[1]["predictions"]
    split = {"columns": [0, 1, 2], "data": DATA}
    assert invoke(income, {"dataframe_split": split})[1]["predictions"] == wanted


@pytest.mark.parametrize(
    "body",
    [
        b"[]",
        b"{}",
        b"{",
        b"\xff",
        {"instances": ROWS, "inputs": ROWS},
        {"params": {}},
        {"dataframe_split": {"columns": COLUMNS, "data": []}},
        {"dataframe_split": {"columns": COLUMNS, "data": [[1]]}},
        {"dataframe_split": {"columns": ["age", "age", "job"], "data": DATA}},
        {"dataframe_split": {"columns": COLUMNS, "data": DATA, "rows": 2}},
        {"dataframe_records": {"age": [1]}},
        {"inputs": {"age": [1, 2], "hours": [1], "job": ["nurse"]}},
        {"dataframe_records": ROWS, "entities": ["one"]},
    ],
)
def test_a_body_of_another_shape_is_refused_with_the_code_of_mlflow_and_ours(income, body):
    status, answer = invoke(income, body)
    assert status == 400, answer
    assert answer["error_code"] == "BAD_REQUEST"
    assert answer["error"]["code"] == "malformed_input"
    assert answer["message"] == answer["error"]["message"]


def test_rows_that_the_signature_refuses_are_named(income):
    table = {"columns": ["age", "houers", "job"], "data": [["x", 1, "nurse"]]}
    status, answer = invoke(income, {"dataframe_split": table})
    assert (status, answer["error_code"]) == (422, "INVALID_PARAMETER_VALUE")
    problems = {each["field"]: each["expected"] for each in answer["error"]["fields"]}
    assert problems["age"] == "integer"
    assert problems["hours"].endswith("the field is missing")
    assert problems["houers"] == "no such field; did you mean 'hours'?"


@pytest.mark.parametrize(
    "kind", ["text/plain", "", "application/json; charset=latin-1", "application/json; format=x"]
)
def test_another_content_type_is_refused_with_415(income, kind):
    status, answer, _ = income.ask("POST", INVOCATIONS, b"{}", **{"Content-Type": kind})
    assert status == 415
    assert answer["error_code"] == "BAD_REQUEST"


def test_a_charset_of_utf_8_may_be_said(income):
    kind = {"Content-Type": 'Application/JSON; charset="UTF-8"'}
    body = msgspec.json.encode({"inputs": DATA})
    assert income.ask("POST", INVOCATIONS, body, **kind)[0] == 200


def test_csv_gets_the_same_answers(income):
    csv = b"hours,age,job\n40.5,39,nurse\n1,120,\n"
    status, answer, _ = income.ask("POST", INVOCATIONS, csv, **{"Content-Type": "text/csv"})
    assert status == 200, answer
    assert answer["predictions"] == invoke(income, {"dataframe_records": ROWS})[1]["predictions"]


def test_parquet_gets_the_same_answers(income):
    file = io.BytesIO()
    pl.DataFrame(DATA, COLUMNS, orient="row", strict=False).write_parquet(file)
    kind = {"Content-Type": "application/vnd.apache.parquet"}
    status, answer, _ = income.ask("POST", INVOCATIONS, file.getvalue(), **kind)
    assert status == 200, answer
    assert answer["predictions"] == invoke(income, {"dataframe_records": ROWS})[1]["predictions"]


def test_values_of_a_regressor_are_written_bit_for_bit_and_arms_beside_them():
    rows = [
        b'{"id":"a","model":"price@1","arm":"old","value":0.30000000000000004}',
        b'{"id":"b","model":"price@2","arm":"new","value":[1.5,null]}',
    ]
    body = write_answer(PredictResponse("price#3", rows, b""))
    assert body.startswith(b'{"predictions":[0.30000000000000004,[1.5,null]],')
    answer = msgspec.json.decode(body)
    assert (answer["arms"], answer["models"]) == (["old", "new"], ["price@1", "price@2"])
    assert answer["prediction_ids"] == ["a", "b"]
    assert "model" not in answer
    with pytest.raises(Fault):
        write_answer(PredictResponse("price#3", [b'{"id":"a","model":"price@1"}'], b""))


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_changed_bytes_get_no_answer_of_a_broken_server(income, data):
    body = bytearray(msgspec.json.encode({"dataframe_split": {"columns": COLUMNS, "data": DATA}}))
    for _ in range(data.draw(st.integers(1, 3))):
        body[data.draw(st.integers(0, len(body) - 1))] = data.draw(st.integers(0, 255))
    kind = data.draw(st.sampled_from(["application/json", "text/csv"]))
    assert income.ask("POST", INVOCATIONS, bytes(body), **{"Content-Type": kind})[0] < 500


def test_a_key_gets_the_first_answer_again_and_another_body_is_refused(income):
    first = invoke(income, {"inputs": DATA}, Idempotency_Key="m-1")
    assert invoke(income, {"inputs": DATA}, Idempotency_Key="m-1") == first
    status, answer = invoke(income, {"inputs": DATA[:1]}, Idempotency_Key="m-1")
    assert (status, answer["error_code"]) == (409, "RESOURCE_CONFLICT")


def test_a_wrong_timeout_is_refused_and_a_short_one_is_met(income):
    assert invoke(income, {"inputs": DATA}, Timeout_Ms="-1")[0] == 400
    status, answer = invoke(income, {"inputs": DATA}, Timeout_Ms="0.000001")
    assert (status, answer["error_code"]) == (504, "DEADLINE_EXCEEDED")


@pytest.mark.parametrize("coding", ["gzip", "zstd"])
def test_a_compressed_body_is_read(income, coding):
    body = msgspec.json.encode({"inputs": DATA})
    packed = gzip.compress(body) if coding == "gzip" else zstandard.compress(body)
    assert invoke(income, packed, Content_Encoding=coding)[0] == 200


def test_a_large_answer_comes_whole(income):
    answer = invoke(income, {"dataframe_records": ROWS * 1500})[1]
    assert len(answer["predictions"]) == len(set(answer["prediction_ids"])) == 3000


def test_health_is_told_at_the_root_and_of_an_endpoint(income):
    for path in ("/ping", "/health", "/mlflow/income/ping", "/mlflow/income/health"):
        assert income.ask("GET", path)[:2] == (200, "\n")
    for path in ("/version", "/mlflow/income/version"):
        assert income.ask("GET", path)[1].startswith("3.")


def test_an_endpoint_that_is_unloaded_is_not_healthy(income):
    assert income.ask("POST", "/v2/repository/models/income/unload")[0] == 200
    try:
        status, answer, _ = income.ask("GET", "/mlflow/income/ping")
        assert (status, answer["error_code"]) == (404, "RESOURCE_DOES_NOT_EXIST")
    finally:
        assert income.ask("POST", "/v2/repository/models/income/load")[0] == 200


@pytest.mark.parametrize("path", ["/mlflow/incom/invocations", "/mlflow/income/x", "/mlflow/"])
def test_what_is_not_there_is_said_in_the_shape_of_mlflow(income, path):
    status, answer = invoke(income, {"inputs": DATA}, path)
    assert (status, answer["error_code"]) == (404, "RESOURCE_DOES_NOT_EXIST")


def test_another_method_is_refused_in_the_shape_of_mlflow(income):
    status, answer, headers = income.ask("GET", INVOCATIONS)
    assert (status, headers["allow"]) == (405, "POST")
    assert answer["error_code"] == "BAD_REQUEST"


def test_of_several_endpoints_the_root_asks_the_one_named_default(loans, up):
    loans.apply("income@2", "other")
    server = up(loans.project)
    status, answer = invoke(server, {"inputs": DATA})
    assert status == 404
    assert "income, other" in answer["message"]
    assert invoke(server, {"inputs": DATA}, "/mlflow/other/invocations")[1]["model"] == "income@2"


def test_an_endpoint_named_default_is_asked_as_soon_as_it_is_live(loans, up):
    server = up(loans.project)
    assert invoke(server, {"inputs": DATA})[1]["revision"] == "income#1"
    loans.apply("income@2", "default")
    wait_for(lambda: server.ask("GET", "/mlflow/default/ping")[0] == 200)
    assert invoke(server, {"inputs": DATA})[1]["revision"] == "default#1"


def test_every_status_has_a_code_of_mlflow():
    assert {400, 401, 403, 404, 409, 422, 429, 501, 503, 504, 507} == set(ERROR_CODES)
    assert set(ERROR_CODES) <= set(STATUS.values())


@pytest.mark.parametrize(
    ("path", "role"),
    {
        b"/invocations": "predict",
        b"/mlflow/income/invocations": "predict",
        b"/mlflow/income/ping": "any",
        b"/mlflow/income/version": "any",
        b"/mlflow/none": "any",
        b"/ping": None,
        b"/health": None,
        b"/version": None,
    }.items(),
)
def test_the_routes_need_the_roles_that_the_documents_say(income, path, role):
    route = MlflowRoutes(income.endpoints, RestRoutes(income.endpoints, ServerHealth()).ready).find(
        path
    )
    assert route is not None
    assert route.role == role


def test_other_paths_are_left_to_other_protocols(income):
    assert (
        MlflowRoutes(income.endpoints, RestRoutes(income.endpoints, ServerHealth()).ready).find(
            b"/v2"
        )
        is None
    )
