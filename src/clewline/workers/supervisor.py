"""
The supervisor of a server: owns the port and the workers, and replaces those that die or hang.

    seat 0 ── socket ── worker          a seat is one of `--workers N`, with one socket
    seat 1 ── socket ── worker          each: its queue waits for the next worker

It imports little and computes nothing, so that it outlives what its workers run.
What a worker was at when it died stands on the board. A crash or a hang counts
against that revision, a kill by an operator does not; after `CRASHES` of them the
revision is forbidden to every worker, and the others serve on.
"""

from __future__ import annotations

import logging
import os
import re
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import msgspec

from clewline import errors
from clewline.errors import ClewlineError, Fault
from clewline.protocols.http import listener
from clewline.serve.metrics.shared_metrics import (
    NO_EXITS,
    MetricFamily,
    MetricSample,
    SharedMetrics,
)
from clewline.workers.messages import (
    ForbidRevision,
    StopWorker,
    WorkerFailed,
    WorkerOrders,
    WorkerReady,
)
from clewline.workers.options import ServerOptions
from clewline.workers.worker_table import Hang, ThreadWork, WorkerSlot, WorkerState, WorkerTable

logger = logging.getLogger(__name__)

TICK_S = 0.25
CRASHES = 3
"""So many crashes and hangs of a revision, within `CRASHES_S`, forbid it."""
CRASHES_S = 3600.0
BACKOFF_S = 0.1
"""How long the second start in a row waits that goes wrong; then twice as long each time …"""
LONGEST_BACKOFF_S = 5.0
"""… and this at most."""
STEADY_S = 10.0
"""A worker that was ready for so long has started well."""
DUMP_S = 1.0
"""How long a hung worker may take to write down its stacks."""
STOP_S = 10.0
"""How long a stopping worker may take beyond `drain_s`."""
DUMP_BYTES = 16 << 10

CRASH_SIGNALS = frozenset(
    (signal.SIGSEGV, signal.SIGABRT, signal.SIGBUS, signal.SIGILL, signal.SIGFPE, signal.SIGTRAP)
)


@dataclass(eq=False)
class _Worker:
    """A process, and our ends of what it shares with us."""

    process: subprocess.Popen[bytes]
    slot: WorkerSlot
    number: int  # of its slot
    control: int
    status: int
    dump: int
    ready_at: float | None = None
    lateness: Hang | None = None  # why we kill it
    kill_at: float | None = None
    told_to_stop: bool = False
    failure: ClewlineError | None = None  # why it says that it cannot start
    said: bytes | None = b""  # what came of a line that is not whole yet; None at the end

    def tell(self, order: StopWorker | ForbidRevision) -> None:
        """Send an order; one that has died meanwhile is noticed elsewhere."""
        try:
            os.write(self.control, msgspec.json.encode(order) + b"\n")
        except BrokenPipeError:
            logger.info("worker process %d has ended already", self.process.pid)

    def close(self) -> None:
        """Let go of our ends."""
        for file in (self.control, self.status, self.dump):
            os.close(file)


@dataclass(eq=False)
class _Seat:
    """One of the workers that there should be: its socket, and who answers on it."""

    number: int
    listening: socket.socket
    worker: _Worker | None = None
    retiring: _Worker | None = None  # answers what is under way, while the other takes over
    failed_starts: int = 0
    start_at: float = 0.0


@dataclass(frozen=True)
class _Death:
    """How a process ended, and whose fault it was."""

    reason: str  # a label of the metric
    text: str
    causes: list[ThreadWork] = field(default_factory=list)


