"""
The access log: a line of JSON for each request, written on a thread of its own.

    {"time": …, "peer": "127.0.0.1", "token": "4f9a2c81d0be", "method": "POST",
     "path": "/v1/endpoints/income/predict", "route": "predict", "endpoint": "income",
     "status": 200, "seconds": 0.0006, "bytes": 311, "rows": 1, "first_id": "0199…"}

It holds no values of rows, no queries, no secrets. A slow or full disk stops no request:
lines are dropped and counted, and the next line says how many.
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
from clewline.protocols.http.route import HttpRoute
from clewline.store.ids import id_text

logger = logging.getLogger(__name__)

WRITE_S = 0.2
"""Time between two writes."""
WAITING_LINES = 50_000
"""Lines that wait for the disk; further ones are dropped and counted."""
CLOSE_S = 5.0
"""How long a server that stops waits for the disk."""
STDOUT = "-"
FLAGS = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
MODE = 0o640
PATH_BYTES = 500
"""Bytes of a path that a line shows."""


class AccessRecord(msgspec.Struct, gc=False):
    """One request, as the loop passes it on: the thread makes the text."""

    time: float  # of the answer, seconds since the epoch
    peer: str
    token: str | None  # the id of the token
    method: bytes  # POST for a gRPC call, as it travels
    target: bytes
    route: str
    endpoint: str | None
    status: int
    seconds: float  # from the whole request to the answer
    rows: int
    first_id: bytes  # of the first prediction
    bytes: int  # of the answer's body

    def line(self) -> dict[str, Any]:
        """Return the line of the log."""
        path = self.target.partition(b"?")[0][:PATH_BYTES]
        line = {
            "time": self.time,
            "peer": self.peer,
            "token": self.token,
            "method": self.method.decode("latin-1"),
            "path": path.decode("utf-8", "replace"),
            "route": self.route,
            "endpoint": self.endpoint,
            "status": self.status,
            "seconds": round(self.seconds, 6),
            "bytes": self.bytes,
            "rows": self.rows or None,
            "first_id": id_text(self.first_id) if self.first_id else None,
        }
        return {name: value for name, value in line.items() if value is not None}


class AccessLog:
    """
    Writes lines to a file, or to stdout. `note` is for the loop's thread, and does not block.

    A file that was moved or removed, as logrotate does it, is opened again.

    Args:
        target: A file, or `-` for stdout. Several processes may write one file.

    Raises:
        InvalidConfig: The file cannot be opened.
    """

    def __init__(self, target: str) -> None:
        self._target = target
        self._records: deque[AccessRecord] = deque()
        self._overflowed = 0  # lines, counted by the loop
        self._unwritten = 0  # lines, counted by the writer
        self._reported = 0  # dropped lines that a line has reported
        self._is_cut = False  # the last line in the file
        self._stop = threading.Event()
        try:
            is_file = target != STDOUT
            self._file = os.open(target, FLAGS, MODE) if is_file else sys.stdout.fileno()
        except OSError as error:
            raise InvalidConfig(
                f"The access log {target} cannot be written: {error.strerror}.",
                "Name a file in an existing folder, or - for stdout.",
            ) from error
        self._thread = threading.Thread(target=self._run, name="clewline-access", daemon=True)
        self._thread.start()

    @property
    def dropped(self) -> int:
        """The number of lines that were not written, because the disk was too slow or full."""
        return self._overflowed + self._unwritten

    def note(self, request: HttpRequest, route: HttpRoute, response: HttpResponse) -> None:
        """Log a request that has its answer."""
        stream, endpoint = request.stream, route.endpoint
        self.append(
            AccessRecord(
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
        )

    def append(self, record: AccessRecord) -> None:
        """Log a request of any protocol."""
        if len(self._records) >= WAITING_LINES:
            self._overflowed += 1
        else:
            self._records.append(record)

    def close(self) -> None:
        """Write what waits, and close the file; a disk that hangs is not waited for."""
        self._stop.set()
        self._thread.join(CLOSE_S)

    def _run(self) -> None:
        while not self._stop.wait(WRITE_S):
            self._write()
        self._write()
        if self._target != STDOUT:
            os.close(self._file)

    def _write(self) -> None:
        records = [self._records.popleft() for _ in range(len(self._records))]
        if not records:
            return
        lines = [record.line() for record in records]
        if (dropped := self.dropped) > self._reported:
            lines.insert(0, {"time": time.time(), "dropped": dropped - self._reported})
            self._reported = dropped
        try:
            self._follow_rotation()
            rest = memoryview(b"\n" * self._is_cut + _encoder.encode_lines(lines))
            while rest:
                rest = rest[os.write(self._file, rest) :]
                self._is_cut = bool(rest)
        except OSError as error:
            if not self._unwritten:
                logger.error("the access log %s cannot be written: %s", self._target, error)
            self._unwritten += len(records)

    def _follow_rotation(self) -> None:
        """Open the file again if another file, or none, has its name now."""
        if self._target == STDOUT:
            return
        try:
            if os.path.samestat(os.stat(self._target), os.fstat(self._file)):
                return
        except FileNotFoundError:
            pass
        before, self._file = self._file, os.open(self._target, FLAGS, MODE)
        os.close(before)


_encoder = msgspec.json.Encoder()
