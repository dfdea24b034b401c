"""What a client asks again, after which pause, and what it makes of answers: without a server."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import msgspec
import pytest

from clewline.client.api_calls import FIRST_WAIT_S, LONGEST_WAIT_S, ApiCalls, ApiRequest, RetryPause
from clewline.client.responses import ApiResponse, ConnectionFailure, Unreachable
from clewline.errors import (
    ClewlineError,
    Conflict,
    DeadlineExceeded,
    Fault,
    FieldProblem,
    InvalidInput,
    ModelFailed,
    Overloaded,
    TooManyFailures,
    UsageError,
)
from clewline.protocols.http.error_responses import error_response

GOOD = ApiResponse(
    200, b'{"revision":"income#1","predictions":[{"id":"1","model":"income@1","value":2}]}'
)
BUSY = ApiResponse(503, b'{"error":{"code":"overloaded","message":"full"}}', "2")
LOST = ConnectionFailure("the connection broke", sent=True)
REFUSED = ConnectionFailure("nobody listens", sent=False)


def run(got: list[Any], retries: int = 3, **how: Any) -> tuple[Any, list[ApiRequest], list[float]]:
    """Play a call of `predict` against answers; give what came of it, requests and pauses."""
    asked = {"entities": None, "timeout_ms": None, "idempotency_key": "auto"} | how
    steps = ApiCalls("http://localhost", retries).predict("income", {"a": 1}, **asked)
    requests, pauses = [], []
    step, left = next(steps), list(got)
    while True:
        try:
            if isinstance(step, RetryPause):
                pauses.append(step.seconds)
                step = steps.send(None)
            else:
                requests.append(step)
                step = steps.send(left.pop(0))
        except StopIteration as done:
            return done.value, requests, pauses
        except ClewlineError as error:
            return error, requests, pauses


def test_an_answer_that_was_lost_is_asked_for_again_under_the_same_key():
    result, requests, pauses = run([LOST, LOST, GOOD])
    assert result[0].value == 2
    assert len({request.headers["idempotency-key"] for request in requests}) == 1
    assert len(requests) == 3
    assert all(0 <= pause <= FIRST_WAIT_S * 2**n for n, pause in enumerate(pauses))


def test_every_call_has_a_key_of_its_own():
    keys = {run([GOOD])[1][0].headers["idempotency-key"] for _ in range(3)}
    assert len(keys) == 3


def test_the_pause_is_no_shorter_than_the_server_asks_and_no_longer_than_is_reasonable():
    assert run([BUSY, GOOD])[2] == [2.0]
    late = msgspec.structs.replace(BUSY, retry_after="3600")
    assert isinstance(run([late, GOOD])[0], Overloaded)
    assert max(run([LOST] * 13, retries=12)[2]) <= LONGEST_WAIT_S


@pytest.mark.parametrize(
    "got", [LOST, ConnectionFailure("slow", sent=True, timed_out=True), ApiResponse(502, b"")]
)
def test_without_a_key_nothing_is_asked_again_that_may_have_been_done(got):
    result, requests, _ = run([got, GOOD], idempotency_key=None)
    assert isinstance(result, ClewlineError)
    assert len(requests) == 1
    assert "idempotency-key" not in requests[0].headers


@pytest.mark.parametrize("got", [REFUSED, BUSY])
def test_without_a_key_what_was_not_begun_is_asked_again(got):
    assert len(run([got, GOOD], idempotency_key=None)[0]) == 1


def test_a_deadline_of_the_endpoint_is_asked_about_again_and_one_of_the_caller_is_not():
    over = ApiResponse(504, b'{"error":{"code":"deadline_exceeded","message":"late"}}')
    assert len(run([over, GOOD])[0]) == 1
    result, requests, _ = run([over, GOOD], timeout_ms=5)
    assert isinstance(result, DeadlineExceeded)
    assert requests[0].headers["timeout-ms"] == "5"


@pytest.mark.parametrize("status", [400, 401, 404, 409, 413, 422, 500, 507])
def test_what_would_fail_again_is_not_asked_again(status):
    assert len(run([ApiResponse(status, b"{}"), GOOD])[1]) == 1


def test_attempts_end_with_the_reason():
    result, requests, _ = run([REFUSED] * 3, retries=2)
    assert isinstance(result, Unreachable)
    assert "nobody listens" in str(result)
    assert len(requests) == 3
    late = ConnectionFailure("30 s are over", sent=True, timed_out=True)
    assert isinstance(run([late], retries=0)[0], DeadlineExceeded)


def test_an_error_is_of_the_class_that_the_server_raised():
    def again(error: ClewlineError) -> ClewlineError:
        response = error_response(error)
        headers = dict(response.headers)
        wait = headers.get(b"retry-after", b"").decode()
        result: ClewlineError = run([ApiResponse(response.status, response.body, wait)], retries=0)[
            0
        ]
        assert str(result) == str(error)
        return result

    problem = FieldProblem(0, "a", 1, "text")
    refused = again(InvalidInput("no", "mend it", (problem,)))
    assert isinstance(refused, InvalidInput)
    assert refused.fields == (problem,)
    failed = again(ModelFailed("raised", None, ("1", "2")))
    assert isinstance(failed, ModelFailed)
    assert failed.ids == ("1", "2")
    assert type(again(Conflict("taken"))) is Conflict
    assert type(again(Fault("broken"))) is Fault
    busy = again(TooManyFailures("wait", None, 7.0))
    assert type(busy) is TooManyFailures
    assert busy.retry_after_s == 7.0


@pytest.mark.parametrize(
    ("reply", "kind", "said"),
    [
        (ApiResponse(418, b'{"error":{"code":"teapot","message":"short"}}'), UsageError, "short"),
        (ApiResponse(500, b"<html>"), Fault, "<html>"),
        (ApiResponse(404, b'{"error":"not there","code":"not_found"}'), UsageError, "not there"),
        (ApiResponse(400, b'{"error":{"code":"invalid_input","message":"m","fields":3}}'),
         InvalidInput, "m"),
        (ApiResponse(200, b'{"revision":1}'), Fault, "something else"),
        (ApiResponse(200, b"hello"), Fault, "something else"),
    ],
)  # fmt: skip
def test_an_answer_of_another_kind_of_server_is_an_error_that_shows_it(reply, kind, said):
    result = run([reply], retries=0)[0]
    assert isinstance(result, kind)
    assert said in str(result)


@pytest.mark.parametrize("key", ["", " a", "a\r\nb", "ä"])
def test_a_key_that_no_header_can_carry_is_refused_before_it_is_sent(key):
    with pytest.raises(UsageError, match="header"):
        run([], idempotency_key=key)


@pytest.mark.parametrize("url", ["localhost:8470", "ftp://a", "http://", ""])
def test_a_url_that_is_none_is_refused(url):
    with pytest.raises(UsageError):
        ApiCalls(url, 0)


def test_a_name_is_one_segment_of_the_path():
    steps = ApiCalls("http://localhost", 0).endpoint("a/../b?c")
    request = next(steps)
    assert isinstance(request, ApiRequest)
    assert request.path == "/v1/endpoints/a%2F..%2Fb%3Fc"
    with pytest.raises(UsageError):
        next(ApiCalls("http://localhost", 0).endpoint(".."))


def test_importing_the_client_imports_no_server_and_no_library_of_tables():
    heavy = "('numpy', 'polars', 'pandas', 'pyarrow', 'sqlalchemy', 'onnxruntime', 'uvloop')"
    code = (
        "import sys, clewline.client\n"
        "parts = {name.split('.')[1] for name in sys.modules if name.startswith('clewline.')}\n"
        f"print(sorted(parts - {{'client', 'entry_points', 'errors', 'signature', 'version'}}), "
        f"[name for name in {heavy} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[] []"


def test_a_probability_that_is_no_number_is_not_taken_for_one():
    body = b'{"revision":"a#1","predictions":[{"id":"1","label":"a","probabilities":{"a":null}}]}'
    found = run([ApiResponse(200, body)])[0]
    assert isinstance(found, Fault)
    assert "probabilities" in found.message
