"""
The access log: a line of JSON for each request, written on a thread of its own.

    {"time": …, "peer": "127.0.0.1", "token": "4f9a2c81d0be", "method": "POST",
     "path": "/v1/endpoints/income/predict", "route": "predict", "endpoint": "income",
     "status": 200, "seconds": 0.0006, "bytes": 311, "rows": 1, "first_id": "0199…"}

No values of rows, no queries, no secrets. A disk that is slow or full stops nobody:
lines are dropped then and counted, and the next line says how many.
"""

from __future__ import annotations

import logging
import os
import sys
import threading
import time
from collections import deque
from typing import Any

import msgspec

from clewline.errors import InvalidConfig
from clewline.protocols.http.request import HttpRequest, HttpResponse
from clewline.protocols.route import HttpRoute
from clewline.store.ids import id_text

logger = logging.getLogger(__name__)

WRITE_S = 0.2
"""How often lines are written."""
WAITING_LINES = 50_000
"""Lines that wait for the disk; further ones are dropped and counted."""
CLOSE_S = 5.0
"""How long a server that stops waits for the disk."""
STDOUT = "-"
FLAGS = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
MODE = 0o640
PATH_BYTES = 500
"""What a line shows of a path."""


class AccessLog:
    """
    Writes lines to a file, or to stdout. `note` is for the loop's thread and waits for nothing.

    A file that was moved away or taken away, as logrotate does it, is opened anew.

    Args:
        target: A file, or `-` for stdout. Several processes may write one file.

    Raises:
        InvalidConfig: The file cannot be opened.
    """

    def __init__(self, target: str) -> None:
        self._target = target
        self._lines: deque[AccessRecord] = deque()
        self._overflowed = 0  # lines, counted by the loop
        self._unwritten = 0  # lines, counted by the writer
        self._told = 0
        self._is_cut = False  # the last line in the file
        self._stop = threading.Event()
        self._reopen = threading.Event()
        self._file = self._open()
        self._thread = threading.Thread(target=self._write_on, name="clewline-access", daemon=True)
        self._thread.start()

    @property
    def dropped(self) -> int:
        """Lines that were not written, since the disk was too slow or full."""
        return self._overflowed + self._unwritten

    def note(self, request: HttpRequest, route: HttpRoute, response: HttpResponse) -> None:
        """Leave a line about an request that has its answer."""
        stream, endpoint = request.stream, route.endpoint
        line = AccessRecord(
            time.time(),
            request.peer_address,
            request.identity,
            request.method,
            request.target,
            route.name,
            None if endpoint is None else endpoint.name,
            response.status,
            time.perf_counter() - request.started if request.started else 0.0,
            request.rows,
            request.first_id,
            len(response.body) if stream is None else stream.sent_bytes,
        )
        self.leave(line)

    def leave(self, line: AccessRecord) -> None:
        """Leave a line, whichever protocol it is about."""
        if len(self._lines) >= WAITING_LINES:
            self._overflowed += 1
        else:
            self._lines.append(line)

    def reopen(self) -> None:
        """Open the file anew with the next lines, as after SIGHUP."""
        self._reopen.set()

    def close(self) -> None:
        """Write what waits, and let go of the file; a disk that hangs is not waited for."""
        self._stop.set()
        self._thread.join(CLOSE_S)

    def _write_on(self) -> None:
        while not self._stop.wait(WRITE_S):
            self._write()
        self._write()
        if self._target != STDOUT:
            os.close(self._file)

    def _write(self) -> None:
        """Write what has come since the last time."""
        lines = [self._lines.popleft() for _ in range(len(self._lines))]
        if not lines:
            return
        try:
            self._follow()
            self._put(self._text(lines))
        except OSError as error:
            if not self._unwritten:
                logger.error("the access log %s cannot be written: %s", self._target, error)
            self._unwritten += len(lines)

    def _text(self, lines: list[AccessRecord]) -> bytes:
        shown: list[Any] = [_shown(line) for line in lines]
        if (dropped := self.dropped) > self._told:
            shown.insert(0, {"time": time.time(), "dropped": dropped - self._told})
            self._told = dropped
        return (b"\n" if self._is_cut else b"") + _encoder.encode_lines(shown)

    def _put(self, text: bytes) -> None:
        rest = memoryview(text)
        while rest:
            written = os.write(self._file, rest)
            rest = rest[written:]
            self._is_cut = bool(rest)

    def _follow(self) -> None:
        """Open the file anew when it is another than the one that has the name."""
        if self._target == STDOUT:
            return
        ours = os.fstat(self._file)
        try:
            there: os.stat_result | None = os.stat(self._target)
        except FileNotFoundError:
            there = None
        moved = there is None or (there.st_ino, there.st_dev) != (ours.st_ino, ours.st_dev)
        if moved or self._reopen.is_set():
            self._reopen.clear()
            before, self._file = self._file, os.open(self._target, FLAGS, MODE)
            os.close(before)

    def _open(self) -> int:
        if self._target == STDOUT:
            return sys.stdout.fileno()
        try:
            return os.open(self._target, FLAGS, MODE)
        except OSError as error:
            raise InvalidConfig(
                f"The access log {self._target} cannot be written: {error.strerror}.",
                "Name a file in a folder that is there, or - for stdout.",
            ) from error


class AccessRecord(msgspec.Struct, gc=False):
    """What the loop leaves for the writer: no text is made on the loop's time."""

    time: float
    peer: str
    token: str | None
    method: bytes
    target: bytes
    route: str
    endpoint: str | None
    status: int
    seconds: float
    rows: int
    first_id: bytes
    bytes: int


class AccessLogLine(msgspec.Struct, omit_defaults=True, gc=False, kw_only=True):
    """A request, as the log shows it."""

    time: float  # of the answer, seconds since the epoch
    peer: str
    token: str | None = None  # the id of the one that was shown
    method: str  # of a gRPC call POST, as it travels
    path: str  # without the query
    route: str
    endpoint: str | None = None
    status: int
    seconds: float  # from the whole request to the answer
    bytes: int  # of the answer's body
    rows: int = 0
    first_id: str = ""  # of the first prediction


_encoder = msgspec.json.Encoder()


def _shown(noted: AccessRecord) -> AccessLogLine:
    path = noted.target.partition(b"?")[0][:PATH_BYTES]
    return AccessLogLine(
        time=noted.time,
        peer=noted.peer,
        token=noted.token,
        method=noted.method.decode("latin-1"),
        path=path.decode("utf-8", "replace"),
        route=noted.route,
        endpoint=noted.endpoint,
        status=noted.status,
        seconds=round(noted.seconds, 6),
        bytes=noted.bytes,
        rows=noted.rows,
        first_id=id_text(noted.first_id) if noted.first_id else "",
    )
