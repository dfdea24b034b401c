"""What an isolated model prints: written to the server's log up to a limit."""

from __future__ import annotations

import logging
import os
import select
import time
from collections import deque
from typing import IO

logger = logging.getLogger(__name__)

LAST_LINES = 20
LONGEST_LINE = 2000
"""Bytes of a line that are logged."""
PERIOD_BYTES, PERIOD_S = 1 << 16, 10.0
"""Bytes that are logged in each period of so many seconds; the rest is counted."""


class OutputLog:
    """
    Reads the output of a process until its end, so that the process never waits for us.

    `last_lines` has the last ones, logged or not.

    Args:
        ref: Stands before each line.
        output: The pipe that the process prints into.
    """

    def __init__(self, ref: str, output: IO[bytes]) -> None:
        self.last_lines: deque[str] = deque(maxlen=LAST_LINES)
        self._ref, self._output = ref, output
        self._line = b""  # begun
        self._logged = self._dropped = 0  # bytes of this period

    def run(self) -> None:
        """Read until no process can print any more."""
        poll = select.poll()
        poll.register(self._output, select.POLLIN)
        with self._output:
            period_ends = time.monotonic() + PERIOD_S
            while True:
                wait_ms = max(0.0, period_ends - time.monotonic()) * 1000 if self._dropped else None
                data = os.read(self._output.fileno(), PERIOD_BYTES) if poll.poll(wait_ms) else None
                if data == b"":
                    self._write_lines([self._line] if self._line else [])
                if data == b"" or time.monotonic() >= period_ends:
                    self._report_dropped()
                    period_ends = time.monotonic() + PERIOD_S
                if data == b"":
                    return
                if data:
                    *lines, self._line = (self._line + data).split(b"\n")
                    if len(self._line) > LONGEST_LINE:
                        lines, self._line = [*lines, self._line], b""
                    self._write_lines(lines)

    def _write_lines(self, lines: list[bytes]) -> None:
        while lines and self._logged < PERIOD_BYTES:
            line = lines.pop(0)
            self._dropped += len(line[LONGEST_LINE:])
            self._logged += len(line[:LONGEST_LINE]) + 1
            text = line[:LONGEST_LINE].decode(errors="replace").rstrip()
            self.last_lines.append(text)
            logger.warning("%s: %s", self._ref, text)
        self._dropped += sum(map(len, lines)) + len(lines)
        texts = (line[:LONGEST_LINE].decode(errors="replace") for line in lines[-LAST_LINES:])
        self.last_lines.extend(texts)

    def _report_dropped(self) -> None:
        if self._dropped:
            logger.warning(
                "%s: %d bytes more that it printed were not logged; the limits are %d bytes in "
                "%g s and %d bytes a line",
                self._ref,
                self._dropped,
                PERIOD_BYTES,
                PERIOD_S,
                LONGEST_LINE,
            )
        self._logged = self._dropped = 0
