"""
What the processes of one server show each other: a small file, mapped into all of them.

    head      how many seats there are, and the last call for metrics
    seats     one for each of `--workers N`: why nobody answers there; the supervisor writes
    slots     two a seat, one for each process (the old one may still drain): pid, state,
              heartbeat, and what each of its threads is at; that process writes

A process that crashes or hangs can say nothing any more, so what it is at stands
here before it begins. A write takes some hundred nanoseconds: no lock, no system
call, one writer for each place. Times are of `time.monotonic`, which all
processes of a machine share.
"""

from __future__ import annotations

import mmap
import os
import struct
from enum import IntEnum
from typing import NamedTuple

THREADS = 64
"""Threads of one process whose work is shown."""
LOOP_S = 2.0
"""How old the heartbeat of an event loop may be, where no endpoint may take longer."""
START_S = 120.0
"""How long a process may take until its loop runs, and a revision until it is loaded."""
REASON_BYTES = 480
NAME_BYTES = 128

_HEAD = struct.Struct("<8sIIQ")
_SEAT = struct.Struct(f"<H{REASON_BYTES}s")
_SLOT = struct.Struct("<IIQdQ")
_WORK = struct.Struct(f"<QddII{NAME_BYTES}sd")
_FLOAT = struct.Struct("<d")
_NUMBER = struct.Struct("<Q")
_MAGIC = b"fairlea2"

_SLOT_BYTES = _SLOT.size + THREADS * _WORK.size
_ASKED_AT = _HEAD.size - _NUMBER.size
_STATE_AT = 4
_BEAT_AT = _SLOT.size - _FLOAT.size - _NUMBER.size
_PUBLISHED_AT = _SLOT.size - _NUMBER.size
_SINCE_AT = _WORK.size - _FLOAT.size


class WorkerState(IntEnum):
    """How far a process is."""

    EMPTY = 0
    STARTING = 1
    READY = 2
    STOPPING = 3


class WorkKind(IntEnum):
    """What a thread does with an endpoint."""

    COMPUTING = 0
    LOADING = 1


class ThreadWork(NamedTuple):
    """What one thread is at."""

    thread: int  # as `threading.get_ident` numbers them
    limit_s: float  # it hangs when it takes longer
    loop_s: float  # and so long it may keep the event loop from its heartbeat
    revision: int
    kind: WorkKind
    endpoint: str
    since: float

    def __str__(self) -> str:
        return f"{self.kind.name.lower()} {self.endpoint}#{self.revision}"


class WorkerSlot:
    """The place of one process; only that process writes it, and the supervisor before it."""

    def __init__(self, memory: mmap.mmap, start: int) -> None:
        self._memory = memory
        self._start = start

    def clear(self, generation: int) -> None:
        """Make it ready for another process; `generation` numbers the processes of a server."""
        self._memory[self._start : self._start + _SLOT_BYTES] = bytes(_SLOT_BYTES)
        _SLOT.pack_into(self._memory, self._start, 0, WorkerState.STARTING, generation, 0.0, 0)

    def enter(self, pid: int) -> None:
        """Say which process writes here from now on."""
        struct.pack_into("<I", self._memory, self._start, pid)

    def show(self, state: WorkerState) -> None:
        """Say how far the process is."""
        struct.pack_into("<I", self._memory, self._start + _STATE_AT, state)

    def beat(self, now: float) -> None:
        """Say that the event loop runs."""
        _FLOAT.pack_into(self._memory, self._start + _BEAT_AT, now)

    def publish(self, asked: int) -> None:
        """Say that the metrics are written down that were asked for."""
        _NUMBER.pack_into(self._memory, self._start + _PUBLISHED_AT, asked)

    def begin(self, place: int, work: bytes, since: float) -> None:
        """Say what a thread begins, as `packed` gave it, and when."""
        start = self._work_at(place)
        self._memory[start : start + _WORK.size] = work
        _FLOAT.pack_into(self._memory, start + _SINCE_AT, since)

    def again(self, place: int, since: float) -> None:
        """Say that a thread begins again what it did before."""
        _FLOAT.pack_into(self._memory, self._work_at(place) + _SINCE_AT, since)

    def end(self, place: int) -> None:
        """Say that a thread is idle."""
        _FLOAT.pack_into(self._memory, self._work_at(place) + _SINCE_AT, 0.0)

    def _work_at(self, place: int) -> int:
        return self._start + _SLOT.size + place * _WORK.size

    @property
    def pid(self) -> int:
        """The process; 0 before it has entered."""
        return int(_SLOT.unpack_from(self._memory, self._start)[0])

    @property
    def state(self) -> WorkerState:
        """How far the process is."""
        return WorkerState(_SLOT.unpack_from(self._memory, self._start)[1])

    @property
    def generation(self) -> int:
        """The number of the process among all of this server."""
        return int(_SLOT.unpack_from(self._memory, self._start)[2])

    @property
    def beat_at(self) -> float:
        """When the event loop last ran; 0.0 before it did."""
        return float(_SLOT.unpack_from(self._memory, self._start)[3])

    @property
    def published(self) -> int:
        """The latest call for metrics that the process has answered."""
        return int(_SLOT.unpack_from(self._memory, self._start)[4])

    def works(self) -> list[ThreadWork]:
        """Give what the threads are at."""
        found = []
        for place in range(THREADS):
            start = self._work_at(place)
            work = _work(self._memory[start : start + _WORK.size])
            if work.since:
                found.append(work)
        return found

    def lateness(self, now: float, awake_since: float = 0.0) -> Hang | None:
        """
        Tell why the process must be taken to hang; None when it need not.

        Args:
            now: Of `time.monotonic`.
            awake_since: Time before it does not count: the machine may have slept.
        """
        works = self.works()
        over = [w for w in works if now - max(w.since, awake_since) > w.limit_s]
        if over:
            return Hang(f"{over[0]} took more than {over[0].limit_s:g} s", over)
        least_s = START_S if self.state == WorkerState.STARTING else LOOP_S
        limit_s = max([least_s, *(work.loop_s for work in works)])
        beat_at = self.beat_at
        if beat_at and now - max(beat_at, awake_since) > limit_s:
            # What began after the loop had stopped cannot have stopped it.
            causes = [work for work in works if work.since <= beat_at + LOOP_S / 2]
            return Hang(f"its event loop stood still for more than {limit_s:g} s", causes)
        return None


