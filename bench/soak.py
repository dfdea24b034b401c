"""Memory of the server over a million requests and more, its curve kept."""

from __future__ import annotations

import argparse
import statistics
import tempfile
from pathlib import Path
from typing import Any

from shared import income
from shared.keep import keep
from shared.load import script, wrk
from shared.servers import Running, running

WARM = 300_000
"""Requests before memory counts: caches fill, the allocator finds its size."""


def main() -> None:
    """Measure, print, keep."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=1_000_000)
    parser.add_argument("--connections", type=int, default=32)
    parser.add_argument("--slice", type=float, default=4.0, help="seconds between two looks")
    parser.add_argument("--project", type=Path, help="one with a live endpoint income")
    parser.add_argument("--no-save", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        project = options.project or income.make_project(Path(folder) / "income")
        with (
            script(income.native(income.sample())) as lua,
            running(income.ours(project)) as server,
        ):
            curve = soak(server, lua, options.requests, options.connections, options.slice)
    figures = {"connections": options.connections, **judged(curve), "curve": curve}
    show(figures)
    if not options.no_save:
        keep("soak", figures)


def soak(
    server: Running, lua: Path, requests: int, connections: int, seconds: float
) -> list[dict[str, float]]:
    """Load until so many requests were answered after the warm-up; look at memory in between."""
    done, curve = 0, []
    while done < WARM + requests:
        seen = wrk(server, lua, connections, seconds)
        if seen.failed:
            raise SystemExit(f"{seen.failed} requests failed after {done:,}")
        done += round(seen.requests_s * seconds)
        curve.append(
            {
                "requests": done,
                "memory_mib": round(server.memory_mib, 2),
                "requests_s": round(seen.requests_s),
                "p99_ms": seen.p99_ms,
            }
        )
        print(f"{done:>10,} requests  {curve[-1]['memory_mib']:.1f} MiB", flush=True)
    return curve


def judged(curve: list[dict[str, float]]) -> dict[str, Any]:
    """Fit a line through memory after the warm-up: bytes that a request leaves behind."""
    after = [point for point in curve if point["requests"] >= WARM]
    slope, _ = statistics.linear_regression(
        [point["requests"] for point in after], [point["memory_mib"] for point in after]
    )
    return {
        "requests": int(curve[-1]["requests"]),
        "first_mib": after[0]["memory_mib"],
        "last_mib": after[-1]["memory_mib"],
        "most_mib": max(point["memory_mib"] for point in after),
        "bytes_a_request": round(slope * 2**20, 3),
    }


def show(figures: dict[str, Any]) -> None:
    """Print what it came to."""
    print(
        f"{figures['requests']:,} requests: {figures['first_mib']:.1f} MiB after the warm-up, "
        f"{figures['last_mib']:.1f} at the end, at most {figures['most_mib']:.1f}; "
        f"{figures['bytes_a_request']:+.2f} bytes a request"
    )


if __name__ == "__main__":
    main()
