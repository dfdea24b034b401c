"""
Watches the work of the explaining process from a thread.

It ends the process if an explanation takes too long, because nothing else ends a model that
hangs, and interrupts the main thread if nobody waits for what it computes.
"""

from __future__ import annotations

import logging
import os
import select
import signal
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

from clewline.errors import Fault
from clewline.explain.channel import ExplainReply, TakenRequest
from clewline.workers.messages import LIMIT_STATUS, ExplainLimits

logger = logging.getLogger("clewline.workers.explaining")

WATCH_S = 0.25
"""Time between two looks at the work under way."""
LAST_S = 120.0
"""If a model holds the interpreter for so long, the kernel ends the process; long enough for this
thread to get a CPU on a busy machine."""


class CallerGone(BaseException):
    """Nobody waits for the explanation any more; no `except Exception` of a model catches it."""


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
        self.end_process()

    def end_process(self) -> NoReturn:
        """End the process: a limit was reached, and what libraries hold is unknown."""
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
