"""Bodies by content type and answers by Accept, on a real server over a real model."""

from __future__ import annotations

import csv
import gzip
import http.client
import io
import json

import polars as pl
import pytest

from clewline.protocols.rest.streams import PIECE_ROWS
from clewline.serve.log import reader as log_reader

ROW = {"age": 39, "hours": 40.5, "job": "nurse"}
ROWS = [ROW, ROW | {"age": 80, "job": None}, ROW | {"hours": 1.0}]
PREDICT = "/v1/endpoints/income/predict"
NDJSON = "application/x-ndjson"
ARROW = "application/vnd.apache.arrow.stream"


def frame() -> pl.DataFrame:
    return pl.DataFrame(ROWS)


def arrow_stream() -> bytes:
    out = io.BytesIO()
    frame().write_ipc_stream(out)
    return out.getvalue()


def arrow_file() -> bytes:
    out = io.BytesIO()
    frame().write_ipc(out)
    return out.getvalue()


def parquet() -> bytes:
    out = io.BytesIO()
    frame().write_parquet(out)
    return out.getvalue()


COLUMNS = {name: [row[name] for row in ROWS] for name in ROW}
BODIES = {
    "application/json": json.dumps({"columns": COLUMNS, "entities": ["a", "b", "c"]}).encode(),
    "Application/JSON; charset=utf-8": json.dumps(
        {"entities": ["a", "b", "c"], "columns": COLUMNS}
    ).encode(),
    "text/csv": frame().write_csv().encode(),
    "text/csv; charset=utf-16": frame().write_csv().encode("utf-16"),
    ARROW: arrow_stream(),
    "application/vnd.apache.arrow.file": arrow_file(),
    "application/vnd.apache.parquet": parquet(),
}


@pytest.mark.parametrize("kind", BODIES)
def test_every_body_gets_the_answer_of_json_rows_and_is_found_in_the_log(income, kind):
    wanted = income.predict({"rows": ROWS})[1]["predictions"]
    status, answer, _ = income.predict(BODIES[kind], **{"content-type": kind})
    assert status == 200, answer
    found = answer["predictions"]
    assert [p["probabilities"] for p in found] == [p["probabilities"] for p in wanted]
    logged = log_reader.get_prediction(income.project.log, found[1]["id"])
    assert logged.row == 1
    assert str(json.loads(bytes(logged.input))["age"]) == "80"
    shown = income.ask("GET", f"/v1/predictions/{found[1]['id']}")[1]
    assert shown["row"]["job"] is None
    if "json" in kind.lower():
        assert shown["entity"] == "b"


def test_a_compressed_table_is_read(income):
    headers = {"content-type": "text/csv", "content-encoding": "gzip"}
    assert income.predict(gzip.compress(BODIES["text/csv"]), **headers)[0] == 200


def test_a_column_of_the_query_says_whom_rows_are_about(income):
    body = frame().with_columns(who=pl.Series([7, 8, 9])).write_csv().encode()
    _, answer, _ = income.ask(
        "POST", PREDICT + "?entities=who", body, **{"content-type": "text/csv"}
    )
    shown = income.ask("GET", f"/v1/predictions/{answer['predictions'][2]['id']}")[1]
    assert shown["entity"] == "9"


def test_a_broken_table_is_refused_and_the_server_stays_up(income):
    for kind, body in BODIES.items():
        cut = body[: len(body) // 2] if "csv" not in kind else body[:20]
        status, answer, _ = income.predict(cut, **{"content-type": kind})
        assert status in (400, 422), (kind, answer)
    assert income.predict(ROW)[0] == 200


# ---- answers


def test_an_answer_is_csv_or_arrow_where_the_caller_accepts_that(income):
    wanted = income.predict({"rows": ROWS})[1]["predictions"]
    status, text, headers = income.predict({"rows": ROWS}, accept="text/csv")
    assert (status, headers["content-type"]) == (200, "text/csv")
    table = list(csv.DictReader(io.StringIO(text)))
    assert [row["label"] for row in table] == [p["label"] for p in wanted]
    raw, headers = raw_answer(income, {"rows": ROWS}, f"text/html, {ARROW};q=0.5, text/csv;q=0.4")
    assert headers["content-type"] == ARROW
    found = pl.read_ipc_stream(io.BytesIO(raw))
    assert found.columns == [
        "id", "revision", "model", "label", "probability_<=50K", "probability_>50K", "flags",
    ]  # fmt: skip
    assert found["probability_>50K"].to_list() == [p["probabilities"][">50K"] for p in wanted]


def raw_answer(server, body, accept):
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=20)
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    headers = {"content-type": "application/json", "accept": accept}
    connection.request("POST", PREDICT, data, headers)
    answer = connection.getresponse()
    raw = answer.read()
    connection.close()
    return raw, dict(answer.headers) | {"status": answer.status}


