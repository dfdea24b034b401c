"""The work of the explaining process: requests first, then the predictions of the log."""

from __future__ import annotations

import logging
import os
import resource
import select
import signal
import socket
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec

from clewline import project as projects
from clewline.errors import ClewlineError, Fault
from clewline.explain.channel import ExplainReply, ExplainRequest, TakenRequest, take
from clewline.explain.explained_row import Explanation
from clewline.explain.explainer import Explainer, best_explainer
from clewline.explain.logged_rows import LoggedRows
from clewline.explainer_kinds import explainer_of, read_options
from clewline.project import Project
from clewline.serve.metrics.shared_metrics import MetricsSnapshot, SharedMetrics
from clewline.workers import server_log
from clewline.workers.explaining_metrics import ExplanationStatistics
from clewline.workers.messages import LIMIT_STATUS, ExplainingOrders, ExplainLimits

logger = logging.getLogger("clewline.workers.explaining")

WATCH_S = 0.25
"""Time between two looks at the work under way."""
LAST_S = 30.0
"""If a model holds the interpreter for so long, the kernel ends the process."""


class CallerGone(BaseException):
    """Nobody waits for the explanation any more; no `except Exception` of a model catches it."""


def run(orders: ExplainingOrders) -> None:
    """Explain until there is nothing to do for a while, or the server ends."""
    for number in (signal.SIGINT, signal.SIGHUP):  # a terminal sends them to all processes
        signal.signal(number, signal.SIG_IGN)
    server_log.configure_logging("explaining")
    lower_priority()
    memory = orders.limits.memory_bytes
    resource.setrlimit(resource.RLIMIT_DATA, (memory, memory))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    project = projects.load(Path(orders.project))
    with socket.socket(fileno=orders.taking) as taking:
        ExplainingLoop(project, orders, taking).run()
    logging.shutdown()
    os._exit(0)  # a model may have left threads that do not end


def lower_priority() -> None:
    """Let this process run only when nobody else wants the CPU."""
    os.nice(19)
    try:
        os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
    except OSError as error:  # a sandbox may forbid it
        logger.info("explanations are computed at nice 19, not SCHED_IDLE: %s", error)


class ExplainingLoop:
    """
    Takes requests one by one.

    Args:
        project: Has the log, the packages and the catalog.
        orders: What the process was started with.
        taking: The end of the channel on which requests come.
    """

    def __init__(self, project: Project, orders: ExplainingOrders, taking: socket.socket) -> None:
        self._rows = LoggedRows(project)
        self._limits = orders.limits
        self._taking = taking
        self._watcher = WorkWatcher(orders.limits)
        self._statistics = ExplanationStatistics()
        self._generation = orders.generation
        self._shared = SharedMetrics((orders.metrics,))

    def run(self) -> None:
        """Take requests until none comes for a while."""
        self._publish()
        while True:
            taken = take(self._taking, self._limits.idle_s)
            if taken is False:
                return
            if isinstance(taken, TakenRequest):
                self._answer(taken)

    def _answer(self, taken: TakenRequest) -> None:
        """Explain what a caller asked for, and reply."""
        if taken.is_abandoned:
            taken.caller.close()
            return
        request, started = taken.request, time.monotonic()
        kind, outcome, error = request.kind or "", "made", None
        try:
            with self._watcher.watch(request.prediction, taken):
                kind, explanation = self._explain(request)
                reply = ExplainReply(msgspec.Raw(msgspec.json.encode(explanation)))
        except CallerGone:
            self._watcher.end()
            outcome = "cancelled"
        except Exception as raised:  # a user's model may raise anything
            outcome, error = "failed", raised
            reply = ExplainReply.of_error(self._as_ours(request.prediction, raised))
        self._count(kind, outcome, started)
        if outcome == "cancelled":
            taken.caller.close()
        else:
            taken.reply(reply)
        if lacks_memory(error):  # what libraries hold may be in an unknown state
            logging.shutdown()
            os._exit(LIMIT_STATUS)

    def _explain(self, request: ExplainRequest) -> tuple[str, Explanation]:
        """Explain a prediction as a request asks for; returns the kind too."""
        explainer: Explainer[Any] | None = None
        if request.kind is not None:
            explainer = explainer_of(request.kind)
        row = self._rows.read(request.prediction)
        explainer = explainer or best_explainer(row.model)
        return explainer.kind, explainer.explain(row, read_options(explainer, request.options))

    def _as_ours(self, prediction: str, error: Exception) -> ClewlineError:
        """Return an error as its caller is told."""
        if lacks_memory(error):
            size = self._limits.memory_bytes >> 20
            return Fault(
                f"The explanation of {prediction} needs more than {size} MiB.",
                "Ask with a smaller budget, or start the server with a larger --explain-memory.",
            )
        if isinstance(error, ClewlineError):
            return error
        logger.error("%s could not be explained", prediction, exc_info=error)
        return Fault(
            f"{prediction} could not be explained: {type(error).__name__}: {error}.",
            "The server's log has the reason.",
        )

    def _count(self, kind: str, outcome: str, started: float) -> None:
        self._statistics.count(kind, outcome, time.monotonic() - started)
        self._publish()

    def _publish(self) -> None:
        """Write the metrics where the workers read them."""
        self._shared.write(0, MetricsSnapshot(self._generation, self._statistics.families()))


