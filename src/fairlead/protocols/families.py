"""
Metrics of several processes as one: kept where all can read them, and merged.

Counters and histograms are summed, those of ended processes included, so that they
never go back. Gauges are of the processes that live.
"""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Iterable
from typing import NamedTuple

import msgspec

GAUGES = {
    "fairlead_live_revision": min,  # the one that every worker has reached
    "fairlead_endpoint_ready": min,
    "process_start_time_seconds": min,
}
"""Gauges that are not sums over the workers."""

FOLDED = 256
"""Ended processes that are remembered as folded."""

_HEAD = struct.Struct("<QII")
_HALF = 1 << 32
"""Where the second half of a file begins; the files have holes."""


class Sample(msgspec.Struct, frozen=True, array_like=True):
    """One number, under its name and labels."""

    name: str
    labels: tuple[tuple[str, str], ...]
    value: float


class Family(msgspec.Struct, frozen=True, array_like=True):
    """The samples of one metric."""

    name: str
    kind: str  # as Prometheus names it: counter, gauge, histogram …
    help: str
    samples: list[Sample]


class Snapshot(msgspec.Struct, frozen=True, array_like=True):
    """The metrics of one process, or of those that have ended."""

    generation: int = 0  # of the process; 0: none
    families: list[Family] = []
    folded: list[int] = []  # generations that are contained, of those that have ended


class Shelf(NamedTuple):
    """
    Where every process leaves its metrics: a file without a name for each.

    A file has one writer, which writes its two halves in turn: what was left
    before is whole when it is killed in between, or read meanwhile.
    """

    files: tuple[int, ...]  # descriptors: one a slot of the board, then the one of the ended

    @classmethod
    def create(cls, slots: int) -> Shelf:
        """Make empty files."""
        return cls(tuple(os.memfd_create("fairlead-metrics", 0) for _ in range(slots + 1)))

    def put(self, number: int, snapshot: Snapshot) -> None:
        """Leave the metrics of a slot; -1 is the place of those that have ended."""
        data = msgspec.msgpack.encode(snapshot)
        turn = max(self._heads(number))[0] + 1
        head = _HEAD.pack(turn, len(data), zlib.crc32(data))
        os.pwrite(self.files[number], head + data, turn % 2 * _HALF)

    def get(self, number: int) -> Snapshot:
        """Read the metrics of a slot; empty when there are none."""
        file = self.files[number]
        for turn, size, checksum in sorted(self._heads(number), reverse=True):
            data = os.pread(file, size, turn % 2 * _HALF + _HEAD.size)
            if turn and zlib.crc32(data) == checksum:
                return msgspec.msgpack.decode(data, type=Snapshot)
        return Snapshot()

    def _heads(self, number: int) -> list[tuple[int, int, int]]:
        raw = [os.pread(self.files[number], _HEAD.size, half * _HALF) for half in (0, 1)]
        return [_HEAD.unpack(head.ljust(_HEAD.size, b"\0")) for head in raw]

    def fold(self, number: int, more: list[Family]) -> None:
        """Keep the counts of a process that has ended, and `more`, and clear its place."""
        ended, before = self.get(number), self.get(-1)
        counts = [family for family in ended.families if family.kind != "gauge"]
        folded = [*before.folded, ended.generation][-FOLDED:]
        # First the sum, then the clearing: a reader skips what is folded already.
        self.put(-1, Snapshot(0, merged([before.families, counts, more]), folded))
        self.put(number, Snapshot())

    def all(self) -> list[list[Family]]:
        """Read the metrics of all processes, each once; the ended ones stand last."""
        living = [self.get(number) for number in range(len(self.files) - 1)]
        ended = self.get(-1)
        return [
            *(each.families for each in living if each.generation not in {0, *ended.folded}),
            ended.families,
        ]


def merged(snapshots: Iterable[list[Family]]) -> list[Family]:
    """Merge the metrics of processes; families and samples stay in the order of the first."""
    kinds: dict[str, tuple[str, str]] = {}
    values: dict[str, dict[tuple[str, tuple[tuple[str, str], ...]], float]] = {}
    for families in snapshots:
        for family in families:
            kinds.setdefault(family.name, (family.kind, family.help))
            joined = values.setdefault(family.name, {})
            join = GAUGES.get(family.name, float.__add__)
            for sample in family.samples:
                key = (sample.name, sample.labels)
                value = float(sample.value)
                joined[key] = join(joined[key], value) if key in joined else value
    return [
        Family(name, *kinds[name], [Sample(*key, value) for key, value in values[name].items()])
        for name in kinds
    ]
