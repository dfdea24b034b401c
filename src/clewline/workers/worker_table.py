"""
What the processes of one server show each other: a small file, mapped into all of them.

    head      the number of seats, and the number of the latest request for metrics
    seats     one for each of `--workers N`: why it does not answer; the supervisor writes
    slots     two a seat, one for each process (the old one may still drain): pid, state,
              heartbeat, and the work of each of its threads; that process writes

A process that crashes or hangs cannot report anything, so it writes down its work
before it begins. A write takes some hundred nanoseconds: no lock, no system call, one
writer for each place. Times are of `time.monotonic`, which all processes share.
"""

from __future__ import annotations

import mmap
import os
import struct
import time
from enum import IntEnum
from typing import Generic, NamedTuple, Protocol, TypeVar

from clewline.protocols.http.health import Readiness

THREADS = 64
"""Maximum threads of one process that are shown."""
LOOP_S = 2.0
"""Greatest age of an event loop's heartbeat, unless an endpoint may take longer."""
START_S = 120.0
"""Longest time until the loop of a process runs, and until a revision is loaded."""
REASON_BYTES = 480
NAME_BYTES = 128

_HEAD = struct.Struct("<QII8s")
_SEAT = struct.Struct(f"<H{REASON_BYTES}s")
_SLOT = struct.Struct("<QQdII")
_WORK = struct.Struct(f"<QddII{NAME_BYTES}sd")
_FLOAT = struct.Struct("<d")
_MAGIC = b"clewtab1"

_SLOT_BYTES = _SLOT.size + THREADS * _WORK.size
_SINCE_AT = _WORK.size - _FLOAT.size

T = TypeVar("T", int, float)


class _Mapped(Protocol):
    memory: mmap.mmap
    start: int


class _Cell(Generic[T]):
    """A number at an offset of the mapped memory, read and written as an attribute."""

    def __init__(self, format: str, offset: int) -> None:
        self._struct, self._offset = struct.Struct(format), offset

    def __get__(self, owner: _Mapped, _: object = None) -> T:
        value: T = self._struct.unpack_from(owner.memory, owner.start + self._offset)[0]
        return value

    def __set__(self, owner: _Mapped, value: T) -> None:
        self._struct.pack_into(owner.memory, owner.start + self._offset, value)


class WorkerState(IntEnum):
    """The stage of a process."""

    EMPTY = 0
    STARTING = 1
    READY = 2
    STOPPING = 3


class WorkKind(IntEnum):
    """What a thread does for an endpoint."""

    COMPUTING = 0
    LOADING = 1


class ThreadWork(NamedTuple):
    """The work of one thread."""

    thread: int  # as `threading.get_ident` numbers them
    limit_s: float  # it hangs if it takes longer
    loop_s: float  # how long it may keep the event loop from its heartbeat
    revision: int
    kind: WorkKind
    endpoint: str
    since: float

    def __str__(self) -> str:
        return f"{self.kind.name.lower()} {self.endpoint}#{self.revision}"


class Hang(NamedTuple):
    """Why a process is taken to hang, and the work that caused it."""

    reason: str
    causes: list[ThreadWork]


