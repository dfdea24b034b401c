"""The REST routes on a real server, over a real store and a real model."""

from __future__ import annotations

import gc
import json
import shutil
import subprocess
import threading
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import pytest
from support import PATIENCE_S, tmpfs, wait_for

from clewline.errors import Fault, NotFound, StoreReadOnly
from clewline.protocols.app import HttpApp
from clewline.protocols.http.request import HttpLimits
from clewline.protocols.http.shared_answer import LARGE
from clewline.protocols.rest import routes
from clewline.serve.log import reader as log_reader
from clewline.serve.metrics.request_statistics import RequestStatistics
from clewline.serve.served_endpoint import ServedEndpoint

ROW = {"age": 39, "hours": 40.5, "job": "nurse"}
JSON = {"content-type": "application/json"}
PREDICT = "/v1/endpoints/income/predict"


def logged_count(server) -> int:
    return len(log_reader.latest_predictions(server.project.log, limit=1_000_000).items)


def test_rows_are_answered_in_order_with_ids_labels_and_probabilities(income):
    body = {"rows": [ROW, ROW | {"age": 80}], "entities": ["a", "b"]}
    status, answer, headers = income.predict(body)
    assert status == 200
    assert headers["content-type"] == "application/json"
    assert answer["revision"] == "income#1"
    young, old = answer["predictions"]
    assert (young["label"], old["label"]) == ("<=50K", ">50K")
    assert young["id"] < old["id"]
    assert young["model"] == "income@1"
    assert sum(young["probabilities"].values()) == pytest.approx(1)
    assert list(young) == ["id", "model", "label", "probabilities"]


def test_tried_rows_are_logged_as_such_and_no_statistic_counts_them(income):
    kept = income.predict(ROW)[1]["predictions"][0]["id"]

    def counted(text: str) -> list[str]:
        lines = income.ask("GET", "/metrics")[1].splitlines()
        return [line for line in lines if line.startswith(text)]

    before = counted("clewline_requests_total"), counted("clewline_arm_rows_total")
    status, answer, _ = income.predict(ROW, clewline_tried="true")
    assert status == 200
    tried = answer["predictions"][0]["id"]
    income.predict({"age": "x"}, clewline_tried="true")

    def listed(query: str) -> list[str]:
        page = income.ask("GET", f"/v1/predictions?endpoint=income&limit=2{query}")[1]
        return [each["id"] for each in page["predictions"]]

    assert listed("") == [tried, kept]
    assert listed("&tried=true") == [tried]
    assert kept in listed("&tried=false")
    assert tried not in listed("&tried=false")
    assert counted("clewline_tried_rows_total") == [
        'clewline_tried_rows_total{endpoint="income"} 1.0'
    ]
    assert before == (counted("clewline_requests_total"), counted("clewline_arm_rows_total"))
    status, answer, _ = income.predict(ROW, clewline_tried="perhaps")
    assert (status, answer["error"]["code"]) == (400, "bad_request")
    assert income.ask("GET", "/v1/predictions?tried=perhaps")[0] == 400


def test_a_retry_under_a_key_has_the_same_mark(income):
    mark = {"idempotency_key": "mark-1"}
    first = income.predict(ROW, **mark, clewline_tried="true")
    assert income.predict(ROW, **mark, clewline_tried="true")[1] == first[1]
    assert income.predict(ROW, **mark)[0] == 409


def test_a_bare_row_gets_the_same_answer_as_an_envelope(income):
    bare = income.predict(ROW)[1]["predictions"][0]
    enveloped = income.predict({"rows": [ROW]})[1]["predictions"][0]
    assert bare["probabilities"] == enveloped["probabilities"]


def test_a_value_outside_a_proposal_is_answered_with_a_flag(income):
    status, answer, _ = income.predict({"rows": [ROW, ROW | {"age": 140, "job": "pope"}]})
    assert status == 200
    assert "flags" not in answer["predictions"][0]
    flags = {flag["field"]: flag for flag in answer["predictions"][1]["flags"]}
    assert (flags["age"]["flag"], flags["age"]["value"]) == ("outside bounds", 140)
    assert flags["job"]["flag"] == "unseen level"


