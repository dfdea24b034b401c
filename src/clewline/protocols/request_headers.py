"""
What all HTTP protocols ask alike: from a request's headers to an `Ask`.

    Idempotency-Key    Timeout-Ms (or ?timeout_ms=)    Content-Encoding: gzip | zstd
    traceparent, tracestate

A body is decompressed here, since the log keeps it as it was before; how large
it may become is bounded, and a large one is decompressed on a thread.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
import zlib
from collections.abc import Callable, Iterator
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
from clewline.protocols.http.server import HttpLimits, HttpRequest
from clewline.serve.formats.body_format import JSON
from clewline.serve.predict_request import PredictRequest

logger = logging.getLogger(__name__)

KEY_CHARACTERS = 255
"""How long an Idempotency-Key may be."""
LONGEST_TIMEOUT_MS = 24 * 3600 * 1000
BODY_BYTES = HttpLimits().body_bytes
"""What a body may come to once it is decompressed: as much as a plain one."""
QUICK_BYTES = 16 << 10
"""A compressed body up to this size is decompressed at once; it takes under 2 ms …"""
QUICK_DECODED_BYTES = 1 << 20
"""… unless it comes to more than this: then it is taken for a large one."""
CODINGS = ("gzip", "zstd")
_GZIP = 16 + zlib.MAX_WBITS
_WINDOW_BYTES = 8 << 20  # what RFC 8878 asks every reader to have, and allows it to stop at

T = TypeVar("T")
Then = Callable[[PredictRequest | ClewlineError], None]


def ask_of(request: HttpRequest, format: str = JSON, detail: str = "") -> PredictRequest:
    """
    Make what is asked of an endpoint; a compressed body is decompressed at once.

    Raises:
        BadRequest: A key or a timeout that is not right.
        UnknownFormat: A coding that is not read here.
        BodyTooLarge: Decompressed, the body is over `BODY_BYTES`.
        MalformedInput: The body is not what its coding says.
    """
    ask = _plain(request, format, detail)
    if (coding := coding_of(request)) is not None:
        ask.body = decoded(request.body, coding)
    return ask


def when_asked(
    request: HttpRequest, threads: Executor, then: Then, format: str = JSON, detail: str = ""
) -> None:
    """
    Give `then` what `ask_of` returns or raises: at once, or later when the body takes long.

    Args:
        request: The request. Its loop's thread is where `then` is called.
        threads: Where large bodies are decompressed.
        then: Called once.
        format: As for `ask_of`.
        detail: As for `ask_of`.
    """
    try:
        ask = _plain(request, format, detail)
        coding = coding_of(request)
        if coding is None:
            then(ask)
            return
        quick = _quickly(request.body, coding)
    except ClewlineError as error:
        then(error)
        return
    if quick is None:
        _decode_later(ask, coding, threads, then)
    else:
        ask.body = quick
        then(ask)


def key_of(request: HttpRequest) -> str | None:
    """
    Read the caller's idempotency key.

    Raises:
        BadRequest: It is empty, or longer than `KEY_CHARACTERS`.
    """
    header = request.headers.get(b"idempotency-key")
    return None if header is None else checked_key(header.decode("latin-1"))


def checked_key(key: str) -> str:
    """Give a key that may be one; raises as `key_of`."""
    if not 0 < len(key) <= KEY_CHARACTERS:
        raise BadRequest(
            f"The Idempotency-Key has {len(key)} characters.", f"Send 1 to {KEY_CHARACTERS}."
        )
    return key


def deadline_of(request: HttpRequest) -> float:
    """
    Read how long the caller waits, as a deadline of `time.perf_counter`; inf when it did not say.

    Raises:
        BadRequest: It is no positive number of milliseconds.
    """
    text = None
    if b"?" in request.target:
        text = request.query.get("timeout_ms")
    if text is None and (header := request.headers.get(b"timeout-ms")) is not None:
        text = header.decode("latin-1")
    return math.inf if text is None else deadline_in(text, 1.0)


def deadline_in(value: float | str, unit_ms: float) -> float:
    """
    Turn a time from now into a deadline of `time.perf_counter`.

    Raises:
        BadRequest: It is not a number above 0, or longer than a day.
    """
    try:
        wait_ms = float(value) * unit_ms
    except ValueError:
        wait_ms = math.nan
    if not 0 < wait_ms <= LONGEST_TIMEOUT_MS:
        raise BadRequest(
            f"A timeout of {value!r} is not a time to wait.", "Send milliseconds, up to a day."
        )
    return time.perf_counter() + wait_ms / 1000


def trace_of(request: HttpRequest) -> dict[str, str] | None:
    """Give the caller's trace context as W3C headers carry it; None when there is none."""
    parent = request.headers.get(b"traceparent")
    if parent is None:
        return None
    carrier = {"traceparent": parent.decode("latin-1")}
    if (state := request.headers.get(b"tracestate")) is not None:
        carrier["tracestate"] = state.decode("latin-1")
    return carrier


