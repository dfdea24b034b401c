"""
Metrics of the worker processes of one server, in files that all of them can read.

Counters and histograms are summed, including those of processes that have ended, so
that they never go back. Gauges are those of the living processes.
"""

from __future__ import annotations

import os
import struct
import zlib
from contextlib import suppress
from typing import NamedTuple

import msgspec

from clewline.serve.metrics.metric_families import MetricFamily, merge_families

FOLDED = 256
"""Number of ended processes of which we remember that their counts were taken over."""

_HEAD = struct.Struct("<QII")
_HALF = 1 << 32
"""Offset of the second half of a file. The files have holes."""


class MetricsSnapshot(msgspec.Struct, frozen=True, array_like=True):
    """The metrics of one process, or the sum of those that have ended."""

    generation: int = 0  # number of the process; 0: none
    families: list[MetricFamily] = []
    folded: list[int] = []  # generations of ended processes that the sum contains


class SharedMetrics(NamedTuple):
    """
    One file without a name for each process, which it alone writes.

    A process writes the two halves of its file in turn, so that the last whole state
    can be read while it writes, and after it was killed.
    """

    files: tuple[int, ...]  # descriptors: one for each process, then the one of the ended
    bells: tuple[int, ...] = ()  # eventfd of each process, rung when its metrics are wanted

    @classmethod
    def create(cls, slots: int) -> SharedMetrics:
        """Create empty files and bells for a number of processes."""
        return cls(
            tuple(os.memfd_create("clewline-metrics", 0) for _ in range(slots + 1)),
            tuple(os.eventfd(0, os.EFD_NONBLOCK) for _ in range(slots)),
        )

    def ring(self, number: int) -> None:
        """Wake the process of a slot, or the next one if there is none."""
        with suppress(BlockingIOError):  # it was rung 2⁶⁴ times and has not heard it
            os.eventfd_write(self.bells[number], 1)

    def answer_bell(self, number: int) -> None:
        """Silence the bell of this process."""
        with suppress(BlockingIOError):  # silenced already
            os.eventfd_read(self.bells[number])

    def write(self, number: int, snapshot: MetricsSnapshot) -> None:
        """Write the metrics of a slot; -1 holds those of ended processes."""
        data = msgspec.msgpack.encode(snapshot)
        turn = max(self._heads(number))[0] + 1
        head = _HEAD.pack(turn, len(data), zlib.crc32(data))
        os.pwrite(self.files[number], head + data, turn % 2 * _HALF)

    def read(self, number: int) -> MetricsSnapshot:
        """Read the metrics of a slot; empty if there are none."""
        for turn, size, checksum in sorted(self._heads(number), reverse=True):
            data = os.pread(self.files[number], size, turn % 2 * _HALF + _HEAD.size)
            if turn and zlib.crc32(data) == checksum:
                return msgspec.msgpack.decode(data, type=MetricsSnapshot)
        return MetricsSnapshot()

    def _heads(self, number: int) -> list[tuple[int, int, int]]:
        raw = [os.pread(self.files[number], _HEAD.size, half * _HALF) for half in (0, 1)]
        return [_HEAD.unpack(head.ljust(_HEAD.size, b"\0")) for head in raw]

    def fold(self, number: int, more: list[MetricFamily]) -> None:
        """Add the counts of an ended process, and `more`, to the sum; then clear its slot."""
        ended, before = self.read(number), self.read(-1)
        counts = [family for family in ended.families if family.kind != "gauge"]
        folded = [*before.folded, ended.generation][-FOLDED:]
        # First the sum, then the clearing: a reader skips a process that is in the sum.
        families = merge_families([before.families, counts, more])
        self.write(-1, MetricsSnapshot(0, families, folded))
        self.write(number, MetricsSnapshot())

    def all(self) -> list[list[MetricFamily]]:
        """Read the metrics of all processes, each once; the sum of ended ones stands last."""
        living = [self.read(number) for number in range(len(self.files) - 1)]
        ended = self.read(-1)
        skipped = {0, *ended.folded}
        return [*(s.families for s in living if s.generation not in skipped), ended.families]