def test_a_bound_that_a_person_has_accepted_refuses(loans, up):
    (loans.project.signatures / "income.yaml").write_text("fields: {age: {bounds: [17, 90]}}")
    assert loans.apply("income@1") == "income#2"
    server = up(loans.project)
    status, answer, _ = server.predict({"rows": [ROW, ROW | {"age": 140}]})
    assert (status, answer["error"]["code"]) == (422, "invalid_input")
    fields = answer["error"]["fields"]
    assert [(f["row"], f["field"], f["value"]) for f in fields] == [(1, "age", 140)]
    schema = server.ask("GET", "/openapi.json")[1]["components"]["schemas"]["income.row"]
    assert (schema["properties"]["age"]["minimum"], schema["properties"]["age"]["maximum"]) == (
        17,
        90,
    )


MALFORMED = {
    "malformed JSON": b'{"rows": [',
    "nothing": b"",
    "not UTF-8": b'{"rows": [{"age": 39, "hours": 1, "job": "\xff"}]}',
    "a list": b"[1, 2]",
    "a number": b"1",
    "no rows": b'{"rows": []}',
    "rows not a list": b'{"rows": {}}',
    "an unknown key": b'{"rows": [{}], "rows2": 1}',
    "rows twice": b'{"rows": [%b], "rows": [%b]}' % ((json.dumps(ROW).encode(),) * 2),
    "entities of another length": {"rows": [ROW], "entities": ["a", "b"]},
    "entities that are no texts": {"rows": [ROW], "entities": [1]},
    "an entity that no float holds": b'{"rows": [%b], "entities": [1e999]}'
    % json.dumps(ROW).encode(),
    "an entity that is no text in UTF-8": b'{"rows": [%b], "entities": ["\\ud800"]}'
    % json.dumps(ROW).encode(),
    "nested too deeply": b'{"rows": [' + b"[" * 20000 + b"]" * 20000 + b"]}",
    "large, and nested too deeply": b'{"rows": [' + b"[" * 90000 + b"]" * 90000 + b"]}",
    "large, and cut off": b'{"rows": [' + b'{"age": 39},' * 9000,
}
REFUSED = {
    "a row that is no object": {"rows": [ROW, 7]},
    "a missing field": {"rows": [{"age": 39, "hours": 1}]},
    "an extra field": {"rows": [ROW | {"agee": 1}]},
    "null where not nullable": {"rows": [ROW | {"age": None}]},
    "mistyped": {"rows": [ROW | {"age": "39"}]},
    "not an integer": {"rows": [ROW | {"age": 39.5}]},
    "infinite": b'{"rows": [{"age": 39, "hours": 1e999, "job": null}]}',
    "NaN": b'{"rows": [{"age": 39, "hours": NaN, "job": null}]}',
    "huge": b'{"rows": [{"age": 9007199254740993, "hours": 1, "job": null}]}',
    "a key twice": b'{"rows": [{"age": 39, "age": 40, "hours": 1, "job": null}]}',
}
TOO_MANY = {
    "10,001 rows": {"rows": [ROW] * 10_001},
    "10,001 small rows": b'{"rows": [' + b"1," * 10_000 + b"1]}",
    "a million small rows": b'{"rows": [' + b"{}," * 1_000_000 + b"{}]}",
}
BAD = [
    *[(body, 400, "malformed_input") for body in MALFORMED.values()],
    *[(body, 422, "invalid_input") for body in REFUSED.values()],
    *[(body, 413, "too_many_rows") for body in TOO_MANY.values()],
]


