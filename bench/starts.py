"""
Starts a server of five endpoints again and again on a busy machine, and counts what crashes.

Each start ends when every endpoint has answered. As soon as the server listens, callers ask all
endpoints at once, so that revisions load beside the first requests.
"""

from __future__ import annotations

import argparse
import http.client
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
from kills import WAIT_S, Refused, Server, bodies_of, send
from shared import demo, doubling
from shared.keep import keep

from clewline.project import Project

DOUBLINGS = ("doubling", "twice", "double")
CRASH = re.compile(r"worker process \d+ (?:was killed by|crashed by|hangs|ended itself)[^:\n]*")
FAILURE = re.compile(r".*(?:answers no more|is not served|the stacks of|Traceback).*")


@dataclass
class Outcome:
    """What became of the starts."""

    starts: int = 0
    crashes: Counter[str] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)
    ready_s: list[float] = field(default_factory=list)
    answered_s: list[float] = field(default_factory=list)
    """Seconds from the command until each endpoint has answered."""


def make_project(root: Path) -> tuple[Project, dict[str, bytes]]:
    """Make a project with five endpoints; gives a request for each."""
    project = demo.make(root)
    row = bodies_of(project)[0]
    again = (root / "endpoints/tumours.yaml").read_text()
    again = again.replace("endpoint: tumours", "endpoint: again")
    (root / "endpoints/again.yaml").write_text(again)
    demo.clewline("endpoints", "apply", "again", cwd=root)
    for name in DOUBLINGS:
        doubling.add(project, name)
    return project, {"tumours": row, "again": row} | dict.fromkeys(DOUBLINGS, doubling.BODIES[1])


def start_once(project: Project, bodies: dict[str, bytes], workers: int, outcome: Outcome) -> None:
    """Start a server, ask every endpoint over connections of their own, and stop it."""
    start = time.monotonic()
    server = Server(project.root, workers)
    outcome.starts += 1
    try:
        server.wait()
        outcome.ready_s.append(time.monotonic() - start)
        with ThreadPoolExecutor(4 * len(bodies)) as callers:
            asked = [callers.submit(ask, server.port, *one) for one in [*bodies.items()] * 4]
        outcome.failures += [failure for each in asked if (failure := each.result())]
        outcome.answered_s.append(time.monotonic() - start)
        server.stop()
        if server.process.returncode:
            outcome.crashes[f"the supervisor ended with {server.process.returncode}"] += 1
    except SystemExit as error:  # it ended before it was ready
        outcome.failures.append(str(error))
    finally:
        server.process.kill()
        server.process.wait()
    said = "".join(server.said)
    outcome.crashes.update(re.sub(r" \d+", "", text) for text in CRASH.findall(said))
    outcome.failures += FAILURE.findall(said)


def ask(port: int, endpoint: str, body: bytes) -> str | None:
    """Send one request; gives what is wrong with the answer."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=WAIT_S)
    try:
        send(connection, endpoint, body, None)
    except (http.client.HTTPException, OSError, Refused) as error:
        return f"{endpoint}: {type(error).__name__}: {error}"
    finally:
        connection.close()
    return None


def main() -> None:
    """Start, count, keep."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--starts", type=int, default=500)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--busy", type=int, default=2 * (os.cpu_count() or 1), help="busy loops")
    parser.add_argument("--no-save", action="store_true")
    options = parser.parse_args()
    outcome = Outcome()
    with tempfile.TemporaryDirectory() as folder:
        project, bodies = make_project(Path(folder) / "tumours")
        loop = [sys.executable, "-c", "while True: pass"]
        busy = [subprocess.Popen(loop) for _ in range(options.busy)]
        try:
            for _ in range(options.starts):
                start_once(project, bodies, options.workers, outcome)
        finally:
            for each in busy:
                each.kill()
                each.wait()
    print(
        f"{outcome.starts} starts of {len(bodies)} endpoints beside {options.busy} busy loops: "
        f"{sum(outcome.crashes.values())} crashes {dict(outcome.crashes)}, "
        f"{len(outcome.failures)} failures; ready in {statistics.median(outcome.ready_s):.1f} s, "
        f"all answered in {statistics.median(outcome.answered_s):.1f} s, "
        f"the slowest in {max(outcome.answered_s):.1f} s"
    )
    for failure in outcome.failures[:20]:
        print(f"  {failure}")
    if not options.no_save:
        keep("starts", msgspec.to_builtins(outcome) | {"busy": options.busy})
    raise SystemExit(1 if outcome.crashes or outcome.failures else 0)


if __name__ == "__main__":
    main()
