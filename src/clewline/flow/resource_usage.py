"""The resource usage of a block of code: wall and CPU time, peak memory, energy."""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

CLEAR_PEAK = Path("/proc/self/clear_refs")
STATUS = Path("/proc/self/status")
POWERCAP = Path("/sys/class/powercap")

EnergyCounters = dict[Path, tuple[int, int]]
"""Processor package → counter and its range, in µJ."""


@dataclass(slots=True)
class ResourceUsage:
    """
    The usage of the block under `measure_usage`; filled when the block ends.

    CPU time is that of all threads of this process and of its ended children.
    Peak memory is the resident peak of the whole process during the block. Energy
    is that of the machine's processors for all processes, or None if the machine
    does not report it.
    """

    wall_s: float = 0.0
    cpu_s: float = 0.0
    peak_bytes: int = 0
    energy_j: float | None = None


@contextmanager
def measure_usage() -> Iterator[ResourceUsage]:
    """
    Measure the usage of the block.

    The counters belong to the process: if two blocks run at the same time in
    threads, each is charged with both.
    """
    usage = ResourceUsage()
    with suppress(OSError):  # not Linux, or a kernel that forbids it: the peak is the process's
        CLEAR_PEAK.write_bytes(b"5")
    energy, cpu, wall = _energy_counters(), _cpu_seconds(), time.perf_counter()
    try:
        yield usage
    finally:
        usage.wall_s = time.perf_counter() - wall
        usage.cpu_s = _cpu_seconds() - cpu
        usage.peak_bytes = _peak_bytes()
        usage.energy_j = spent_joules(energy, _energy_counters())


def _cpu_seconds() -> float:
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + children.ru_utime + children.ru_stime


def _peak_bytes() -> int:
    try:
        status = STATUS.read_bytes()
    except OSError:
        unit = 1 if sys.platform == "darwin" else 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    start = status.index(b"VmHWM:") + len(b"VmHWM:")
    return int(status[start : status.index(b"kB", start)]) * 1024


def _energy_counters() -> EnergyCounters:
    """Read the counters of the processor packages that are readable (Intel/AMD RAPL)."""
    counters = {}
    for zone in POWERCAP.iterdir() if POWERCAP.is_dir() else ():
        if zone.name.count(":") != 1:
            continue  # `intel-rapl:0` includes its sub-zones `intel-rapl:0:1`
        with suppress(OSError):  # on most machines only root may read them
            used = int((zone / "energy_uj").read_text())
            counters[zone] = (used, int((zone / "max_energy_range_uj").read_text()))
    return counters


def spent_joules(before: EnergyCounters, after: EnergyCounters) -> float | None:
    """Return the joules between two readings; a counter may have wrapped around once."""
    zones = before.keys() & after.keys()
    if not zones:
        return None
    spent = 0
    for zone in zones:
        (start, span), (end, _) = before[zone], after[zone]
        spent += end - start if end >= start else end - start + span
    return spent / 1e6