@pytest.mark.parametrize(("body", "status", "code"), BAD, ids=[*MALFORMED, *REFUSED, *TOO_MANY])
def test_bad_input_has_the_documented_status_and_shape_and_leaves_the_server_up(
    income, body, status, code
):
    got, answer, _ = income.predict(body)
    assert (got, answer["error"]["code"]) == (status, code), answer
    assert answer["error"]["message"]
    for field in answer["error"].get("fields", []):
        assert field.keys() == {"row", "field", "value", "expected"}
    assert bool(answer["error"].get("fields")) == (code == "invalid_input")
    assert income.predict(ROW)[0] == 200


def test_every_bad_row_and_field_is_named_in_small_and_in_large_requests(income):
    for count in (10, 3000):
        rows = [dict(ROW) for _ in range(count)]
        rows[3] |= {"age": "x", "job": 5}
        rows[count - 1].pop("hours")
        fields = income.predict({"rows": rows})[1]["error"]["fields"]
        named = [(field["row"], field["field"]) for field in fields]
        assert named == [(3, "age"), (3, "job"), (count - 1, "hours")]


@pytest.mark.timeout(20)
def test_a_row_of_a_hundred_thousand_strange_or_repeated_keys_is_refused_soon(income):
    strange = b",".join(b'"k%d":1' % number for number in range(100_000))
    repeated = b",".join(b'"k%d":1,"k%d":1' % (number, number) for number in range(50_000))
    for row in (strange, repeated):
        for body in (b"{%b}" % row, b'{"rows":[{%b}]}' % row):
            status, answer, _ = income.predict(body)
            assert status == 413
            assert "Row 0 has 100000 keys" in answer["error"]["message"]


def test_a_large_request_with_a_repeated_key_is_refused(income):
    rows = json.dumps([ROW] * 2000)
    body = f'{{"rows": {rows}, "rows": {rows}}}'.encode()
    assert income.predict(body)[1]["error"]["code"] == "malformed_input"


@pytest.mark.parametrize(
    ("method", "path", "headers", "status", "code"),
    [
        ("POST", "/v1/endpoints/incom/predict", JSON, 404, "not_found"),
        ("POST", PREDICT, {"content-type": "text/html"}, 415, "unsupported_media_type"),
        ("POST", PREDICT, {}, 415, "unsupported_media_type"),
        ("POST", PREDICT, JSON | {"content-encoding": "br"}, 415, "unsupported_media_type"),
        ("POST", PREDICT, JSON | {"accept": "text/html"}, 406, "not_acceptable"),
        ("POST", PREDICT, JSON | {"idempotency-key": "k" * 300}, 400, "bad_request"),
        ("GET", PREDICT, {}, 405, "method_not_allowed"),
        ("DELETE", "/v1/endpoints", {}, 405, "method_not_allowed"),
        ("GET", "/v1/endpoints/nope", {}, 404, "not_found"),
        ("GET", "/v1/predictions/not-an-id", {}, 404, "not_found"),
        ("GET", "/v1/predictions/01990c4e-2b7a-7c31-9f0e-5a4d3c2b1a09", {}, 404, "not_found"),
        ("GET", "/nowhere", {}, 404, "not_found"),
        ("GET", "/v1/endpoints/a%2Fb", {}, 404, "not_found"),
    ],
)
def test_wrong_requests_have_the_documented_status(income, method, path, headers, status, code):
    got, answer, _ = income.ask(method, path, b"{}" if method == "POST" else None, **headers)
    assert (got, answer["error"]["code"]) == (status, code)


def test_the_nearest_name_is_given(income):
    answer = income.predict(ROW, endpoint="incom")[1]
    assert "Did you mean 'income'?" in answer["error"]["message"]


def test_content_type_may_have_a_charset(income):
    assert income.predict(ROW, content_type="application/json; charset=utf-8")[0] == 200


def test_a_body_over_the_limit_is_413(loans, up):
    server = up(loans.project, HttpLimits(body_bytes=1000, drain_s=5.0))
    status, answer, _ = server.predict({"rows": [ROW] * 100})
    assert (status, answer["error"]["code"]) == (413, "body_too_large")
    assert server.predict(ROW)[0] == 200