class Hang(NamedTuple):
    """Why a process must be taken to hang, and what it was at."""

    reason: str
    causes: list[ThreadWork]


class WorkerTable:
    """
    The whole board.

    Args:
        file: A descriptor of the file; stays the caller's.
    """

    def __init__(self, file: int) -> None:
        self._memory = mmap.mmap(file, os.fstat(file).st_size)
        magic, self.seats, _, _ = _HEAD.unpack_from(self._memory)
        assert magic == _MAGIC, "the supervisor and its workers are one version"

    @classmethod
    def create(cls, seats: int) -> tuple[WorkerTable, int]:
        """Make an empty board without a name; gives it and the descriptor for `WorkerTable`."""
        file = os.memfd_create("clewline-board", os.MFD_CLOEXEC)
        os.truncate(file, _HEAD.size + seats * _SEAT.size + 2 * seats * _SLOT_BYTES)
        os.pwrite(file, _HEAD.pack(_MAGIC, seats, 2 * seats, 0), 0)
        return cls(file), file

    @property
    def slots(self) -> list[WorkerSlot]:
        """All places of processes; those of seat `i` are `i` and `i + seats`."""
        return [self.slot(number) for number in range(2 * self.seats)]

    def slot(self, number: int) -> WorkerSlot:
        """The place of one process."""
        start = _HEAD.size + self.seats * _SEAT.size + number * _SLOT_BYTES
        return WorkerSlot(self._memory, start)

    def seat(self, number: int) -> str:
        """Tell why nobody answers on a seat; "" when somebody does."""
        size, reason = _SEAT.unpack_from(self._memory, _HEAD.size + number * _SEAT.size)
        return str(reason[:size].decode("utf-8", "replace"))

    def explain(self, number: int, reason: str) -> None:
        """Say why nobody answers on a seat; "" when somebody does. The supervisor's."""
        raw = reason.encode()[:REASON_BYTES]
        _SEAT.pack_into(self._memory, _HEAD.size + number * _SEAT.size, len(raw), raw)

    @property
    def asked(self) -> int:
        """The number of the latest call for metrics."""
        return int(_NUMBER.unpack_from(self._memory, _ASKED_AT)[0])

    def ask(self) -> int:
        """Call for the metrics of all processes; two calls at once may be one."""
        number = self.asked + 1
        _NUMBER.pack_into(self._memory, _ASKED_AT, number)
        return number


def packed(work: ThreadWork) -> bytes:
    """Give work as it stands on the board."""
    name = work.endpoint.encode()[:NAME_BYTES]
    return _WORK.pack(*work[:5], name, work.since)


def _work(raw: bytes) -> ThreadWork:
    thread, limit_s, loop_s, revision, kind, name, since = _WORK.unpack(raw)
    endpoint = name.rstrip(b"\0").decode("utf-8", "replace")
    return ThreadWork(thread, limit_s, loop_s, revision, WorkKind(kind), endpoint, since)
