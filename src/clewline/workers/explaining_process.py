"""
The explaining process of a server, seen from the process that starts it.

It is started when somebody asks for an explanation, replaced when it dies, and ends itself when
it has nothing to do. While it does not run, requests wait in the channel.
"""

from __future__ import annotations

import logging
import os
import select
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress

import msgspec

from clewline.errors import ClewlineError, Overloaded
from clewline.explain.channel import ExplainChannel, ExplainReply, take
from clewline.serve.metrics.metric_families import MetricFamily
from clewline.serve.metrics.shared_metrics import SharedMetrics
from clewline.workers.explaining_metrics import before_any_process, explaining_exits
from clewline.workers.messages import LIMIT_STATUS, ExplainingOrders, ExplainLimits

logger = logging.getLogger(__name__)

BACKOFF_S = 0.2
"""Delay before the second start in a row after a death; doubles each time …"""
LONGEST_BACKOFF_S = 5.0
"""… up to this."""
FAILED_STARTS = 3
"""After so many processes in a row that did not become ready, whoever waits is told."""
THREAD_COUNTS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "POLARS_MAX_THREADS")
"""Variables of the environment with which libraries are told to compute on one thread."""


class ExplainingProcess:
    """
    Starts the explaining process of a server, and looks after it. For one thread.

    Args:
        project: The folder of the project.
        limits: What one explanation may take.
        shared: The metrics of the server.
        number: The slot of the process among them.
        next_generation: Returns the number of the next process of the server.
    """

    def __init__(
        self,
        project: str,
        limits: ExplainLimits,
        shared: SharedMetrics,
        number: int,
        next_generation: Callable[[], int],
    ) -> None:
        self.channel = ExplainChannel.create()
        self._project, self._limits = project, limits
        self._shared, self._number = shared, number
        self._next_generation = next_generation
        self._process: subprocess.Popen[bytes] | None = None
        self._generation = 0
        self._lifeline = -1  # held open while the process may live
        self._deaths = 0  # in a row
        self._failed_starts = 0  # in a row
        self._start_at = 0.0
        self._restart = False  # it ended in the middle of its work

    def waits_on(self, now: float) -> list[int]:
        """Return the descriptors that are readable as soon as the process has to be started."""
        is_waiting = self._process is None and now >= self._start_at
        return self._wanted() if is_waiting else []

    def metrics(self) -> list[list[MetricFamily]]:
        """Read the metrics of the process and of those before it."""
        return [*self._shared.all(), before_any_process()]

    def look_after(self, now: float) -> None:
        """Notice the end of the process, and start one if there is work; called again and again."""
        if self._process is not None:
            if self._process.poll() is None:
                return
            self._handle_exit(now)
        if now >= self._start_at and (self._restart or self._is_asked()):
            try:
                self._start()
            except OSError as error:  # no process, descriptor or memory is left
                logger.error("the explaining process cannot be started: %s", error)
                self._refuse_all(f"The explaining process cannot be started: {error.strerror}.")
                self._start_at = now + LONGEST_BACKOFF_S

    def close(self) -> None:
        """End the process and everything that it has started."""
        if self._process is not None:
            os.close(self._lifeline)
            self._process.wait()
            self._process = None
        self.channel.close()

    def _is_asked(self) -> bool:
        return bool(select.select(self._wanted(), [], [], 0)[0])

    def _wanted(self) -> list[int]:
        return [self.channel.taking.fileno(), self.channel.bell]

    def _start(self) -> None:
        self._generation = self._next_generation()
        lifeline, held = os.pipe()
        taking, metrics = self.channel.taking.fileno(), self._shared.files[self._number]
        orders = ExplainingOrders(
            project=self._project,
            limits=self._limits,
            generation=self._generation,
            taking=taking,
            bell=self.channel.bell,
            metrics=metrics,
            lifeline=lifeline,
        )
        words = [sys.executable, "-P", "-m", "clewline.workers.explaining_worker"]
        try:
            self._process = subprocess.Popen(
                [*words, msgspec.json.encode(orders).decode()],
                stdin=subprocess.DEVNULL,
                pass_fds=[taking, orders.bell, metrics, lifeline],
                env={**os.environ, **dict.fromkeys(THREAD_COUNTS, "1")},
                process_group=0,  # a Ctrl-C at the server's terminal is the server's
            )
        except OSError:
            os.close(held)
            raise
        finally:
            os.close(lifeline)
        self._lifeline, self._restart = held, False

    def _handle_exit(self, now: float) -> None:
        assert self._process is not None
        code, pid = self._process.returncode, self._process.pid
        os.close(self._lifeline)
        self._process = None
        was_ready = self._shared.read(self._number).generation == self._generation
        reason, how = _judge_exit(code)
        self._shared.fold(self._number, [explaining_exits(reason)])
        self._failed_starts = 0 if was_ready else self._failed_starts + 1
        self._restart = reason != "idle"  # it had work, unless a signal ended it
        if not self._restart:
            self._deaths = 0
            return
        logger.error("explaining process %d %s", pid, how)
        if self._deaths:
            self._start_at = now + min(BACKOFF_S * 2 ** (self._deaths - 1), LONGEST_BACKOFF_S)
        self._deaths += 1
        if self._failed_starts >= FAILED_STARTS:
            self._restart = False  # until somebody asks again
            self._refuse_all(f"The explaining process cannot start: it {how}.")

    def _refuse_all(self, message: str) -> None:
        """Tell everybody who waits that there is no explaining process."""
        error: ClewlineError = Overloaded(message, "The server's log has more.")
        with suppress(BlockingIOError):
            while request := take(self.channel.taking, self.channel.bell, 0):
                if not isinstance(request, bool):
                    request.reply(ExplainReply.of_error(error))


def _judge_exit(code: int) -> tuple[str, str]:
    """Return the reason of an exit as the metric labels it, and in words."""
    if code == 0:
        return "idle", "had nothing to do"
    if code == LIMIT_STATUS or -code == signal.SIGALRM:
        return "limit", "ended itself because an explanation took too much time or memory"
    if code > 0:
        return "failed", f"ended itself with status {code}"
    name = signal.Signals(-code).name
    if -code in (signal.SIGKILL, signal.SIGTERM, signal.SIGINT):
        return "killed", f"was killed by {name}"
    return "crashed", f"crashed by {name}"