def test_a_large_request_is_answered_in_order_and_logged_as_it_came(income):
    rows = [ROW | {"age": 17 + i % 70} for i in range(3000)]
    status, answer, _ = income.predict({"rows": rows})
    assert status == 200
    predictions = answer["predictions"]
    assert len(predictions) == 3000
    alone = income.predict(rows[2999])[1]["predictions"][0]
    assert predictions[2999]["probabilities"] == alone["probabilities"]
    logged = log_reader.get_prediction(income.project.log, predictions[1234]["id"])
    assert json.loads(bytes(logged.input)) == rows[1234]
    assert json.loads(logged.answer) == predictions[1234]


def test_neighbours_are_answered_while_a_large_request_is(income):
    """Requests of one row overtake a request of ten thousand."""
    order = []

    def large() -> None:
        assert income.predict({"rows": [ROW] * 10_000})[0] == 200
        order.append("large")

    thread = threading.Thread(target=large)
    thread.start()
    while thread.is_alive():
        assert income.predict(ROW)[0] == 200
        order.append("small")
    thread.join()
    assert order.index("large") > 3


def test_one_bad_row_fails_only_its_own_caller(income):
    results = []

    def send(body, wanted) -> None:
        results.extend(income.predict(body)[0] == wanted for _ in range(30))

    bodies = [(ROW, 200), (ROW | {"age": None}, 422), ({"rows": [ROW] * 3}, 200), (b"{", 400)]
    threads = [threading.Thread(target=send, args=each) for each in bodies]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [True] * 120


def test_a_prediction_can_be_asked_for_with_its_line(income):
    predicted = income.predict({"rows": [ROW], "entities": ["c-17"]})[1]["predictions"][0]
    status, shown, _ = income.ask("GET", f"/v1/predictions/{predicted['id']}")
    assert status == 200
    assert (shown["row"], shown["answer"], shown["entity"]) == (ROW, predicted, "c-17")
    assert shown["revision"] == "income#1"
    assert "income@1" in json.dumps(shown["line"])


def test_endpoints_are_listed_and_shown(income):
    listed = income.ask("GET", "/v1/endpoints")[1]["endpoints"]
    assert [(e["endpoint"], e["revision"], e["ready"]) for e in listed] == [
        ("income", "income#1", True)
    ]
    shown = income.ask("GET", "/v1/endpoints/income")[1]
    assert [f["name"] for f in shown["signature"]["fields"]] == ["age", "hours", "job"]


def test_strange_spellings_of_a_route_are_answered_and_not_remembered(income, connect):
    body, caller = json.dumps(ROW).encode(), connect(income)
    head = b"Host: localhost\r\nContent-Type: application/json\r\n"
    head += b"Content-Length: %d\r\n\r\n" % len(body)
    tracemalloc.start()
    try:
        for number in range(100):
            target = b"http://localhost:%d%b%b" % (number, b"0" * 7000, PREDICT.encode())
            caller.send(b"POST %b HTTP/1.1\r\n" % target, head, body)
            assert caller.answer()[0] == 200
        gc.collect()
        traces = tracemalloc.take_snapshot().traces
        assert sum(7000 < trace.size < 7500 for trace in traces) < 50, "the targets are kept"
    finally:
        tracemalloc.stop()


def test_health_is_answered(income):
    assert income.ask("GET", "/health/live")[:2] == (200, {"status": "live"})
    assert income.ask("GET", "/health/ready")[:2] == (200, {"status": "ready"})


def test_the_description_is_typed_by_the_signature(income):
    document = income.ask("GET", "/openapi.json")[1]
    row = document["components"]["schemas"]["income.row"]
    assert row["required"] == ["age", "hours", "job"]
    assert row["properties"]["age"]["type"] == "integer"
    assert row["properties"]["age"]["maximum"] == 2**53
    assert row["properties"]["job"]["type"] == ["string", "null"]
    prediction = document["components"]["schemas"]["income.prediction"]
    assert prediction["properties"]["label"]["enum"] == ["<=50K", ">50K"]
    assert PREDICT in document["paths"]


