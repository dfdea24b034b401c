"""
A function call in a fork of this process, with limits on time and memory.

A fork has the model, the tables and every imported library already, so a call costs some
milliseconds where a new interpreter would cost seconds. But it has only the thread that
forked: what waits for another one, such as a pool of OpenMP's threads, waits until the limit.
"""

from __future__ import annotations

import ctypes
import faulthandler
import os
import resource
import select
import signal
import time
import warnings
from collections.abc import Callable
from pathlib import Path

from clewline.model.isolation.subreaper import PR_SET_PDEATHSIG

PIECE_BYTES = 1 << 20
_NO_MEMORY = 99
"""Exit status of a fork that got no more memory."""


class ForkFailed(Exception):
    """The fork ended without a result; the message says how, as the end of a sentence."""


def call_in_fork(function: Callable[[], bytes], *, seconds: float, memory_bytes: int) -> bytes:
    """
    Call a function in a fork of this process, and return what it returned.

    Args:
        function: Anything that it changes in memory is lost.
        seconds: Greatest time that the call may take.
        memory_bytes: Memory that it may take beyond that of this process, as RLIMIT_DATA
            counts, see getrlimit(2).

    Raises:
        ForkFailed: It took longer, raised, or the fork was ended by a signal.
    """
    until = time.monotonic() + seconds
    ours, theirs = os.pipe()
    with warnings.catch_warnings(action="ignore", category=DeprecationWarning):
        pid = os.fork()  # Python 3.12 warns if there are threads, see the top of this module
    if not pid:
        _answer(function, theirs, memory_bytes)  # does not return
    os.close(theirs)
    pieces: list[bytes] = []
    is_late = False
    try:
        poll = select.poll()
        poll.register(ours, select.POLLIN)
        while not is_late:
            if not poll.poll(max(0.0, until - time.monotonic()) * 1000):
                is_late = True
            elif piece := os.read(ours, PIECE_BYTES):
                pieces.append(piece)
            else:
                break
    except BaseException:
        is_late = True  # a Ctrl-C, for instance
        raise
    finally:
        os.close(ours)
        # After the end of the pipe it has nothing to do but to exit.
        while not is_late and not (ended := os.waitpid(pid, os.WNOHANG))[0]:
            is_late = time.monotonic() >= until
            time.sleep(0.0005)
        if is_late:
            os.kill(pid, signal.SIGKILL)
            ended = os.waitpid(pid, 0)
        status = os.waitstatus_to_exitcode(ended[1])
    if is_late:
        raise ForkFailed(f"did not end within {seconds:g} s")
    if status < 0:
        raise ForkFailed(f"was ended by {signal.Signals(-status).name}")
    if status == _NO_MEMORY:
        raise ForkFailed(f"needs more than {memory_bytes >> 20} MiB of memory")
    if status:
        raise ForkFailed(f"exited with status {status}")
    return b"".join(pieces)


def _answer(function: Callable[[], bytes], result: int, memory_bytes: int) -> None:
    """Call the function, write its result into a pipe, and exit without any clean-up."""
    status = 1
    try:
        faulthandler.disable()
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        pages = int(Path("/proc/self/statm").read_text().split()[5])  # data and stack
        limit = pages * os.sysconf("SC_PAGE_SIZE") + memory_bytes
        hard = resource.getrlimit(resource.RLIMIT_DATA)[1]
        resource.setrlimit(resource.RLIMIT_DATA, (limit, hard))
        rest = memoryview(function())
        while rest:
            rest = rest[os.write(result, rest) :]
        status = 0
    except MemoryError:
        status = _NO_MEMORY
    finally:
        os._exit(status)
