"""
Metrics of several processes as one: kept where all can read them, merged, and written.

Counters and histograms are summed, those of ended processes included, so that they
never go back. Gauges are of the processes that live.
"""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Iterable, Iterator
from itertools import accumulate
from operator import add
from typing import NamedTuple

import msgspec

GAUGES = {
    "clewline_live_revision": min,  # the one that every worker has reached
    "clewline_endpoint_ready": min,
    "clewline_router_state": min,
    "clewline_catalog_followed": min,
    "clewline_certificate_expires_timestamp_seconds": min,
    "clewline_build_info": max,
    "process_start_time_seconds": min,
}
"""Gauges that are not sums over the workers."""

FOLDED = 256
"""Ended processes that are remembered as folded."""

_HEAD = struct.Struct("<QII")
_HALF = 1 << 32
"""Where the second half of a file begins; the files have holes."""


class MetricSample(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """
    What was counted under some labels.

    `values` is one number; of a histogram the observations under each bound and
    above none below it, those above all bounds, and the sum.
    """

    labels: tuple[tuple[str, str], ...]
    values: list[float]


class MetricFamily(msgspec.Struct, frozen=True, array_like=True):
    """The samples of one metric."""

    name: str  # as it is shown, of a counter with `_total`
    kind: str  # as Prometheus names it: counter, gauge, histogram
    help: str
    samples: list[MetricSample]
    bounds: tuple[float, ...] = ()  # of a histogram


EXITS = ("crashed", "hung", "exited", "failed", "killed", "stopped")
NO_EXITS = MetricFamily(
    "clewline_worker_exits_total",
    "counter",
    "Processes of workers that have ended.",
    [MetricSample((("reason", reason),), [0.0]) for reason in EXITS],
)
"""Shown before any has ended, so that the first one is seen as a change."""


class MetricsSnapshot(msgspec.Struct, frozen=True, array_like=True):
    """The metrics of one process, or of those that have ended."""

    generation: int = 0  # of the process; 0: none
    families: list[MetricFamily] = []
    folded: list[int] = []  # generations that are contained, of those that have ended


class SharedMetrics(NamedTuple):
    """
    Where every process leaves its metrics: a file without a name for each.

    A file has one writer, which writes its two halves in turn: what was left
    before is whole when it is killed in between, or read meanwhile.
    """

    files: tuple[int, ...]  # descriptors: one a slot of the board, then the one of the ended
    bells: tuple[int, ...] = ()  # one a slot, to be rung when somebody wants its metrics

    @classmethod
    def create(cls, slots: int) -> SharedMetrics:
        """Make empty files, and bells."""
        return cls(
            tuple(os.memfd_create("clewline-metrics", 0) for _ in range(slots + 1)),
            tuple(os.eventfd(0, os.EFD_NONBLOCK) for _ in range(slots)),
        )

    def ring(self, number: int) -> None:
        """Wake the worker of a slot; one that is not there leaves it to the next."""
        try:
            os.eventfd_write(self.bells[number], 1)
        except BlockingIOError:
            return  # it was rung 2⁶⁴ times, and rings still

    def hear(self, number: int) -> None:
        """Take note that the bell was rung."""
        try:
            os.eventfd_read(self.bells[number])
        except BlockingIOError:
            return  # heard already

    def put(self, number: int, snapshot: MetricsSnapshot) -> None:
        """Leave the metrics of a slot; -1 is the place of those that have ended."""
        data = msgspec.msgpack.encode(snapshot)
        turn = max(self._heads(number))[0] + 1
        head = _HEAD.pack(turn, len(data), zlib.crc32(data))
        os.pwrite(self.files[number], head + data, turn % 2 * _HALF)

    def get(self, number: int) -> MetricsSnapshot:
        """Read the metrics of a slot; empty when there are none."""
        file = self.files[number]
        for turn, size, checksum in sorted(self._heads(number), reverse=True):
            data = os.pread(file, size, turn % 2 * _HALF + _HEAD.size)
            if turn and zlib.crc32(data) == checksum:
                return msgspec.msgpack.decode(data, type=MetricsSnapshot)
        return MetricsSnapshot()

    def _heads(self, number: int) -> list[tuple[int, int, int]]:
        raw = [os.pread(self.files[number], _HEAD.size, half * _HALF) for half in (0, 1)]
        return [_HEAD.unpack(head.ljust(_HEAD.size, b"\0")) for head in raw]

    def fold(self, number: int, more: list[MetricFamily]) -> None:
        """Keep the counts of a process that has ended, and `more`, and clear its place."""
        ended, before = self.get(number), self.get(-1)
        counts = [family for family in ended.families if family.kind != "gauge"]
        folded = [*before.folded, ended.generation][-FOLDED:]
        # First the sum, then the clearing: a reader skips what is folded already.
        self.put(-1, MetricsSnapshot(0, merge_families([before.families, counts, more]), folded))
        self.put(number, MetricsSnapshot())

    def all(self) -> list[list[MetricFamily]]:
        """Read the metrics of all processes, each once; the ended ones stand last."""
        living = [self.get(number) for number in range(len(self.files) - 1)]
        ended = self.get(-1)
        return [
            *(each.families for each in living if each.generation not in {0, *ended.folded}),
            ended.families,
        ]


def merge_families(snapshots: Iterable[list[MetricFamily]]) -> list[MetricFamily]:
    """Merge the metrics of processes; families and samples stay in the order of the first."""
    kinds: dict[str, MetricFamily] = {}
    values: dict[str, dict[tuple[tuple[str, str], ...], list[float]]] = {}
    for families in snapshots:
        for family in families:
            kinds.setdefault(family.name, family)
            joined = values.setdefault(family.name, {})
            join = GAUGES.get(family.name, add)
            for labels, more in map(_parts, family.samples):
                known = joined.get(labels)
                joined[labels] = more if known is None else list(map(join, known, more))
    return [
        msgspec.structs.replace(
            family, samples=[MetricSample(*each) for each in values[name].items()]
        )
        for name, family in kinds.items()
    ]


def _parts(sample: MetricSample) -> tuple[tuple[tuple[str, str], ...], list[float]]:
    return sample.labels, sample.values


def exposition_text(families: Iterable[MetricFamily]) -> bytes:
    """Write metrics in the text format of Prometheus."""
    return "".join(line for family in families for line in _lines(family)).encode()


def _lines(family: MetricFamily) -> Iterator[str]:
    name = family.name
    yield f"# HELP {name} {family.help}\n# TYPE {name} {family.kind}\n"
    if family.kind == "histogram":
        bounds = [*map(repr, map(float, family.bounds)), "+Inf"]
        for sample in family.samples:
            yield _histogram(name, _labels(sample.labels), sample.values, bounds)
        return
    for sample in family.samples:
        labels = _labels(sample.labels)
        yield (
            f"{name}{{{labels}}} {sample.values[0]}\n"
            if labels
            else (f"{name} {sample.values[0]}\n")
        )


def _histogram(name: str, labels: str, values: list[float], bounds: list[str]) -> str:
    """Write a histogram as Prometheus wants it: each bound with all that is below."""
    below = list(accumulate(values[:-1]))
    head = f"{name}_bucket{{{labels}," if labels else f"{name}_bucket{{"
    lines = [f'{head}le="{le}"}} {count}\n' for le, count in zip(bounds, below, strict=True)]
    shown = f"{{{labels}}}" if labels else ""
    lines.append(f"{name}_sum{shown} {values[-1]}\n{name}_count{shown} {below[-1]}\n")
    return "".join(lines)


def _labels(labels: tuple[tuple[str, str], ...]) -> str:
    return ",".join([f'{name}="{_escaped(value)}"' for name, value in labels])


def _escaped(value: str) -> str:
    if "\\" in value or '"' in value or "\n" in value:
        return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return value