def test_metrics_count_requests_rows_and_times(loans, up):
    server = up(loans.project)
    server.predict({"rows": [ROW] * 3})
    server.predict(b"{")
    lines = server.ask("GET", "/metrics")[1].splitlines()
    assert 'clewline_requests_total{endpoint="income",code="200"} 1.0' in lines
    assert 'clewline_requests_total{endpoint="income",code="400"} 1.0' in lines
    assert 'clewline_predictions_total{endpoint="income"} 3.0' in lines
    for name in ("request", "queue", "compute", "log"):
        count = [line for line in lines if line.startswith(f"clewline_{name}_seconds_count")]
        assert float(count[0].split()[-1]) >= 1


def test_a_retry_with_a_key_gets_the_first_answer_and_is_logged_once(loans, up):
    server = up(loans.project)
    small, large = {"rows": [ROW, ROW]}, {"rows": [ROW] * 2000}
    first = server.predict(small, idempotency_key="k-1")[1]
    assert server.predict(small, idempotency_key="k-1")[1] == first
    status, answer, _ = server.predict({"rows": [ROW]}, idempotency_key="k-1")
    assert (status, answer["error"]["code"]) == (409, "conflict")
    first_large = server.predict(large, idempotency_key="k-2")[1]
    assert server.predict(large, idempotency_key="k-2")[1] == first_large
    assert logged_count(server) == 2002
    server.stop()
    restarted = up(loans.project)
    assert restarted.predict(small, idempotency_key="k-1")[1] == first
    assert restarted.predict(large, idempotency_key="k-2")[1] == first_large
    assert logged_count(restarted) == 2002


def test_a_request_that_failed_may_be_tried_again_with_its_key(income):
    assert income.predict(b"{", idempotency_key="k-9")[0] == 400
    assert income.predict(ROW, idempotency_key="k-9")[0] == 200


