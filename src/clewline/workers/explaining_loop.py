"""The work of the explaining process: requests first, then the predictions of the log."""

from __future__ import annotations

import logging
import os
import resource
import signal
import socket
import time
from pathlib import Path

import msgspec

from clewline import project as projects
from clewline.errors import ClewlineError, Fault, StoreFull
from clewline.explain.channel import ExplainReply, TakenRequest, take
from clewline.explain.explain_prediction import PredictionExplainer
from clewline.explainer_kinds import kinds
from clewline.project import Project
from clewline.serve.metrics.shared_metrics import MetricsSnapshot, SharedMetrics
from clewline.workers import server_log
from clewline.workers.background_explainer import BackgroundExplainer
from clewline.workers.explaining_metrics import ExplanationStatistics
from clewline.workers.messages import ExplainingOrders
from clewline.workers.work_watcher import CallerGone, WorkWatcher, lacks_memory

logger = logging.getLogger("clewline.workers.explaining")


def run(orders: ExplainingOrders) -> None:
    """Explain until there is nothing to do for a while, or the server ends."""
    # A terminal sends them to all processes, or to those that write to it from behind.
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGTTOU):
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
        self._limits = orders.limits
        self._taking, self._bell = taking, orders.bell
        self._explainer = PredictionExplainer(project)
        self._watcher = WorkWatcher(orders.limits)
        self._statistics = ExplanationStatistics()
        self._generation = orders.generation
        self._shared = SharedMetrics((orders.metrics,))
        self._background = BackgroundExplainer(
            project, self._explainer, self._watcher, self._statistics, self._publish
        )

    def run(self) -> None:
        """Take requests, and explain in the background, until there is nothing to do for long."""
        self._publish()
        idle_since = time.monotonic()
        while True:
            is_busy = self._background.step()
            left_s = max(0.0, idle_since + self._limits.idle_s - time.monotonic())
            look_s = self._background.wait_s
            wait_s = 0.0 if is_busy else left_s if look_s is None else min(left_s, look_s)
            taken = take(self._taking, self._bell, wait_s)
            if isinstance(taken, TakenRequest):
                self._answer(taken)
            elif taken:
                self._background.wake()
            if is_busy or taken:
                idle_since = time.monotonic()
            elif time.monotonic() - idle_since >= self._limits.idle_s:
                return

    def _answer(self, taken: TakenRequest) -> None:
        """Explain what a caller asked for, and reply."""
        if taken.is_abandoned:
            taken.caller.close()
            return
        request, started = taken.request, time.monotonic()
        kind = request.kind if request.kind in kinds() else ""
        outcome, error = "made", None
        try:
            with self._watcher.watch(request.prediction, taken):
                found = self._explainer.explain(
                    request.prediction, request.kind, request.options, fresh=request.fresh
                )
            kind, outcome = found.explanation.kind, "made" if found.is_new else "stored"
            if not found.is_kept:
                raise StoreFull(found.note)
            reply = ExplainReply(msgspec.Raw(msgspec.json.encode(found.explanation)))
        except CallerGone:
            self._watcher.end()
            outcome = "cancelled"
        except Exception as raised:  # a user's model may raise anything
            outcome, error = "failed", raised
            reply = ExplainReply.of_error(self._as_ours(request.prediction, raised))
        self._statistics.count("request", kind, outcome, time.monotonic() - started)
        self._publish()
        if outcome == "cancelled":
            taken.caller.close()
        else:
            taken.reply(reply)
        if lacks_memory(error):
            self._watcher.end_process()

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

    def _publish(self) -> None:
        """Write the metrics where the workers read them."""
        self._shared.write(0, MetricsSnapshot(self._generation, self._statistics.families()))