def test_a_stream_has_a_prediction_a_line_in_order_and_all_are_logged(income):
    rows = [ROW | {"age": 20 + number % 70} for number in range(2 * PIECE_ROWS + 7)]
    entities = [f"c-{number}" for number in range(len(rows))]
    wanted = income.predict({"rows": rows})[1]["predictions"]
    raw, headers = raw_answer(income, {"rows": rows, "entities": entities}, NDJSON)
    assert (headers["status"], headers["content-type"]) == (200, NDJSON)
    found = [json.loads(line) for line in raw.splitlines()]
    assert [p["probabilities"] for p in found] == [p["probabilities"] for p in wanted]
    assert [p["id"] for p in found] == sorted(p["id"] for p in found)
    logged = log_reader.get_prediction(income.project.log, found[PIECE_ROWS + 3]["id"])
    assert logged.entity == f"c-{PIECE_ROWS + 3}"
    assert json.loads(bytes(logged.input)) == rows[PIECE_ROWS + 3]


@pytest.mark.parametrize("kind", BODIES)
def test_every_body_may_be_answered_by_a_stream(income, kind):
    status, text, _ = income.predict(BODIES[kind], **{"content-type": kind, "accept": NDJSON})
    assert status == 200, text
    assert len(text.splitlines()) == len(ROWS)


def test_a_stream_may_have_more_rows_than_other_answers(income):
    raw, headers = raw_answer(income, {"rows": [ROW] * 10_500}, NDJSON)
    assert (headers["status"], raw.count(b"\n")) == (200, 10_500)


def test_an_error_in_the_first_piece_has_its_status_and_a_later_one_is_the_last_line(income):
    rows = [dict(ROW) for _ in range(2 * PIECE_ROWS)]
    rows[3]["age"] = "x"
    raw, headers = raw_answer(income, {"rows": rows}, NDJSON)
    assert headers["status"] == 422
    assert json.loads(raw)["error"]["fields"][0]["row"] == 3
    rows[3]["age"], rows[PIECE_ROWS + 5]["age"] = 39, "x"
    raw, headers = raw_answer(income, {"rows": rows}, NDJSON)
    lines = [json.loads(line) for line in raw.splitlines()]
    assert headers["status"] == 200
    assert len(lines) == PIECE_ROWS + 1
    assert all("id" in line for line in lines[:-1])
    assert lines[-1]["error"]["code"] == "invalid_input"
    assert lines[-1]["error"]["fields"][0]["row"] == PIECE_ROWS + 5


def test_a_stream_takes_no_key_and_says_why(income):
    status, answer, _ = income.predict({"rows": ROWS}, accept=NDJSON, **{"idempotency-key": "k"})
    assert (status, answer["error"]["code"]) == (400, "bad_request")
    assert "stream" in answer["error"]["message"]


def test_for_a_caller_that_goes_away_no_more_is_computed(income, call):
    rows = 60_000
    body = json.dumps({"rows": [ROW] * rows}).encode()
    caller = call(income.port)
    head = f"POST {PREDICT} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
    head += f"accept: {NDJSON}\r\ncontent-length: {len(body)}\r\n\r\n"
    caller.send(head.encode(), body)
    assert caller.file.readline().startswith(b"HTTP/1.1 200")
    caller.close()
    assert income.predict(ROW)[0] == 200
    logged = sum(1 for _ in log_reader.latest_predictions(income.project.log, limit=2 * rows).items)
    assert PIECE_ROWS <= logged < rows


# ---- the other routes


def test_a_model_with_a_field_rows_or_columns_can_be_asked_in_every_way():
    from clewline.protocols.rest.content_types import format_of_json
    from clewline.serve.formats.body_format import JSON, JSON_COLUMNS, load_format
    from clewline.serve.json_reader import JsonReader
    from clewline.signature.check import Checker
    from clewline.signature.field import Field, Output, Signature

    output = Output(name="y", task="binary", labels=("no", "yes"))
    for name in ("rows", "columns", "entities"):
        for field, value in (
            (Field(name=name, kind="number"), 5),
            (Field(name=name, kind="tensor", dtype="float64", shape=(2,)), [1, 2]),
        ):
            checker = Checker(Signature(fields=(field,), output=output))
            reader = JsonReader(checker)
            bare = json.dumps({name: value}).encode()
            enveloped = json.dumps({"rows": [{name: value}]}).encode()
            columns = json.dumps({"columns": {name: [value]}}).encode()
            wanted = reader.read(enveloped).rows
            assert format_of_json(bare) == format_of_json(enveloped) == JSON
            assert reader.read(bare).rows == wanted
            assert format_of_json(columns) == JSON_COLUMNS
            assert load_format(JSON_COLUMNS).read_rows(columns, "", checker, 9).rows == wanted
