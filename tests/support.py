"""What tests of several folders use: waiting, and processes that end with the test run."""

from __future__ import annotations

import asyncio
import ctypes
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

T = TypeVar("T")

PATIENCE_S = 30.0
"""How long a test waits before it fails; long enough for a machine that is busy elsewhere."""

_libc = ctypes.CDLL(None)


def wait_for(condition: Callable[[], T], seconds: float = PATIENCE_S) -> T:
    """Return what `condition` returns, as soon as that is true."""
    give_up = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < give_up, f"waited {seconds} s for {condition}"
        time.sleep(0.005)
    return found


async def wait_until(condition: Callable[[], T], seconds: float = PATIENCE_S) -> T:
    """Return what `condition` returns, as soon as that is true; other tasks run meanwhile."""
    give_up = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < give_up, f"waited {seconds} s for {condition}"
        await asyncio.sleep(0.005)
    return found


@contextmanager
def process(command: Sequence[Any], **options: Any) -> Iterator[subprocess.Popen[Any]]:
    """Start a process; it ends with the block, or with the test run if that is killed."""
    started = subprocess.Popen(command, preexec_fn=die_with_parent, **options)
    try:
        yield started
    finally:
        started.kill()
        started.wait()
        for pipe in (started.stdin, started.stdout, started.stderr):
            if pipe is not None:
                pipe.close()


def die_with_parent() -> None:
    """Ask the kernel to kill this process when its parent ends (prctl(2), PR_SET_PDEATHSIG)."""
    _libc.prctl(1, signal.SIGKILL)
