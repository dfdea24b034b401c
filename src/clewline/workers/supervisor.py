"""
The supervisor of a server: owns the port and the workers, and replaces those that die or hang.

    seat 0 ── socket ── worker          a seat is one of `--workers N`, with one socket
    seat 1 ── socket ── worker          each; its queue waits for the next worker

It imports little and computes nothing, so that it outlives what its workers run.
The worker table says what a worker did when it died. A crash or a hang counts
against that revision, a kill by an operator does not; after `CRASHES` of them the
revision is forbidden to every worker, and the others serve on.
"""

from __future__ import annotations

import logging
import os
import re
import secrets
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field

import msgspec

from clewline import errors
from clewline.errors import ClewlineError, Fault, Overloaded
from clewline.protocols.http.listener import listening_sockets, reserve_port
from clewline.serve.metrics.shared_metrics import SharedMetrics
from clewline.workers.console_process import ConsoleProcess
from clewline.workers.explaining_process import ExplainingProcess
from clewline.workers.messages import (
    ForbidRevision,
    ServerOptions,
    StopWorker,
    WorkerFailed,
    WorkerOrders,
    WorkerReady,
)
from clewline.workers.peers import exits
from clewline.workers.unavailable import UnavailablePort
from clewline.workers.worker_table import Hang, ThreadWork, WorkerSlot, WorkerState, WorkerTable

logger = logging.getLogger(__name__)

TICK_S = 0.25
CRASHES = 3
"""Number of crashes and hangs of a revision, within `CRASHES_S`, that forbid it."""
CRASHES_S = 3600.0
BACKOFF_S = 0.1
"""Delay before the second start in a row that fails; doubles each time …"""
LONGEST_BACKOFF_S = 5.0
"""… up to this."""
STEADY_S = 10.0
"""A worker that was ready for this long has started well."""
DUMP_S = 1.0
"""How long a hung worker may take to write its stacks."""
STOP_S = 10.0
"""How long a stopping worker may take beyond `drain_s`."""
DUMP_BYTES = 16 << 10

CRASH_SIGNALS = frozenset(
    (signal.SIGSEGV, signal.SIGABRT, signal.SIGBUS, signal.SIGILL, signal.SIGFPE, signal.SIGTRAP)
)


@dataclass(eq=False)
class _Worker:
    """A process, and the supervisor's ends of what both share."""

    process: subprocess.Popen[bytes]
    slot: WorkerSlot
    number: int  # of its slot
    control: int
    status: int
    dump: int
    ready_at: float | None = None
    hang: Hang | None = None  # why we kill it
    kill_at: float | None = None
    stop_sent: bool = False
    failure: ClewlineError | None = None  # why it cannot start, in its own words
    unread: bytes | None = b""  # the part of a line that came; None after the end

    def send(self, order: StopWorker | ForbidRevision) -> None:
        try:
            os.write(self.control, msgspec.json.encode(order) + b"\n")
        except BrokenPipeError:  # its end is noticed elsewhere
            logger.info("worker process %d has ended already", self.process.pid)

    def close(self) -> None:
        for file in (self.control, self.status, self.dump):
            os.close(file)


@dataclass(eq=False)
class _Seat:
    """One of the workers that there should be: its socket, and the process that answers on it."""

    number: int
    listening: socket.socket
    port: UnavailablePort
    worker: _Worker | None = None
    retiring: _Worker | None = None  # answers its last requests while the other takes over
    failed_starts: int = 0
    start_at: float = 0.0
    failure: ClewlineError | None = None  # why no worker can start here


@dataclass(frozen=True)
class _Exit:
    """How a process ended, and the work that caused it."""

    reason: str  # a label of the metric
    text: str
    causes: list[ThreadWork] = field(default_factory=list)