class Supervisor:
    """
    Starts the workers, and keeps them.

    Args:
        options: What the server was told.
        announce: Called once, when all workers are ready for the first time, with what one
            of them serves and with the options, where the ports are now those that were taken.
    """

    def __init__(
        self, options: ServerOptions, announce: Callable[[WorkerReady, ServerOptions], None]
    ) -> None:
        self._options = options
        self._announce = announce
        self._announced = False
        self._first_ready: WorkerReady | None = None
        self._board, self._board_file = WorkerTable.create(options.workers)
        self._shelf = SharedMetrics.create(2 * options.workers)
        self._seats: list[_Seat] = []
        self._generation = 0
        self._crashes: dict[tuple[str, int], list[float]] = {}
        self._forbidden: list[ForbidRevision] = []
        self._rolling: list[_Seat] = []  # seats whose worker is still to be replaced
        self._stopping = False
        self._ticked_at = self._awake_since = time.monotonic()
        self._reserved: socket.socket | None = None
        self._waker, self._wakes = socket.socketpair()

    def run(self) -> None:
        """
        Serve until SIGTERM or SIGINT, and until every worker has answered what it had taken.

        SIGHUP replaces one worker after another, without a request that fails.

        Raises:
            Conflict: The port is taken.
            ClewlineError: What a worker says before any was ready.
        """
        try:
            self._listen()
            with self._signals():
                self._serve()
        finally:
            self._release()

    def _serve(self) -> None:
        try:
            for seat in self._seats:
                self._start(seat)
            while any(seat.worker or seat.retiring for seat in self._seats) or not self._stopping:
                self._turn()
        finally:
            self._kill_all()

    def _turn(self) -> None:
        """Wait for something to happen, then look after everybody."""
        watched = [each.status for each in self._workers() if each.said is not None]
        watched.append(self._wakes.fileno())
        readable, _, _ = select.select(watched, [], [], TICK_S)
        if self._wakes.fileno() in readable:
            self._heed(self._wakes.recv(4096))
        now = time.monotonic()
        if now - self._ticked_at > 4 * TICK_S:
            self._awake_since = now  # we did not run, so neither may the workers have
        self._ticked_at = now
        for worker in self._workers():
            if worker.status in readable:
                self._listen_to(worker)
        for seat in self._seats:
            self._look_after(seat, now)
        self._roll()
        self._check_ready()

    def _workers(self) -> list[_Worker]:
        found = [worker for seat in self._seats for worker in (seat.worker, seat.retiring)]
        return [worker for worker in found if worker is not None]

    # ---- starting

    def _listen(self) -> None:
        options = self._options
        if options.grpc_port is not None:
            self._reserved = listener.reserve(options.host, options.grpc_port)
            grpc_port = self._reserved.getsockname()[1]
            self._options = options = msgspec.structs.replace(options, grpc_port=grpc_port)
        taken = listener.listen(options.host, options.port, options.workers)
        self._options = msgspec.structs.replace(options, port=taken[0].getsockname()[1])
        self._seats = [_Seat(number, each) for number, each in enumerate(taken)]

    def _start(self, seat: _Seat) -> None:
        """Start a process for a seat, beside the one that is there."""
        assert seat.retiring is None, "a seat has two slots"
        number = seat.number
        if seat.worker is not None and seat.worker.number == number:
            number += len(self._seats)
        self._generation += 1
        slot = self._board.slot(number)
        slot.clear(self._generation)
        worker = self._spawn(seat, slot, number)
        seat.retiring, seat.worker = seat.worker, worker

    def _spawn(self, seat: _Seat, slot: WorkerSlot, number: int) -> _Worker:
        control_end, control = os.pipe()
        status, status_end = os.pipe()
        dump = os.memfd_create("clewline-stacks")
        orders = WorkerOrders(
            options=self._options,
            slot=number,
            forbidden=self._forbidden,
            listen=seat.listening.fileno(),
            board=self._board_file,
            shelf=list(self._shelf.files),
            bells=list(self._shelf.bells),
            status=status_end,
            dump=dump,
        )
        written = os.memfd_create("clewline-orders")
        os.write(written, msgspec.json.encode(orders))
        handed = [written, control_end, status_end, dump, orders.listen, orders.board]
        # Not from the current folder (-P): what lies there is a user's.
        words = [sys.executable, "-P", "-m", "clewline.workers.worker"]
        process = subprocess.Popen(
            [*words, str(written), str(control_end)],
            stdin=subprocess.DEVNULL,
            pass_fds=[*handed, *orders.shelf, *orders.bells],
        )
        for file in (written, control_end, status_end):
            os.close(file)
        return _Worker(process, slot, number, control, status, dump)

    def _check_ready(self) -> None:
        """Announce the server when everybody is ready for the first time."""
        ready = all(seat.worker and seat.worker.ready_at is not None for seat in self._seats)
        if not self._announced and ready and self._first_ready is not None:
            self._announced = True
            self._announce(self._first_ready, self._options)

    # ---- looking after

    def _listen_to(self, worker: _Worker) -> None:
        """Read what a worker says."""
        data = os.read(worker.status, 1 << 16)
        if not data:
            worker.said = None
            return
        *lines, worker.said = ((worker.said or b"") + data).split(b"\n")
        for line in lines:
            said = msgspec.json.decode(line, type=WorkerReady | WorkerFailed)
            if isinstance(said, WorkerReady):
                self._is_ready(worker, said)
            else:
                worker.failure = _error(said)

    def _is_ready(self, worker: _Worker, said: WorkerReady) -> None:
        worker.ready_at = time.monotonic()
        self._first_ready = self._first_ready or said
        for seat in self._seats:
            if seat.worker is worker:
                self._board.explain(seat.number, "")
                if seat.retiring is not None:
                    self._tell_to_stop(seat.retiring, hands_over=True)

    def _look_after(self, seat: _Seat, now: float) -> None:
        for worker in (seat.worker, seat.retiring):
            if worker is None:
                continue
            if worker.process.poll() is not None:
                self._bury(seat, worker)
            else:
                self._check_late(worker, now)
        if not self._stopping and now >= seat.start_at and self._is_free(seat):
            self._start(seat)

    def _is_free(self, seat: _Seat) -> bool:
        """Tell whether nobody takes requests there: none is, or it was told by another to stop."""
        if seat.worker is None:
            return True
        return seat.retiring is None and seat.worker.slot.state == WorkerState.STOPPING

    def _check_late(self, worker: _Worker, now: float) -> None:
        """End a worker that hangs: first its stacks, then its life."""
        if worker.kill_at is not None:
            if now >= worker.kill_at:
                worker.process.kill()
            return
        if worker.told_to_stop:
            return
        worker.lateness = worker.slot.lateness(now, self._awake_since)
        if worker.lateness is not None:
            logger.error("worker process %d hangs: %s", worker.process.pid, worker.lateness.reason)
            worker.process.send_signal(signal.SIGABRT)
            worker.kill_at = now + DUMP_S

    def _bury(self, seat: _Seat, worker: _Worker) -> None:
        """Say why a process ended, count it against whose fault it was, and see to the next."""
        stacks = os.pread(worker.dump, DUMP_BYTES, 0).decode("utf-8", "replace")
        death = _death(worker, stacks)
        was_expected = worker.told_to_stop and death.reason == "stopped"
        if stacks and not was_expected:
            logger.error("the stacks of worker process %d:\n%s", worker.process.pid, stacks)
        self._shelf.fold(worker.number, [_exits(death.reason)])
        worker.slot.clear(0)
        worker.slot.show(WorkerState.EMPTY)
        worker.close()
        if seat.retiring is worker:
            seat.retiring = None
        else:
            # One that is retiring beside it goes on: it was not told to stop before this one
            # was ready, or it is about to end and the seat is free then.
            seat.worker, seat.retiring = seat.retiring, None
        if not was_expected and not self._stopping:
            logger.error("worker process %d %s", worker.process.pid, death.text)
        for work in death.causes:
            self._count(work, death)
        if seat.worker is None:
            self._plan_start(seat, worker, death)

    def _plan_start(self, seat: _Seat, worker: _Worker, death: _Death) -> None:
        """Replace a worker at once; wait longer each time when starts go wrong in a row."""
        if not self._announced and worker.failure is not None:
            raise worker.failure
        now = time.monotonic()
        if worker.ready_at is not None and now - worker.ready_at > STEADY_S:
            seat.failed_starts = 0
        doublings = seat.failed_starts - (worker.ready_at is not None)
        wait_s = min(BACKOFF_S * 2**doublings, LONGEST_BACKOFF_S) if doublings >= 0 else 0.0
        seat.failed_starts += 1
        seat.start_at = now + wait_s
        self._board.explain(seat.number, f"it {death.text}, and is being replaced")
        if wait_s and not self._stopping:
            logger.error("worker %d starts again in %.1f s", seat.number, wait_s)

    def _count(self, work: ThreadWork, death: _Death) -> None:
        """Count a crash against a revision, and forbid it when there were too many."""
        key, now = (work.endpoint, work.revision), time.monotonic()
        recent = [at for at in self._crashes.get(key, []) if now - at < CRASHES_S]
        self._crashes[key] = [*recent, now]
        if len(self._crashes[key]) < CRASHES:
            return
        message = (
            f"{work.endpoint}#{work.revision} has ended {CRASHES} workers; "
            f"the last one {death.text}."
        )
        logger.error("%s It answers no more until another revision goes live.", message)
        forbid = ForbidRevision(work.endpoint, work.revision, message)
        self._forbidden.append(forbid)
        self._crashes[key] = []
        for worker in self._workers():
            worker.tell(forbid)

    # ---- replacing one after another

    def _roll(self) -> None:
        """Go on to the next seat when the one before has its new worker alone."""
        if not self._rolling or self._stopping:
            return
        if any(seat.retiring for seat in self._seats):
            return
        seat = self._rolling.pop(0)
        if seat.worker is not None and seat.worker.ready_at is not None:
            self._start(seat)

    # ---- stopping

    @contextmanager
    def _signals(self) -> Iterator[None]:
        """Let signals wake us, and give them back at the end."""
        self._waker.setblocking(False)
        signal.set_wakeup_fd(self._waker.fileno(), warn_on_full_buffer=False)
        wanted = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD)
        before = {number: signal.signal(number, _noted) for number in wanted}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
            signal.set_wakeup_fd(-1)

    def _heed(self, numbers: bytes) -> None:
        for number in numbers:
            if number in (signal.SIGTERM, signal.SIGINT):
                self._stop()
            elif number == signal.SIGHUP and sys.stderr.isatty():
                self._stop()  # the terminal was closed
            elif number == signal.SIGHUP:
                logger.warning("replacing one worker after another")
                self._rolling = list(self._seats)

    def _stop(self) -> None:
        if self._stopping:
            return
        self._stopping = True
        for seat in self._seats:
            seat.listening.close()  # the last to close it is the worker, when it stops
        for worker in self._workers():
            self._tell_to_stop(worker)

    def _tell_to_stop(self, worker: _Worker, *, hands_over: bool = False) -> None:
        if not worker.told_to_stop:
            worker.told_to_stop = True
            worker.kill_at = time.monotonic() + self._options.drain_s + STOP_S
            worker.tell(StopWorker(hands_over))
            if worker.ready_at is None:
                worker.process.kill()  # it has taken nothing yet, and may load for long

    def _kill_all(self) -> None:
        for worker in self._workers():
            worker.process.kill()
            worker.process.wait()
            worker.close()

    def _release(self) -> None:
        for seat in self._seats:
            seat.listening.close()
        for each in (self._waker, self._wakes, self._reserved):
            if each is not None:
                each.close()
        for file in (self._board_file, *self._shelf.files, *self._shelf.bells):
            os.close(file)