class WorkerSlot:
    """The place of one process. Only that process writes it, and the supervisor before it."""

    generation = _Cell[int]("<Q", 0)  # number of the process among all of this server
    published = _Cell[int]("<Q", 8)  # the latest request for metrics that it has answered
    beat_at = _Cell[float]("<d", 16)  # when its event loop last ran; 0.0 before
    state = _Cell[int]("<I", 24)  # a `WorkerState`

    def __init__(self, memory: mmap.mmap, start: int) -> None:
        self.memory = memory
        self.start = start

    def clear(self, generation: int, state: WorkerState = WorkerState.STARTING) -> None:
        """Make room for another process."""
        self.memory[self.start : self.start + _SLOT_BYTES] = bytes(_SLOT_BYTES)
        self.generation, self.state = generation, state

    def set_work(self, place: int, work: bytes) -> None:
        """Write the work of a thread, as `encode_work` gives it; a place below 0 is none."""
        if place >= 0:
            start = self.start + _SLOT.size + place * _WORK.size
            self.memory[start : start + _WORK.size] = work

    def set_since(self, place: int, since: float) -> None:
        """Write when a thread began its work; 0.0 when it has ended it."""
        if place >= 0:
            at = self.start + _SLOT.size + place * _WORK.size + _SINCE_AT
            _FLOAT.pack_into(self.memory, at, since)

    def works(self) -> list[ThreadWork]:
        """List the work of all threads."""
        first = self.start + _SLOT.size
        found = []
        for raw in _WORK.iter_unpack(self.memory[first : first + THREADS * _WORK.size]):
            thread, limit_s, loop_s, revision, kind, name, since = raw
            if since:
                name = name.rstrip(b"\0").decode("utf-8", "replace")
                work = (thread, limit_s, loop_s, revision, WorkKind(kind), name, since)
                found.append(ThreadWork(*work))
        return found

    def hang(self, now: float, awake_since: float = 0.0) -> Hang | None:
        """
        Return why the process must be taken to hang, or None if it does not.

        Args:
            now: Of `time.monotonic`.
            awake_since: Time before it does not count, as the machine may have slept.
        """
        works = self.works()
        over = [w for w in works if now - max(w.since, awake_since) > w.limit_s]
        if over:
            return Hang(f"{over[0]} took more than {over[0].limit_s:g} s", over)
        least_s = START_S if self.state == WorkerState.STARTING else LOOP_S
        limit_s = max([least_s, *(work.loop_s for work in works)])
        beat_at = self.beat_at
        if beat_at and now - max(beat_at, awake_since) > limit_s:
            # Work that began after the loop had stopped cannot have stopped it.
            causes = [work for work in works if work.since <= beat_at + LOOP_S / 2]
            return Hang(f"its event loop stood still for more than {limit_s:g} s", causes)
        return None


class WorkerTable:
    """
    The whole table.

    Args:
        file: A descriptor of the file; stays the caller's.
    """

    wanted = _Cell[int]("<Q", 0)  # number of the latest request for metrics

    def __init__(self, file: int) -> None:
        self.memory = mmap.mmap(file, os.fstat(file).st_size)
        self.start = 0
        _, self.seats, _, magic = _HEAD.unpack_from(self.memory)
        assert magic == _MAGIC, "the supervisor and its workers are one version"

    @classmethod
    def create(cls, seats: int) -> tuple[WorkerTable, int]:
        """Create an empty table; returns it and the descriptor of its file."""
        file = os.memfd_create("clewline-workers", os.MFD_CLOEXEC)
        os.truncate(file, _HEAD.size + seats * _SEAT.size + 2 * seats * _SLOT_BYTES)
        os.pwrite(file, _HEAD.pack(0, seats, 2 * seats, _MAGIC), 0)
        return cls(file), file

    @property
    def slots(self) -> list[WorkerSlot]:
        """The places of all processes; those of seat `i` are `i` and `i + seats`."""
        return [self.slot(number) for number in range(2 * self.seats)]

    def slot(self, number: int) -> WorkerSlot:
        """Return the place of one process."""
        start = _HEAD.size + self.seats * _SEAT.size + number * _SLOT_BYTES
        return WorkerSlot(self.memory, start)

    def reason(self, seat: int) -> str:
        """Return why a seat does not answer; "" if it does."""
        size, reason = _SEAT.unpack_from(self.memory, _HEAD.size + seat * _SEAT.size)
        return str(reason[:size].decode("utf-8", "replace"))

    def set_reason(self, seat: int, reason: str) -> None:
        """Write why a seat does not answer; only the supervisor may."""
        raw = reason.encode()[:REASON_BYTES]
        _SEAT.pack_into(self.memory, _HEAD.size + seat * _SEAT.size, len(raw), raw)

    def readiness(self) -> Readiness:
        """Count the workers that answer, and say why the others do not."""
        now, ready, reasons = time.monotonic(), 0, []
        for seat in range(self.seats):
            slots = (self.slot(seat), self.slot(seat + self.seats))
            hangs = [slot.hang(now) for slot in slots if slot.state == WorkerState.READY]
            if None in hangs:
                ready += 1
            else:
                hang = next(filter(None, hangs), None)
                reason = hang.reason if hang else self.reason(seat) or "it is starting"
                reasons.append(f"worker {seat}: {reason}")
        return Readiness(ready, self.seats, tuple(reasons))


def encode_work(work: ThreadWork) -> bytes:
    """Encode work as it stands in the table."""
    name = work.endpoint.encode()[:NAME_BYTES]
    return _WORK.pack(*work[:5], name, work.since)
