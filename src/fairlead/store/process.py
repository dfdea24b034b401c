"""Naming a process so that another can tell later whether it still lives."""

from __future__ import annotations

import os
import socket
from functools import lru_cache
from typing import Literal

Life = Literal["alive", "dead", "unknown"]

# Start times are computed from the boot time, which moves when the clock is set.
_SLACK_S = 2.0


def this_process() -> str:
    """Name this process: `host:pid:start`, its start in seconds since the epoch."""
    return _named(os.getpid())


def life(name: str) -> Life:
    """Tell whether a process lives; unknown when it is another host's or the name is no name."""
    host, _, rest = name.rpartition(":")[0].rpartition(":")
    start = name.rpartition(":")[2]
    if host != socket.gethostname() or not rest.isdigit():
        return "unknown"
    return "alive" if _started_at(int(rest), float(start)) else "dead"


@lru_cache(maxsize=8)
def _named(pid: int) -> str:
    import psutil

    return f"{socket.gethostname()}:{pid}:{psutil.Process(pid).create_time():.2f}"


def _started_at(pid: int, start: float) -> bool:
    import psutil

    try:
        process = psutil.Process(pid)
        ended = process.status() == psutil.STATUS_ZOMBIE
        return not ended and abs(process.create_time() - start) < _SLACK_S
    except psutil.NoSuchProcess:
        return False
