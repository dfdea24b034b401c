"""
The parent of an isolated model's process: when either end is gone, it ends all descendants.

    server ─(starts)─► subreaper ─(forks)─► model ─► whatever the model starts

The kernel gives orphans below the subreaper to it (PR_SET_CHILD_SUBREAPER, prctl(2)), in
whatever session they are, so none escapes. It is forked before anything large is imported.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import resource
import select
import signal
from pathlib import Path

PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36
_SIGNALS = {signal.SIGCHLD, signal.SIGIO}


def fork_below(lifeline: int) -> None:
    """
    Fork: this process becomes the subreaper, and the call returns in its child alone.

    Args:
        lifeline: Descriptor of a pipe that the server holds open while the model may live.
    """
    prctl = ctypes.CDLL(None).prctl
    prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
    subreaper = os.getpid()
    model = os.fork()
    if model:
        _guard(model, lifeline)  # does not return
    prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != subreaper:
        os._exit(1)  # it was gone before the kernel was asked
    os.setpgid(0, 0)
    os.close(lifeline)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)


def _guard(model: int, lifeline: int) -> None:
    """Wait until the model or the server ends, end all descendants, and exit as the model did."""
    os.closerange(0, lifeline)  # or the server would see no end of the model's output
    os.closerange(lifeline + 1, resource.getrlimit(resource.RLIMIT_NOFILE)[0])
    # SIGIO comes when the last writer of the lifeline is gone.
    fcntl.fcntl(lifeline, fcntl.F_SETOWN, os.getpid())
    flags = fcntl.fcntl(lifeline, fcntl.F_GETFL)
    fcntl.fcntl(lifeline, fcntl.F_SETFL, flags | os.O_ASYNC | os.O_NONBLOCK)
    ended: int | None = None
    is_ending = False
    while True:
        is_ending = is_ending or bool(select.select([lifeline], [], [], 0)[0])
        if is_ending:
            for child in _children():
                os.kill(child, signal.SIGKILL)
        try:
            pid, status = os.waitpid(-1, 0 if is_ending else os.WNOHANG)
        except ChildProcessError:
            break  # all are gone
        if pid == model:
            ended, is_ending = status, True
        elif not pid:
            signal.sigwait(_SIGNALS)
    status = 0 if ended is None else os.waitstatus_to_exitcode(ended)
    if status < 0:
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        if -status != signal.SIGKILL:  # which has no handler to reset
            signal.signal(-status, signal.SIG_DFL)
        os.kill(os.getpid(), -status)
    os._exit(status)


def _children() -> list[int]:
    own = os.getpid()
    return [int(pid) for pid in Path(f"/proc/self/task/{own}/children").read_text().split()]