def test_one_key_at_the_same_time_is_answered_once(income):
    answers = []

    def send() -> None:
        answers.append(income.predict(ROW, idempotency_key="k-8")[1])

    threads = [threading.Thread(target=send) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({answer["predictions"][0]["id"] for answer in answers}) == 1


def test_a_full_queue_is_told_at_once_and_when_to_come_back(loans, up):
    server = up(loans.project, queue_rows=100)
    loans.apply("income@1", endpoint="sure", durability="fsync")
    wait_for(lambda: server.predict(ROW, endpoint="sure")[0] == 200)
    refused = []

    def send() -> None:
        for _ in range(10):
            status, answer, headers = server.predict({"rows": [ROW] * 90}, endpoint="sure")
            if status != 200:
                refused.append((status, answer["error"]["code"], int(headers["retry-after"]) >= 1))

    threads = [threading.Thread(target=send) for _ in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert refused
    assert set(refused) == {(503, "overloaded", True)}


def test_a_new_revision_answers_without_losing_a_request(loans, up, caplog):
    caplog.set_level("INFO", logger="clewline.serve")
    server = up(loans.project)
    seen, failures, done = [], [], threading.Event()

    def send() -> None:
        while not done.is_set():
            status, answer, _ = server.predict(ROW)
            if status == 200:
                seen.append((answer["revision"], answer["predictions"][0]["model"]))
            else:
                failures.append(answer)

    threads = [threading.Thread(target=send) for _ in range(4)]
    for thread in threads:
        thread.start()
    assert loans.apply("income@2") == "income#2"
    wait_for(lambda: ("income#2", "income@2") in seen)
    done.set()
    for thread in threads:
        thread.join()
    assert not failures
    assert set(seen) == {("income#1", "income@1"), ("income#2", "income@2")}
    assert logged_count(server) == len(seen)
    assert "income#2 answers now; it replaced income#1" in caplog.messages


def test_a_new_endpoint_is_served_without_a_restart(loans, up):
    server = up(loans.project)
    loans.apply("income@2", endpoint="second")
    wait_for(lambda: server.predict(ROW, endpoint="second")[0] == 200)
    assert server.predict(ROW, endpoint="second")[1]["revision"] == "second#1"


def test_only_the_named_endpoints_are_served(loans, up):
    loans.apply("income@2", endpoint="second")
    server = up(loans.project, names=["second"])
    assert server.predict(ROW, endpoint="second")[0] == 200
    assert server.predict(ROW)[0] == 404
    with pytest.raises(NotFound, match="Did you mean 'second'"):
        up(loans.project, names=["secon"])


def test_a_damaged_package_is_told_and_the_server_stays_up(loans, up):
    (loans.project.packages / "income" / "2" / "extra.txt").write_text("not listed")
    loans.apply("income@2", endpoint="broken")
    server = up(loans.project)
    status, answer, _ = server.predict(ROW, endpoint="broken")
    assert (status, answer["error"]["code"]) == (500, "integrity")
    assert "extra.txt" in answer["error"]["message"]
    assert server.ask("GET", "/health/ready")[0] == 503
    assert server.predict(ROW)[0] == 200


def test_a_package_that_is_gone_is_our_loss_and_no_wrong_address(loans, up):
    shutil.rmtree(loans.project.packages / "income" / "1")
    status, answer, _ = up(loans.project).predict(ROW)
    assert (status, answer["error"]["code"]) == (500, "integrity")
    assert "no package" in answer["error"]["message"]


def test_a_revision_that_cannot_be_loaded_leaves_the_one_before_in_place(loans, up):
    server = up(loans.project)
    signature = loans.project.packages / "income" / "2" / "signature.json"
    signature.chmod(0o644)
    signature.write_bytes(signature.read_bytes().replace(b"age", b"agf", 1))
    loans.apply("income@2")
    wait_for(lambda: server.ask("GET", "/health/ready")[0] == 503)
    assert server.predict(ROW)[1]["revision"] == "income#1"
    shown = server.ask("GET", "/v1/endpoints/income")[1]
    assert "signature.json" in shown["failure"]["message"]
    loans.apply("income@1")
    wait_for(lambda: server.predict(ROW)[1]["revision"] == "income#3")
    assert server.ask("GET", "/health/ready")[0] == 200


def test_of_hundreds_of_endpoints_some_are_named_and_all_are_looked_at_now_and_then(
    loans, up, monkeypatch
):
    monkeypatch.setattr(routes, "UNREADY_S", PATIENCE_S)
    server = up(loans.project)
    failed = [ServedEndpoint(f"bad{n:03d}", RequestStatistics()) for n in range(LARGE)]
    for endpoint in failed:
        endpoint.fail(Fault("It is damaged."))
    server.endpoints.endpoints.update({each.name: each for each in failed})
    status, answer, _ = server.ask("GET", "/health/ready")
    message = answer["error"]["message"]
    assert status == 503
    assert "bad000, bad001" in message
    assert f"bad019 and {LARGE - 20} more." in message
    for endpoint in failed:
        endpoint.succeed()
    assert server.ask("GET", "/health/ready")[0] == 503  # as it was a moment ago
    assert "income.row" in server.ask("GET", "/openapi.json")[1]["components"]["schemas"]
    for endpoint in failed:
        del server.endpoints.endpoints[endpoint.name]
    assert server.ask("GET", "/health/ready")[0] == 200


def test_a_server_of_which_all_compute_threads_are_held_is_not_ready_and_says_why(
    loans, up, monkeypatch
):
    monkeypatch.setattr(routes, "HELD_S", 0.0)
    server, free = up(loans.project), threading.Event()
    threads = server.endpoints.threads
    for _ in range(threads._max_workers):
        threads.submit(free.wait, PATIENCE_S)
    for path in ("/health/ready", "/v2/health/ready", "/ping"):
        wait_for(lambda path=path: server.ask("GET", path)[0] == 503)
    message = server.ask("GET", "/health/ready")[1]["error"]["message"]
    assert "every compute thread has been busy" in message
    free.set()
    wait_for(lambda: server.ask("GET", "/health/ready")[0] == 200)


@pytest.fixture
def small_log(loans) -> Iterator[Path]:
    """The project's log on a file system of 512 KiB."""
    loans.project.log.mkdir(exist_ok=True)
    with tmpfs(loans.project.log, "size=512k") as path:
        yield path


def test_on_a_full_disk_nothing_is_answered_unlogged_and_the_server_recovers(loans, small_log, up):
    server = up(loans.project)
    ballast = small_log / "ballast"
    ballast.write_bytes(bytes(250_000))
    answered, statuses = [], []
    body = {"rows": [ROW] * 50}
    for _ in range(60):
        status, answer, _ = server.predict(body)
        statuses.append(status)
        if status == 200:
            answered += [prediction["id"] for prediction in answer["predictions"]]
        else:
            assert answer["error"]["code"] == "store_full"
    assert set(statuses) == {200, 507}
    ballast.unlink()
    status, answer, _ = server.predict(body)
    assert status == 200
    answered += [prediction["id"] for prediction in answer["predictions"]]
    assert logged_count(server) == len(answered)
    assert all(log_reader.find_prediction(small_log, identifier) for identifier in answered[::37])
    server.stop()


def test_a_log_that_cannot_be_written_is_told_at_the_start(loans, small_log, up):
    subprocess.run(["mount", "-o", "remount,ro", str(small_log)], check=True)
    with pytest.raises(StoreReadOnly):
        up(loans.project)


def test_who_waits_for_what_stands_still_is_told_before_a_stopping_server_ends(loans, up):
    server = up(loans.project, HttpLimits(drain_s=0.4))
    serving = server.endpoints.get("income").serving
    lock = serving.loaded.models[0].lock = threading.Lock()  # as if it took one call at a time
    answers = []

    def send() -> None:
        answers.append(server.predict({"rows": [ROW] * 100}))

    thread = threading.Thread(target=send)
    with lock:
        thread.start()
        wait_for(lambda: server.endpoints.under_way)
        server.begin_to_stop()
        thread.join(10)
    ((status, body, headers),) = answers
    assert (status, body["error"]["code"]) == (503, "overloaded")
    assert headers["connection"] == "close"


def test_stopping_answers_what_is_under_way(loans, up):
    server = up(loans.project)
    answers = []

    def send() -> None:
        answers.append(server.predict({"rows": [ROW] * 8000})[0])

    thread = threading.Thread(target=send)
    thread.start()
    wait_for(lambda: server.endpoints.under_way)
    server.stop()
    thread.join()
    assert answers == [200]


def test_an_error_in_counting_or_the_access_log_delays_no_answer(income, monkeypatch):
    def broken(*_):
        raise OSError("the transport is closed")

    monkeypatch.setattr(HttpApp, "answered", broken)
    assert income.predict(ROW)[0] == 200
    assert income.predict({"rows": [ROW] * 3}, accept="application/x-ndjson")[0] == 200


@pytest.mark.parametrize("accept", ["application/json", "text/csv", "application/x-ndjson"])
def test_an_answer_that_cannot_be_written_is_a_fault_for_its_caller_alone(
    income, monkeypatch, accept
):
    def broken(*_):
        raise ValueError("NaN is no JSON")

    with monkeypatch.context() as patched:
        patched.setattr("clewline.protocols.rest.predict.HttpResponse", broken)
        patched.setattr("clewline.protocols.rest.predict.table_of", broken)
        patched.setattr("clewline.protocols.rest.streams.HttpResponse", broken)
        status, answer, _ = income.predict(ROW, accept=accept)
        assert (status, answer["error"]["code"]) == (500, "fault")
    assert income.predict(ROW)[0] == 200
