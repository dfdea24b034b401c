"""
What all HTTP protocols read alike: the headers of a request, and the coding of its body.

    Idempotency-Key    Timeout-Ms (or ?timeout_ms=)    Content-Encoding: gzip | zstd
    Clewline-Tried: true       traceparent, tracestate

A body is decompressed here, because the log keeps it decompressed. The result has a size
limit, and a large body is decompressed on a thread.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
import zlib
from collections.abc import Callable
from concurrent.futures import Executor
from typing import TypeVar

import zstandard

from clewline.errors import (
    BadRequest,
    BodyTooLarge,
    ClewlineError,
    Fault,
    MalformedInput,
    UnknownFormat,
)
from clewline.protocols.http.request import HttpLimits, HttpRequest
from clewline.serve.formats.body_format import JSON
from clewline.serve.request.predict_request import PredictRequest
from clewline.store.disk import known_error

logger = logging.getLogger(__name__)

KEY_CHARACTERS = 255
"""Maximum length of an Idempotency-Key."""
MAX_TIMEOUT_MS = 24 * 3600 * 1000
BODY_BYTES = HttpLimits().body_bytes
"""Maximum size of a decompressed body: the same as of a plain one."""
QUICK_BYTES = 16 << 10
"""A compressed body up to this size is decompressed at once, in under 2 ms …"""
QUICK_DECODED_BYTES = 1 << 20
"""… unless the result is larger than this: then it counts as large."""
CODINGS = ("gzip", "zstd")
STEP_BYTES = 1024
"""Bytes given to a decompressor at once: 32 MiB come out of them at most."""
MAX_PARTS = 10_000
"""Maximum gzip members or zstd frames of a body; each costs time even if it is empty."""
_ZSTD_WINDOW_BYTES = 8 << 20  # RFC 8878, 3.1.1.1.2: the size that every decoder should support

T = TypeVar("T")


def when_read(
    request: HttpRequest,
    threads: Executor,
    then: Callable[[PredictRequest | ClewlineError], None],
    format: str = JSON,
    detail: str = "",
) -> None:
    """
    Call `then` with the request to predict, or with the error in its headers or body.

    It is called once, on the loop's thread: at once, or later if decompressing takes long.

    Args:
        request: The request over HTTP.
        threads: Decompress large bodies.
        then: Gets BadRequest for a wrong key, timeout or mark, UnknownFormat for an unknown coding,
            BodyTooLarge for more than `BODY_BYTES`, MalformedInput for a body that its coding
            cannot decode.
        format: Name of the body's format.
        detail: What the format must know beside the body.
    """
    try:
        predict_request = PredictRequest(
            request.body,
            format,
            detail,
            idempotency_key(request),
            deadline(request),
            request.is_abandoned,
            trace_context(request),
            tried=is_tried(request),
        )
        coding = content_coding(request)
        if coding is not None:
            try:
                if len(predict_request.body) > QUICK_BYTES:
                    raise BodyTooLarge("The body is too large to be decompressed at once.")
                predict_request.body = decompress(predict_request.body, coding, QUICK_DECODED_BYTES)
            except BodyTooLarge:

                def work() -> PredictRequest:
                    predict_request.body = decompress(
                        predict_request.body, coding, is_over=request.is_abandoned
                    )
                    return predict_request

                run_on_thread(threads, work, then)
                return
    except ClewlineError as error:
        then(error)
        return
    then(predict_request)


def run_on_thread(
    threads: Executor, work: Callable[[], T], then: Callable[[T | ClewlineError], None]
) -> None:
    """
    Do slow work on a thread; call `then` on the loop's thread with its result or its error.

    Any error that is not a `ClewlineError` is logged, and `then` gets a `Fault`.
    """

    def finish(done: asyncio.Future[T]) -> None:
        try:
            then(done.result())
        except ClewlineError as error:
            then(error)
        except Exception as error:  # of the work or what follows it: the caller is told in any case
            logger.exception("a part of a request failed")
            fault = Fault("The server failed on this request.", "Its log has the reason.")
            then(known_error(error, fault))

    asyncio.get_running_loop().run_in_executor(threads, work).add_done_callback(finish)


def run_at_once_or_on_thread(
    threads: Executor,
    work: Callable[[], T],
    then: Callable[[T | ClewlineError], None],
    *,
    takes_long: bool,
) -> None:
    """Run work that takes long on a thread, and anything else at once; as `run_on_thread`."""
    if takes_long:
        run_on_thread(threads, work, then)
        return
    try:
        done: T | ClewlineError = work()
    except ClewlineError as error:
        done = error
    then(done)


def idempotency_key(request: HttpRequest) -> str | None:
    """
    Return the caller's idempotency key.

    Raises:
        BadRequest: The key is empty, or longer than `KEY_CHARACTERS`.
    """
    header = request.headers.get(b"idempotency-key")
    return None if header is None else checked_key(header.decode("latin-1"))


def checked_key(key: str) -> str:
    """Return a valid key; raise `BadRequest` as `idempotency_key` does."""
    if not 0 < len(key) <= KEY_CHARACTERS:
        raise BadRequest(
            f"The Idempotency-Key has {len(key)} characters.", f"Send 1 to {KEY_CHARACTERS}."
        )
    return key


def is_tried(request: HttpRequest) -> bool:
    """
    Return whether the caller made the rows up to see the answer; notes it in the request.

    Such rows are answered and logged as others are, so that each answer has its line. Whoever
    may predict may say so: it hides nothing from the log.

    Raises:
        BadRequest: The header `Clewline-Tried` is neither true nor false.
    """
    header = request.headers.get(b"clewline-tried")
    if header is None:
        return False
    if header not in (b"true", b"false"):
        raise BadRequest(
            f"Clewline-Tried is {header.decode('latin-1')!r}.", "Send true, false, or no header."
        )
    request.tried = header == b"true"
    return request.tried


def deadline(request: HttpRequest) -> float:
    """
    Return how long the caller waits, as a time of `time.perf_counter`; inf without a timeout.

    Raises:
        BadRequest: The timeout is not a positive number of milliseconds, up to a day.
    """
    text = None
    if b"?" in request.target:
        text = request.query.get("timeout_ms")
    if text is None and (header := request.headers.get(b"timeout-ms")) is not None:
        text = header.decode("latin-1")
    return math.inf if text is None else deadline_in(text, 1.0)


def deadline_in(value: float | str, unit_ms: float) -> float:
    """
    Return a timeout as a deadline of `time.perf_counter`.

    Raises:
        BadRequest: The timeout is not a number above 0, or is longer than a day.
    """
    try:
        wait_ms = float(value) * unit_ms
    except ValueError:
        wait_ms = math.nan
    if not 0 < wait_ms <= MAX_TIMEOUT_MS:
        raise BadRequest(
            f"The timeout {value!r} is not valid.", "Send milliseconds, from above 0 to a day."
        )
    return time.perf_counter() + wait_ms / 1000


def trace_context(request: HttpRequest) -> dict[str, str] | None:
    """
    Return the caller's trace context; None if there is none.

    Source:
        W3C Trace Context.
    """
    parent = request.headers.get(b"traceparent")
    if parent is None:
        return None
    carrier = {"traceparent": parent.decode("latin-1")}
    if (state := request.headers.get(b"tracestate")) is not None:
        carrier["tracestate"] = state.decode("latin-1")
    return carrier


def content_coding(request: HttpRequest) -> str | None:
    """
    Return how the body is compressed; None if it is not.

    Raises:
        UnknownFormat: The coding is unknown, or there are several.
    """
    header = request.headers.get(b"content-encoding")
    if header is None:
        return None
    coding = header.strip().lower().decode("latin-1")
    if coding in ("", "identity"):
        return None
    coding = "gzip" if coding == "x-gzip" else coding
    if coding not in CODINGS:
        raise UnknownFormat(
            f"The Content-Encoding {coding} is not supported.",
            f"Send the body uncompressed, or as {' or '.join(CODINGS)}.",
        )
    return coding


def decompress(
    body: bytes,
    coding: str,
    limit: int = BODY_BYTES,
    is_over: Callable[[], bool] = lambda: False,
) -> bytes:
    """
    Return a decompressed body; several gzip members or zstd frames are joined.

    Args:
        body: The compressed body.
        coding: One of `CODINGS`.
        limit: Maximum bytes of the result.
        is_over: Returns whether nobody waits any more; it is asked before each step.

    Raises:
        BodyTooLarge: The result has more than `limit` bytes.
        MalformedInput: The body is not of that coding, is cut off, or has too many parts.
        BadRequest: Nobody waits any more.
    """
    try:
        pieces, size, at, parts = [], 0, 0, 0
        view = memoryview(body)
        while at < len(body) or not parts:
            parts += 1
            if parts > MAX_PARTS:
                raise _not_decoded(coding, f"it has more than {MAX_PARTS} parts")
            part = (
                zlib.decompressobj(16 + zlib.MAX_WBITS)
                if coding == "gzip"
                else zstandard.ZstdDecompressor(max_window_size=_ZSTD_WINDOW_BYTES).decompressobj()
            )
            # In small steps: what stands behind a part is copied for each part.
            while not part.eof:
                if is_over():
                    raise BadRequest("The caller has gone.")
                if at >= len(body):
                    raise _not_decoded(coding, "it ends before its last block")
                step = view[at : at + STEP_BYTES]
                at += len(step)
                pieces.append(part.decompress(step))
                size += len(pieces[-1])
                if size > limit:
                    raise BodyTooLarge(
                        f"The decompressed body has more than {limit} bytes.",
                        "Send fewer rows at once.",
                    )
            at -= len(part.unused_data)
    except (zlib.error, zstandard.ZstdError) as error:
        raise _not_decoded(coding, error) from error
    return b"".join(pieces)


def _not_decoded(coding: str, reason: object) -> MalformedInput:
    return MalformedInput(
        f"The body is not valid {coding}: {reason}.", "Compress it as its Content-Encoding says."
    )
