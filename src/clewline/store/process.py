"""Naming a process so that another can tell later whether it still lives."""

from __future__ import annotations

import os
import re
import socket
from functools import lru_cache
from typing import Literal

Life = Literal["alive", "dead", "unknown"]

_NAME = re.compile(r"(?P<host>.+):(?P<pid>\d+):(?P<start>\d+\.\d+)")

# Start times are computed from the boot time, which moves when the clock is set.
_SLACK_S = 2.0


def this_process() -> str:
    """Name this process: `host:pid:start`, its start in seconds since the epoch."""
    return _named(os.getpid())


def life(name: str) -> Life:
    """Tell whether a process lives; unknown when it is another host's or the name is no name."""
    named = _NAME.fullmatch(name)
    if named is None or named["host"] != socket.gethostname():
        return "unknown"
    return "alive" if _started_at(int(named["pid"]), float(named["start"])) else "dead"


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