class Supervisor:
    """
    Starts the workers, and keeps them running.

    Args:
        options: The settings of the server.
        announce: Called once, when all workers are ready for the first time, with what one
            of them serves and with the options, which then name the ports that were taken.
        console: The module of the console's process; needed where the options name its port.
    """

    def __init__(
        self,
        options: ServerOptions,
        announce: Callable[[WorkerReady, ServerOptions], None],
        console: str = "",
    ) -> None:
        self._options = options
        self._announce = announce
        self._announced = False
        self._first_ready: WorkerReady | None = None
        self._table, self._table_file = WorkerTable.create(options.workers)
        self._metrics = SharedMetrics.create(2 * options.workers + 1)
        self._seats: list[_Seat] = []
        self._generation = 0
        self._explaining = ExplainingProcess(
            options.project,
            options.explain,
            self._metrics,
            2 * options.workers,
            self._next_generation,
        )
        self._console_module = console
        self._console: ConsoleProcess | None = None
        self._console_secret = secrets.token_hex(32)
        self._crashes: dict[tuple[str, int], list[float]] = {}
        self._forbidden: list[ForbidRevision] = []
        self._rolling: list[_Seat] = []  # seats whose worker is still to be replaced
        self._stopping = False
        self._ticked_at = self._awake_since = time.monotonic()
        self._reserved: socket.socket | None = None
        self._waker, self._wakes = socket.socketpair()

    def run(self) -> None:
        """
        Serve until SIGTERM or SIGINT, and until every worker has answered its requests.

        SIGHUP replaces one worker after another, without a request that fails.

        Raises:
            Conflict: The port is taken.
            ClewlineError: A worker reports that it cannot start, before any was ready.
        """
        try:
            self._listen()
            with self._signals():
                for seat in self._seats:
                    self._start(seat)
                while self._workers() or not self._stopping:
                    self._turn()
        finally:
            for worker in self._workers():
                worker.process.kill()
                worker.process.wait()
                worker.close()
            self._explaining.close()
            if self._console is not None:
                self._console.close()
            for seat in self._seats:
                seat.port.close()
            for each in (*(s.listening for s in self._seats), self._waker, self._wakes):
                each.close()
            if self._reserved is not None:
                self._reserved.close()
            for file in (self._table_file, *self._metrics.files, *self._metrics.bells):
                os.close(file)

    def _turn(self) -> None:
        """Wait for an event, then look after every worker."""
        statuses = [each.status for each in self._workers() if each.unread is not None]
        waited = [*statuses, *self._explaining.waits_on(self._ticked_at), self._wakes.fileno()]
        readable, _, _ = select.select(waited, [], [], TICK_S)
        if self._wakes.fileno() in readable:
            self._handle_signals(self._wakes.recv(4096))
        now = time.monotonic()
        if now - self._ticked_at > 4 * TICK_S:
            self._awake_since = now  # we did not run, so perhaps the workers did not either
        self._ticked_at = now
        for worker in self._workers():
            if worker.status in readable:
                self._read_status(worker)
        for seat in self._seats:
            self._look_after(seat, now)
            if not self._stopping:
                seat.port.answer(seat.failure, now)
        self._explaining.look_after(now)
        self._roll()
        ready = all(seat.worker and seat.worker.ready_at is not None for seat in self._seats)
        if not self._announced and ready and self._first_ready is not None:
            self._announced = True
            self._announce(self._first_ready, self._options)
        if self._announced and self._console is not None and not self._stopping:
            self._console.look_after(now)  # after the workers, so that predictions come first

    def _workers(self) -> list[_Worker]:
        found = [worker for seat in self._seats for worker in (seat.worker, seat.retiring)]
        return [worker for worker in found if worker is not None]

    # ---- starting

    def _listen(self) -> None:
        options = self._options
        if options.grpc_port is not None:
            self._reserved = reserve_port(options.host, options.grpc_port)
            grpc_port = self._reserved.getsockname()[1]
            options = msgspec.structs.replace(options, grpc_port=grpc_port)
        taken = listening_sockets(options.host, options.port, options.workers)
        self._options = msgspec.structs.replace(options, port=taken[0].getsockname()[1])
        if options.console_port is not None:
            (console,) = listening_sockets(options.host, options.console_port, 1)
            port = console.getsockname()[1]
            self._options = msgspec.structs.replace(self._options, console_port=port)
            self._console = ConsoleProcess(
                self._console_module, self._options, console, self._console_secret
            )
        answers = options.tls_cert is None
        self._seats = [
            _Seat(number, each, UnavailablePort(each, answers=answers))
            for number, each in enumerate(taken)
        ]

    def _start(self, seat: _Seat) -> None:
        """Start a process for a seat, beside the one that is there."""
        assert seat.retiring is None, "a seat has two slots"
        number = seat.number
        if seat.worker is not None and seat.worker.number == number:
            number += len(self._seats)
        self._table.slot(number).clear(self._next_generation())
        with ExitStack() as opened:  # closed again if no process can be started

            def take(*files: int) -> tuple[int, ...]:
                for file in files:
                    opened.callback(os.close, file)
                return files

            control_end, control = take(*os.pipe())
            status, status_end = take(*os.pipe())
            dump, written = take(os.memfd_create("clewline-stacks")) + take(
                os.memfd_create("clewline-orders")
            )
            orders = WorkerOrders(
                options=self._options,
                slot=number,
                forbidden=self._forbidden,
                console_secret=self._console_secret if self._console is not None else None,
                listen=seat.listening.fileno(),
                asking=self._explaining.channel.asking.fileno(),
                explain_bell=self._explaining.channel.bell,
                table=self._table_file,
                metrics=list(self._metrics.files),
                bells=list(self._metrics.bells),
                status=status_end,
                dump=dump,
            )
            os.write(written, msgspec.json.encode(orders))
            handed = [written, control_end, status_end, dump]
            handed += [orders.listen, orders.asking, orders.explain_bell, orders.table]
            # -P: a module in the current folder, which is a user's, must not be imported.
            words = [sys.executable, "-P", "-m", "clewline.workers.worker"]
            process = subprocess.Popen(
                [*words, str(written), str(control_end)],
                stdin=subprocess.DEVNULL,
                pass_fds=[*handed, *orders.metrics, *orders.bells],
            )
            opened.pop_all()
        for file in (written, control_end, status_end):
            os.close(file)
        worker = _Worker(process, self._table.slot(number), number, control, status, dump)
        seat.retiring, seat.worker = seat.worker, worker

    def _next_generation(self) -> int:
        self._generation += 1
        return self._generation

    def _read_status(self, worker: _Worker) -> None:
        data = os.read(worker.status, 1 << 16)
        if not data:
            worker.unread = None
            return
        *lines, worker.unread = ((worker.unread or b"") + data).split(b"\n")
        for line in lines:
            message = msgspec.json.decode(line, type=WorkerReady | WorkerFailed)
            if isinstance(message, WorkerFailed):
                kind = getattr(errors, message.error, Fault)
                worker.failure = kind(message.message, message.fix)
                continue
            worker.ready_at = time.monotonic()
            self._first_ready = self._first_ready or message
            for seat in self._seats:
                if seat.worker is worker:
                    seat.failure = None
                    self._table.set_reason(seat.number, "")
                    if seat.retiring is not None:
                        self._stop_worker(seat.retiring, hands_over=True)

    # ---- looking after

    def _look_after(self, seat: _Seat, now: float) -> None:
        for worker in (seat.worker, seat.retiring):
            if worker is None:
                continue
            if worker.process.poll() is not None:
                self._handle_exit(seat, worker)
            else:
                self._check_hang(worker, now)
        # Free: there is no worker, or somebody else has stopped it.
        is_free = seat.worker is None or (
            seat.retiring is None and seat.worker.slot.state == WorkerState.STOPPING
        )
        if is_free and not self._stopping and now >= seat.start_at:
            self._try_start(seat)

    def _try_start(self, seat: _Seat) -> None:
        """Start a process for a seat, or plan to try again."""
        try:
            self._start(seat)
        except OSError as error:  # no process, descriptor or memory is left
            logger.error("worker %d cannot be started: %s", seat.number, error)
            seat.start_at = time.monotonic() + LONGEST_BACKOFF_S
            if seat.worker is None:
                reason = f"No worker can be started: {error.strerror}."
                seat.failure = Overloaded(reason, "Try again in a few seconds.")

    def _check_hang(self, worker: _Worker, now: float) -> None:
        """End a worker that hangs: let it write its stacks, then kill it."""
        if worker.kill_at is not None:
            if now >= worker.kill_at:
                worker.process.kill()
        elif not worker.stop_sent:
            worker.hang = worker.slot.hang(now, self._awake_since)
            if worker.hang is not None:
                logger.error("worker process %d hangs: %s", worker.process.pid, worker.hang.reason)
                worker.process.send_signal(signal.SIGABRT)
                worker.kill_at = now + DUMP_S

    def _handle_exit(self, seat: _Seat, worker: _Worker) -> None:
        """Say why a process ended, count it against the cause, and plan the next start."""
        stacks = os.pread(worker.dump, DUMP_BYTES, 0).decode("utf-8", "replace")
        exit = _judge_exit(worker, stacks)
        was_expected = worker.stop_sent and exit.reason == "stopped"
        if stacks and not was_expected:
            logger.error("the stacks of worker process %d:\n%s", worker.process.pid, stacks)
        self._metrics.fold(worker.number, [exits(exit.reason)])
        worker.slot.clear(0, WorkerState.EMPTY)
        worker.close()
        if seat.retiring is worker:
            seat.retiring = None
        else:
            # A retiring one beside it goes on: it was not stopped before this one was
            # ready, or it is about to end and the seat is free then.
            seat.worker, seat.retiring = seat.retiring, None
        is_raised = not self._announced and worker.failure is not None  # by `_plan_start`
        if not (was_expected or is_raised or self._stopping):
            logger.error("worker process %d %s", worker.process.pid, exit.text)
        for work in exit.causes:
            self._count_crash(work, exit)
        if seat.worker is None:
            self._plan_start(seat, worker, exit)

    def _plan_start(self, seat: _Seat, worker: _Worker, exit: _Exit) -> None:
        """Replace a worker at once; wait longer each time if starts fail in a row."""
        if not self._announced and worker.failure is not None:
            raise worker.failure
        now = time.monotonic()
        if worker.ready_at is not None and now - worker.ready_at > STEADY_S:
            seat.failed_starts = 0
        if worker.ready_at is None:
            seat.failure = worker.failure or Overloaded(
                f"No worker can start: the last one {exit.text}.", "The server's log has more."
            )
        doublings = seat.failed_starts - (worker.ready_at is not None)
        wait_s = min(BACKOFF_S * 2**doublings, LONGEST_BACKOFF_S) if doublings >= 0 else 0.0
        seat.failed_starts += 1
        seat.start_at = now + wait_s
        self._table.set_reason(seat.number, f"it {exit.text}, and is being replaced")
        if wait_s and not self._stopping:
            logger.error("worker %d starts again in %.1f s", seat.number, wait_s)

    def _count_crash(self, work: ThreadWork, exit: _Exit) -> None:
        """Count a crash of a revision, and forbid the revision after too many."""
        key, now = (work.endpoint, work.revision), time.monotonic()
        recent = [at for at in self._crashes.get(key, []) if now - at < CRASHES_S]
        self._crashes[key] = [*recent, now]
        if len(self._crashes[key]) < CRASHES:
            return
        message = (
            f"{work.endpoint}#{work.revision} has ended {CRASHES} workers; "
            f"the last one {exit.text}."
        )
        logger.error("%s It answers no more until another revision goes live.", message)
        forbid = ForbidRevision(work.endpoint, work.revision, message)
        self._forbidden.append(forbid)
        self._crashes[key] = []
        for worker in self._workers():
            worker.send(forbid)

    def _roll(self) -> None:
        """Replace the worker of the next seat, once the one before has its new worker alone."""
        if self._rolling and not self._stopping and not any(s.retiring for s in self._seats):
            seat = self._rolling.pop(0)
            if seat.worker is not None and seat.worker.ready_at is not None:
                self._try_start(seat)

    # ---- stopping

    @contextmanager
    def _signals(self) -> Iterator[None]:
        """Let signals wake the supervisor, and restore their handlers at the end."""
        self._waker.setblocking(False)
        signal.set_wakeup_fd(self._waker.fileno(), warn_on_full_buffer=False)
        wanted = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD)
        before = {number: signal.signal(number, lambda *_: None) for number in wanted}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
            signal.set_wakeup_fd(-1)

    def _handle_signals(self, numbers: bytes) -> None:
        for number in numbers:
            terminal_closed = number == signal.SIGHUP and sys.stderr.isatty()
            if number in (signal.SIGTERM, signal.SIGINT) or terminal_closed:
                self._stop()
            elif number == signal.SIGHUP:
                logger.warning("replacing one worker after another")
                self._rolling = list(self._seats)

    def _stop(self) -> None:
        if self._stopping:
            return
        self._stopping = True
        for seat in self._seats:
            seat.listening.close()  # the worker closes it last, when it stops
        for worker in self._workers():
            self._stop_worker(worker)

    def _stop_worker(self, worker: _Worker, *, hands_over: bool = False) -> None:
        if not worker.stop_sent:
            worker.stop_sent = True
            worker.kill_at = time.monotonic() + self._options.drain_s + STOP_S
            worker.send(StopWorker(hands_over))
            if worker.ready_at is None:
                worker.process.kill()  # it has taken no request yet, and may load for long


def _judge_exit(worker: _Worker, stacks: str) -> _Exit:
    """Judge how a process ended, by its exit code and its work."""
    code = worker.process.returncode
    works = worker.slot.works()
    if worker.hang is not None:
        return _Exit("hung", f"was ended because {worker.hang.reason}", worker.hang.causes)
    if worker.failure is not None:
        return _Exit("failed", f"could not start: {worker.failure}")
    if code == 0 and worker.slot.state == WorkerState.STOPPING:
        return _Exit("stopped", "was stopped")
    if code < 0 and signal.Signals(-code) not in CRASH_SIGNALS:
        return _Exit("killed", f"was killed by {signal.Signals(-code).name}")
    reason, how = "exited", f"ended itself with status {code}"
    if code < 0:
        reason, how = "crashed", f"crashed by {signal.Signals(-code).name}"
        # The thread that crashed is the cause if its stack names it; else all that worked.
        crashed = re.search(r"^Current thread (0x[0-9a-f]+)", stacks, re.MULTILINE)
        if crashed is not None:
            works = [work for work in works if work.thread == int(crashed[1], 16)] or works
    during = f" while {' and '.join(map(str, works))}" if works else ""
    return _Exit(reason, how + during, works)