class WorkWatcher:
    """
    Ends the process if an explanation takes too long, and interrupts one that nobody waits for.

    Args:
        limits: How long one explanation may take.
    """

    def __init__(self, limits: ExplainLimits) -> None:
        self._limits = limits
        self._lock = threading.Lock()
        self._begun = threading.Condition(self._lock)
        self._work: _Work | None = None
        signal.signal(signal.SIGUSR1, self._interrupt)
        threading.Thread(target=self._run, name="clewline-watch", daemon=True).start()

    def watch(self, name: str, taken: TakenRequest | None = None) -> _Work:
        """Return a context in which the main thread works for a prediction."""
        return _Work(self, name, taken)

    def begin(self, work: _Work) -> None:
        """Watch a piece of work."""
        with self._lock:
            self._work = work
            self._begun.notify()

    def end(self) -> None:
        """Watch no more; an interrupt that is on its way does no harm."""
        with self._lock:
            self._work = None
        signal.setitimer(signal.ITIMER_REAL, 0)

    def _interrupt(self, *_: object) -> None:
        """Raise in the main thread, if it still works for a caller who has left."""
        work = self._work
        if work is not None and work.taken is not None and work.taken.is_abandoned:
            raise CallerGone

    def _run(self) -> None:
        while True:
            with self._lock:
                while self._work is None:
                    self._begun.wait()
                work = self._work
                signal.setitimer(signal.ITIMER_REAL, LAST_S)
            if work.spent_s() > self._limits.seconds and self._work is work:
                self._stop(work)
            if work.taken is None:
                time.sleep(WATCH_S)
                continue
            poll = select.poll()
            poll.register(work.taken.caller, select.POLLHUP)
            if poll.poll(WATCH_S * 1000) and self._work is work:
                signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGUSR1)
                time.sleep(WATCH_S)

    def _stop(self, work: _Work) -> None:
        """Reply that the time is over, and end the process: nothing else ends a hanging model."""
        message = (
            f"The explanation of {work.name} took more than {self._limits.seconds:g} s: "
            "the model is too slow, or hangs."
        )
        logger.error(message)
        if work.taken is not None:
            fix = "Ask with a smaller budget, or start the server with a larger --explain-timeout."
            work.taken.reply(ExplainReply.of_error(Fault(message, fix)))
        logging.shutdown()
        os._exit(LIMIT_STATUS)


class _Work:
    """An explanation that is being computed by the main thread."""

    def __init__(self, watcher: WorkWatcher, name: str, taken: TakenRequest | None) -> None:
        self.name, self.taken = name, taken
        self._watcher = watcher
        self._started = time.monotonic()
        self._waited_before_s = waited_for_cpu_s()

    def __enter__(self) -> None:
        self._watcher.begin(self)

    def __exit__(self, *_: object) -> None:
        self._watcher.end()

    def spent_s(self) -> float:
        """Return how long it took, without the time in which there was no CPU for it."""
        waited_s = waited_for_cpu_s() - self._waited_before_s
        return time.monotonic() - self._started - waited_s


def waited_for_cpu_s() -> float:
    """
    Return how long the main thread was ready to run and had no CPU, since its start.

    Source:
        Linux, Documentation/scheduler/sched-stats.rst: the second number is the time on a run
        queue, in nanoseconds. Kernels without it say nothing, and all time counts.
    """
    with suppress(FileNotFoundError):
        text = Path(f"/proc/self/task/{os.getpid()}/schedstat").read_text()
        return int(text.split()[1]) / 1e9
    return 0.0


def lacks_memory(error: BaseException | None) -> bool:
    """Return whether an error comes of too little memory."""
    while error is not None and not isinstance(error, MemoryError):
        error = error.__cause__
    return error is not None
