"""What headers ask is the same on every HTTP protocol: keys, timeouts, compressed bodies."""

from __future__ import annotations

import asyncio
import gzip
import math
import random
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from clewline.errors import BadRequest, BodyTooLarge, ClewlineError, MalformedInput, UnknownFormat
from clewline.protocols.http import request_headers
from clewline.protocols.http.request import HttpRequest
from clewline.serve.request.predict_request import PredictRequest

CODERS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.compress,
    "zstd": zstandard.ZstdCompressor().compress,
}


class WaitingRequest(HttpRequest):
    """A request whose caller waits."""

    def is_abandoned(self) -> bool:
        return False


def request(body: bytes = b"{}", target: bytes = b"/", **headers: str) -> HttpRequest:
    named = {name.replace("_", "-").encode(): value.encode() for name, value in headers.items()}
    return WaitingRequest(target=target, body=body, headers=named)


def ask_of(http: HttpRequest, *format: str) -> PredictRequest:
    """Read a request; raise the error that it gets."""

    async def read() -> PredictRequest | ClewlineError:
        found: asyncio.Future[PredictRequest | ClewlineError] = (
            asyncio.get_running_loop().create_future()
        )
        with ThreadPoolExecutor(1) as threads:
            request_headers.when_read(http, threads, found.set_result, *format)
            return await found

    asked = asyncio.run(read())
    if isinstance(asked, ClewlineError):
        raise asked
    return asked


def test_a_plain_request_asks_for_its_body_and_nothing_more():
    ask = ask_of(request(b"[1]"), "oip", "7")
    assert (ask.body, ask.format, ask.detail, ask.key, ask.deadline, ask.trace) == (
        b"[1]", "oip", "7", None, math.inf, None,
    )  # fmt: skip


def test_a_request_names_its_key_its_time_and_its_trace():
    ask = ask_of(request(idempotency_key="k", timeout_ms="250", traceparent="00-a-b-01"))
    assert ask.key == "k"
    assert ask.trace == {"traceparent": "00-a-b-01"}
    assert 0 < ask.deadline - time.perf_counter() <= 0.25


def test_a_timeout_in_the_query_goes_before_one_in_a_header():
    ask = ask_of(request(target=b"/x?a=1&timeout_ms=50", timeout_ms="90000"))
    assert ask.deadline - time.perf_counter() <= 0.05


@pytest.mark.parametrize("text", ["", "0", "-1", "nan", "inf", "soon", "1e300"])
def test_a_timeout_that_is_no_time_is_refused(text: str):
    with pytest.raises(BadRequest, match="not valid"):
        ask_of(request(timeout_ms=text))


@pytest.mark.parametrize("length", [0, 256])
def test_a_key_that_is_empty_or_long_is_refused(length: int):
    with pytest.raises(BadRequest, match=f"has {length} characters"):
        ask_of(request(idempotency_key="k" * length))


@pytest.mark.parametrize("coding", CODERS)
@given(parts=st.lists(st.binary(), min_size=1, max_size=3))
def test_a_body_in_one_or_more_compressed_parts_comes_out_as_it_was(
    coding: str, parts: list[bytes]
):
    body = b"".join(map(CODERS[coding], parts))
    assert ask_of(request(body, content_encoding=coding)).body == b"".join(parts)


@pytest.mark.parametrize("coding", CODERS)
@given(data=st.binary(min_size=1, max_size=300), cut=st.integers(0, 400))
def test_a_compressed_body_that_is_cut_off_is_refused(coding: str, data: bytes, cut: int):
    body = CODERS[coding](data)
    with pytest.raises(MalformedInput, match=f"not valid {coding}"):
        request_headers.decompress(body[: cut % len(body)], coding)


@pytest.mark.parametrize("coding", CODERS)
@given(data=st.binary(max_size=100))
def test_a_body_that_is_not_compressed_as_it_says_is_refused(coding: str, data: bytes):
    with pytest.raises(MalformedInput):
        request_headers.decompress(b"x" + data, coding)


@pytest.mark.parametrize("coding", CODERS)
def test_a_small_body_that_would_become_huge_is_refused_without_being_made(coding: str):
    body = CODERS[coding](bytes(64 << 20))
    with pytest.raises(BodyTooLarge):
        request_headers.decompress(body, coding)
    assert request_headers.decompress(body, coding, 64 << 20) == bytes(64 << 20)


@pytest.mark.parametrize("coding", ["br", "gzip, gzip", "deflate"])
def test_another_coding_is_refused_by_name(coding: str):
    with pytest.raises(UnknownFormat, match=coding):
        ask_of(request(content_encoding=coding))


@pytest.mark.parametrize(
    ("body", "outcome"),
    [
        (gzip.compress(b"small"), b"small"),
        (gzip.compress(bytes(2 << 20)), bytes(2 << 20)),
        (gzip.compress(bytes(20 << 20)), BodyTooLarge),
        (b"no gzip", MalformedInput),
    ],
    ids=["small", "large", "too large", "not gzip"],
)
def test_a_large_body_is_decompressed_on_a_thread_with_the_same_outcome(
    body: bytes, outcome: bytes | type[ClewlineError]
):
    http = request(body, content_encoding="gzip")
    if isinstance(outcome, bytes):
        assert ask_of(http).body == outcome
    else:
        with pytest.raises(outcome):
            ask_of(http)


@pytest.mark.parametrize("coding", CODERS)
def test_a_body_of_very_many_empty_parts_is_refused(coding: str):
    body = CODERS[coding](b"") * 100_000
    with pytest.raises(MalformedInput, match="more than 10000 parts"):
        request_headers.decompress(body, coding)


@pytest.mark.parametrize("coding", ["gzip", "zstd"])
def test_a_body_is_decompressed_no_further_once_its_caller_has_left(coding: str):
    body, asked = CODERS[coding](random.Random(7).randbytes(100_000)), list[bool]()

    def has_left() -> bool:
        asked.append(True)
        return len(asked) > 3

    with pytest.raises(BadRequest, match="gone"):
        request_headers.decompress(body, coding, is_over=has_left)
    assert len(asked) == 4
