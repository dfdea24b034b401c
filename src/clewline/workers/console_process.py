"""The console's process, seen from the process that starts it: started again when it dies."""

from __future__ import annotations

import logging
import os
import socket
import subprocess
import sys

import msgspec

from clewline.workers.explaining_process import BACKOFF_S, LONGEST_BACKOFF_S, THREAD_COUNTS
from clewline.workers.messages import ConsoleOrders, ServerOptions

logger = logging.getLogger(__name__)

STOP_S = 5.0
"""How long it may take to stop before it is killed."""
STEADY_S = 30.0
"""A process that has lived so long has started well."""


class ConsoleProcess:
    """
    Starts the console of a server, and looks after it. For one thread.

    Args:
        module: What the process runs.
        options: Of the server, with the ports that were taken.
        listening: The socket of the console; closed by `close`.
        secret: With which the console calls the prediction server.
    """

    def __init__(
        self, module: str, options: ServerOptions, listening: socket.socket, secret: str
    ) -> None:
        self._module, self._options = module, options
        self._listening, self._secret = listening, secret
        self._process: subprocess.Popen[bytes] | None = None
        self._lifeline = -1  # held open while the process may live
        self._started_at = self._start_at = 0.0
        self._deaths = 0  # in a row

    def look_after(self, now: float) -> None:
        """Notice the end of the process, and start it; called again and again."""
        if self._process is not None:
            if self._process.poll() is None:
                return
            self._handle_exit(now)
        if now >= self._start_at:
            try:
                self._start(now)
            except OSError as error:  # no process, descriptor or memory is left
                logger.error("the console cannot be started: %s", error)
                self._start_at = now + LONGEST_BACKOFF_S

    def close(self) -> None:
        """End the process."""
        if self._process is not None:
            os.close(self._lifeline)
            try:
                self._process.wait(STOP_S)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
            self._process = None
        self._listening.close()

    def _start(self, now: float) -> None:
        lifeline, held = os.pipe()
        written = os.memfd_create("clewline-orders")
        listen = self._listening.fileno()
        orders = ConsoleOrders(
            options=self._options, secret=self._secret, listen=listen, lifeline=lifeline
        )
        os.write(written, msgspec.json.encode(orders))
        try:
            self._process = subprocess.Popen(
                # -P: a module in the current folder, which is a user's, must not be imported.
                [sys.executable, "-P", "-m", self._module, str(written)],
                stdin=subprocess.DEVNULL,
                pass_fds=[written, listen, lifeline],
                env={**os.environ, **dict.fromkeys(THREAD_COUNTS, "1")},
                process_group=0,  # a Ctrl-C at the server's terminal is the server's
            )
        except OSError:
            os.close(held)
            raise
        finally:
            os.close(lifeline)
            os.close(written)
        self._lifeline, self._started_at = held, now

    def _handle_exit(self, now: float) -> None:
        assert self._process is not None
        how = f"ended with status {self._process.returncode}"
        os.close(self._lifeline)
        self._process = None
        self._deaths = 0 if now - self._started_at > STEADY_S else self._deaths + 1
        wait_s = min(BACKOFF_S * 2**self._deaths, LONGEST_BACKOFF_S)
        self._start_at = now + wait_s
        logger.error("the console %s; it starts again in %.1f s", how, wait_s)
