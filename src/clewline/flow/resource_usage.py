"""What a piece of work cost: wall and CPU time, peak memory, energy."""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

CLEAR_PEAK = Path("/proc/self/clear_refs")
STATUS = Path("/proc/self/status")
POWERCAP = Path("/sys/class/powercap")


@dataclass(slots=True)
class ResourceUsage:
    """
    The cost of the work under `measure_usage`; filled when the work ends.

    CPU time is that of all threads of this process and of its ended children.
    Peak memory is the resident peak of the whole process during the work, not
    above what stood before. Energy is that of the machine's processors, all
    processes, or None where the machine does not report it.
    """

    wall_s: float = 0.0
    cpu_s: float = 0.0
    peak_bytes: int = 0
    energy_j: float | None = None


@contextmanager
def measure_usage() -> Iterator[ResourceUsage]:
    """
    Measure the work done inside.

    Counts belong to the process: of two pieces of work that run at the same
    time in threads, each is charged with both.
    """
    meter = ResourceUsage()
    clear_peak()
    energy, cpu, wall = energy_counters(), cpu_seconds(), time.perf_counter()
    try:
        yield meter
    finally:
        meter.wall_s = time.perf_counter() - wall
        meter.cpu_s = cpu_seconds() - cpu
        meter.peak_bytes = peak_bytes()
        meter.energy_j = spent_joules(energy, energy_counters())


def cpu_seconds() -> float:
    """CPU time of this process and of its children that have ended, in seconds."""
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + children.ru_utime + children.ru_stime


def clear_peak() -> None:
    """Begin a new peak, where the kernel lets us; elsewhere the peak is that of the process."""
    try:
        CLEAR_PEAK.write_bytes(b"5")
    except OSError:
        return  # no Linux, or a kernel that forbids it: peak_bytes says the process's peak


def peak_bytes() -> int:
    """The peak of resident memory since `clear_peak`, in bytes."""
    try:
        status = STATUS.read_bytes()
    except OSError:
        unit = 1 if sys.platform == "darwin" else 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    start = status.index(b"VmHWM:") + len(b"VmHWM:")
    return int(status[start : status.index(b"kB", start)]) * 1024


def energy_counters() -> dict[Path, tuple[int, int]]:
    """Counter and its range in µJ of each processor package that we may read (Intel/AMD RAPL)."""
    counters = {}
    for zone in energy_zones():
        try:
            used = int((zone / "energy_uj").read_text())
            counters[zone] = (used, int((zone / "max_energy_range_uj").read_text()))
        except OSError:
            continue  # readable by root alone on most machines: reported as not known
    return counters


def energy_zones() -> list[Path]:
    """Top-level RAPL zones, `intel-rapl:0`; sub-zones are counted in them."""
    if not POWERCAP.is_dir():
        return []
    return [zone for zone in POWERCAP.iterdir() if zone.name.count(":") == 1]


def spent_joules(
    before: dict[Path, tuple[int, int]], after: dict[Path, tuple[int, int]]
) -> float | None:
    """Joules between two readings; a counter that passed its end once is understood."""
    zones = before.keys() & after.keys()
    if not zones:
        return None
    spent = 0
    for zone in zones:
        (start, span), (end, _) = before[zone], after[zone]
        spent += end - start if end >= start else end - start + span
    return spent / 1e6