def coding_of(request: HttpRequest) -> str | None:
    """
    Tell how a body is compressed; None when it is not.

    Raises:
        UnknownFormat: By what is not read here, or by several.
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
            f"Content-Encoding {coding} is not read here.",
            f"Send the body plain, or as {' or '.join(CODINGS)}.",
        )
    return coding


def decoded(body: bytes, coding: str, limit: int = BODY_BYTES) -> bytes:
    """
    Decompress a body.

    Raises:
        BodyTooLarge: It comes to more than `limit` bytes.
        MalformedInput: It is not what `coding` says, or is cut off.
    """
    whole = _gunzip(body, limit) if coding == "gzip" else _unzstd(body, limit)
    if len(whole) > limit:
        raise BodyTooLarge(
            f"Decompressed, the body is over {limit} bytes.", "Send fewer rows at once."
        )
    return whole


def _plain(request: HttpRequest, format: str, detail: str) -> PredictRequest:
    return PredictRequest(
        request.body,
        format,
        detail,
        key_of(request),
        deadline_of(request),
        request.is_abandoned,
        trace_of(request),
    )


def _quickly(body: bytes, coding: str) -> bytes | None:
    """Decompress a small body; None when it is not small."""
    if len(body) > QUICK_BYTES:
        return None
    try:
        return decoded(body, coding, QUICK_DECODED_BYTES)
    except BodyTooLarge:
        return None


def later(
    threads: Executor, work: Callable[[], T], then: Callable[[T | ClewlineError], None]
) -> None:
    """
    Do work that takes long on a thread.

    Args:
        threads: Where.
        work: What; it may raise a `ClewlineError`.
        then: Called on the loop's thread with what it returned or raised.
    """

    def finish(done: asyncio.Future[T]) -> None:
        error = done.exception()
        if error is None:
            then(done.result())
        elif isinstance(error, ClewlineError):
            then(error)
        else:
            logger.error("a part of a request failed", exc_info=error)
            then(Fault("The server failed on this request.", "Its log has the reason."))

    asyncio.get_running_loop().run_in_executor(threads, work).add_done_callback(finish)


def _decode_later(ask: PredictRequest, coding: str, threads: Executor, then: Then) -> None:
    def work() -> PredictRequest:
        ask.body = decoded(ask.body, coding)
        return ask

    later(threads, work, then)


def _gunzip(body: bytes, limit: int) -> bytes:
    """Undo gzip, of several members if there are; stops one byte after the limit."""
    pieces: list[bytes] = []
    room = limit + 1
    rest = body
    while True:
        stream = zlib.decompressobj(_GZIP)
        try:
            pieces.append(stream.decompress(rest, room))
        except zlib.error as error:
            raise _not_coded("gzip", error) from error
        room -= len(pieces[-1])
        if room <= 0:
            break
        if not stream.eof:
            raise _not_coded("gzip", "it ends before its last block")
        rest = stream.unused_data
        if not rest:
            break
    return b"".join(pieces)


def _unzstd(body: bytes, limit: int) -> bytes:
    """Undo zstd, of several frames if there are; stops one byte after the limit."""
    try:
        # Only a reader is bounded in what it gives, and only an object tells of a missing end.
        start = _zstd().stream_reader(body, read_across_frames=True).read(limit + 1)
        return start if len(start) > limit else b"".join(_frames(body))
    except zstandard.ZstdError as error:
        raise _not_coded("zstd", error) from error


def _frames(body: bytes) -> Iterator[bytes]:
    rest = body
    while True:
        frame = _zstd().decompressobj()
        yield frame.decompress(rest)
        if not frame.eof:
            raise _not_coded("zstd", "it ends before its last block")
        rest = frame.unused_data
        if not rest:
            return


def _zstd() -> zstandard.ZstdDecompressor:
    return zstandard.ZstdDecompressor(max_window_size=_WINDOW_BYTES)


def _not_coded(coding: str, reason: object) -> MalformedInput:
    return MalformedInput(
        f"The body is not {coding}: {reason}.", "Send it whole, compressed as its header says."
    )