def _noted(number: int, frame: object) -> None:
    """Let the signal wake the supervisor, which reads its number there."""


def _death(worker: _Worker, stacks: str) -> _Death:
    """Judge how a process ended, by its exit code and by what it was at."""
    code = worker.process.returncode
    works = worker.slot.works()
    if worker.lateness is not None:
        reason = worker.lateness.reason
        return _Death("hung", f"was ended because {reason}", worker.lateness.causes)
    if worker.failure is not None:
        return _Death("failed", f"could not start: {worker.failure}")
    if code < 0 and signal.Signals(-code) in CRASH_SIGNALS:
        causes = _guilty(works, stacks)
        return _Death("crashed", f"crashed by {signal.Signals(-code).name}{_at(causes)}", causes)
    if code < 0:
        return _Death("killed", f"was killed by {signal.Signals(-code).name}")
    if code == 0 and worker.slot.state == WorkerState.STOPPING:
        return _Death("stopped", "was told to stop")
    return _Death("exited", f"ended itself with status {code}{_at(works)}", works)


def _guilty(works: list[ThreadWork], stacks: str) -> list[ThreadWork]:
    """Choose the thread that crashed, when its stack names it; else all that were at something."""
    found = re.search(r"^Current thread (0x[0-9a-f]+)", stacks, re.MULTILINE)
    if found is None:
        return works
    return [work for work in works if work.thread == int(found[1], 16)] or works


def _at(works: list[ThreadWork]) -> str:
    return f" while {' and '.join(str(work) for work in works)}" if works else ""


def _error(said: WorkerFailed) -> ClewlineError:
    kind = getattr(errors, said.error, Fault)
    error: ClewlineError = kind(said.message, said.fix)
    return error


def _exits(reason: str) -> MetricFamily:
    """Count an end among those that have not come to be."""
    return msgspec.structs.replace(NO_EXITS, samples=[MetricSample((("reason", reason),), [1.0])])
