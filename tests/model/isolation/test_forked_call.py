"""A call in a fork: its result comes back, and its hang, crash or hunger stays there."""

from __future__ import annotations

import ctypes
import os
import sys
import threading
import time
from collections.abc import Callable

import numpy as np
import pytest
from support import PATIENCE_S

from clewline.model.isolation.forked_call import ForkFailed, call_in_fork


def call(function: Callable[[], bytes], seconds: float = PATIENCE_S) -> bytes:
    return call_in_fork(function, seconds=seconds, memory_bytes=256 << 20)


def test_what_it_returns_comes_back_whole_and_what_it_changes_is_lost() -> None:
    kept = [b"abc" * 1_000_000]

    def function() -> bytes:
        kept.append(b"")
        return kept[0]

    assert call(function) == kept[0]
    assert len(kept) == 1
    assert call(lambda: b"") == b""
    assert call(lambda: b"%d" % os.getpid()) != b"%d" % os.getpid()


def crash() -> bytes:
    return ctypes.string_at(0)


def wait() -> bytes:
    time.sleep(600)
    return b""


def wait_with_a_result_half_written() -> bytes:
    threading.Thread(target=time.sleep, args=(600,)).start()
    os.closerange(3, 1000)  # the pipe, too: its end is no result
    time.sleep(600)
    return b""


@pytest.mark.parametrize(
    ("function", "seconds", "reason"),
    [
        (crash, PATIENCE_S, "was ended by SIGSEGV"),
        (wait, 0.5, "did not end within 0.5 s"),
        (lambda: np.ones(1 << 26).tobytes(), PATIENCE_S, "needs more than 256 MiB of memory"),
        (lambda: sys.exit(3), PATIENCE_S, "exited with status 1"),
        (lambda: os._exit(3), PATIENCE_S, "exited with status 3"),
        (lambda: [][0], PATIENCE_S, "exited with status 1"),
    ],
)
def test_a_call_without_a_result_says_how_it_ended(
    function: Callable[[], bytes], seconds: float, reason: str
) -> None:
    with pytest.raises(ForkFailed, match=f"^{reason}$"):
        call(function, seconds)
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)  # none is left


def test_a_fork_that_closes_its_pipe_is_ended_when_its_time_is_over() -> None:
    with pytest.raises(ForkFailed, match=r"did not end within 0\.5 s"):
        call(wait_with_a_result_half_written, 0.5)
