"""Predictions a second with everything on, beside bare and empty handlers in the same run."""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
from shared.demo import FAIRLEAD, fairlead
from shared.keep import keep
from shared.plain import write as write_plain_model

BENCH = Path(__file__).parent
EXAMPLE = BENCH.parent / "examples" / "income"
DATA = Path(os.environ.get("FAIRLEAD_DATA", BENCH.parent.parent / "shared" / "data"))
CONNECTIONS = (1, 32, 128)
GOALS = {1: 1.3, 32: 2.5, 128: 2.5}
"""How many times the requests of the bare handler."""
REFERENCES = ("bare", "compiled")
"""The exact model as skl2onnx converts it, and the file that fairlead compiled."""
PATH = "/v1/endpoints/income/predict"
SCRIPT = """
local bodies = {}
for line in io.lines("%s") do bodies[#bodies + 1] = line end
local next_body = 0
local headers = {["Content-Type"] = "application/json"}
request = function()
  next_body = next_body %% #bodies + 1
  return wrk.format("POST", nil, headers, bodies[next_body])
end
"""


@dataclass(frozen=True)
class Server:
    """A server under test."""

    name: str
    command: tuple[str, ...]
    folder: Path
    environment: dict[str, str]


@dataclass(frozen=True)
class Round:
    """What one round of load saw."""

    requests_s: float
    p50_ms: float
    p99_ms: float
    failed: int
    cpu_us: float  # of the server, user and system, a request


def main() -> None:
    """Measure, print, keep."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=5.0, help="of each round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--project", type=Path, help="one with a live endpoint income")
    parser.add_argument("--no-save", action="store_true")
    options = parser.parse_args()
    if shutil.which("wrk") is None:
        raise SystemExit("wrk is missing. Install it: apt-get install wrk")
    with tempfile.TemporaryDirectory() as folder:
        project = options.project or make_project(Path(folder) / "income")
        script = write_script(Path(folder), project)
        plain = Path(folder) / "plain.onnx"
        write_plain_model(EXAMPLE, DATA / "adult", plain)
        figures = measure(servers(project, plain), script, options.rounds, options.seconds)
    show(figures)
    if not options.no_save:
        keep("serving", figures, versions=("granian", "onnxruntime", "orjson", "uvloop"))


def make_project(root: Path) -> Path:
    """Train, promote and apply the example on Adult."""
    shutil.copytree(EXAMPLE, root, ignore=shutil.ignore_patterns(".fairlead"))
    fairlead("init", str(root), cwd=root.parent)
    fairlead("run", "income", f"data={DATA / 'adult'}", cwd=root)
    fairlead("models", "promote", "income@1", "champion", cwd=root)
    fairlead("endpoints", "apply", "income", cwd=root)
    return root


def write_script(folder: Path, project: Path) -> Path:
    """Write 1,000 different rows of the test table, and the load generator's script."""
    bodies = folder / "bodies.jsonl"
    rows = test_rows(1000)
    bodies.write_text("\n".join(json.dumps({"rows": [row]}, separators=(",", ":")) for row in rows))
    script = folder / "rows.lua"
    script.write_text(SCRIPT % bodies)
    return script


def test_rows(count: int) -> list[dict[str, object]]:
    """Read rows of the test table as a client would send them."""
    sys.path.insert(0, str(EXAMPLE / "pipelines"))
    from income import TARGET, parse

    return parse(DATA / "adult" / "adult.test.gz").drop(TARGET).head(count).to_dicts()


def servers(project: Path, plain: Path) -> list[Server]:
    """Name the servers; each runs one process of one worker."""
    package = json.loads(fairlead("endpoints", "show", "income", "--json", cwd=project))["live"]
    name, _, number = package["models"]["model"].partition("@")
    folder = project / ".fairlead" / "models" / name / number
    granian = (str(Path(sys.executable).with_name("granian")), "--interface", "rsgi", "--no-ws")
    return [
        Server("fairlead", (*FAIRLEAD, "serve", "income"), project, {}),
        Server(
            "bare",
            (*granian, "handlers.bare:app", "--workers", "1", "--loop", "uvloop"),
            BENCH,
            {"PLAIN_MODEL": str(plain)},
        ),
        Server(
            "compiled",
            (*granian, "handlers.compiled:app", "--workers", "1", "--loop", "uvloop"),
            BENCH,
            {"BARE_PACKAGE": str(folder)},
        ),
        Server(
            "empty",
            (*granian, "handlers.empty:app", "--workers", "1", "--loop", "uvloop"),
            BENCH,
            {},
        ),
    ]


def measure(
    found: list[Server], script: Path, rounds: int, seconds: float
) -> dict[str, dict[str, Any]]:
    """Load all servers in turn, again and again, so that noise of the machine meets them all."""
    seen: dict[str, dict[int, list[Round]]] = {s.name: {c: [] for c in CONNECTIONS} for s in found}
    with ExitStack() as stack:
        up = {server.name: stack.enter_context(running(server)) for server in found}
        for one in up.values():
            load(one, script, 32, 1.0)  # warm
        for _ in range(rounds):
            for connections in CONNECTIONS:
                for name, one in up.items():
                    seen[name][connections].append(load(one, script, connections, seconds))
        return {
            name: {
                "ready_s": round(up[name].ready_s, 2),
                "memory_mib": round(memory(up[name])),
                **{str(c): summary(results) for c, results in by_connections.items()},
                **{
                    f"{c} to {other}": ratio(results, seen[other][c])
                    for c, results in by_connections.items()
                    for other in REFERENCES
                },
            }
            for name, by_connections in seen.items()
        }


def summary(results: list[Round]) -> dict[str, float]:
    """Take the medians of the rounds."""
    return {
        "requests_s": round(statistics.median(r.requests_s for r in results), 1),
        "p50_ms": round(statistics.median(r.p50_ms for r in results), 3),
        "p99_ms": round(statistics.median(r.p99_ms for r in results), 3),
        "cpu_us": round(statistics.median(r.cpu_us for r in results), 1),
        "failed": sum(r.failed for r in results),
    }


def ratio(results: list[Round], other: list[Round]) -> dict[str, float]:
    """Compare round by round with another server, and take the medians."""
    pairs = list(zip(results, other, strict=True))
    return {
        "requests": round(statistics.median(a.requests_s / b.requests_s for a, b in pairs), 2),
        "p99": round(statistics.median(a.p99_ms / b.p99_ms for a, b in pairs), 2),
        "cpu": round(statistics.median(a.cpu_us / b.cpu_us for a, b in pairs), 2),
    }


@dataclass(frozen=True)
class Running:
    """A server that answers."""

    url: str
    process: subprocess.Popen[bytes]
    ready_s: float

    @property
    def family(self) -> list[psutil.Process]:
        """The process and its children."""
        parent = psutil.Process(self.process.pid)
        return [parent, *parent.children(recursive=True)]

    @property
    def cpu_s(self) -> float:
        """User and system time so far."""
        return sum(sum(member.cpu_times()[:2]) for member in self.family)


@contextmanager
def running(server: Server) -> Iterator[Running]:
    """Run a server, until its first prediction and then for as long as asked."""
    port = free_port()
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    started = time.perf_counter()
    process = subprocess.Popen(
        [*server.command, "--port", str(port)],
        cwd=server.folder,
        env=environment | server.environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        url = f"http://127.0.0.1:{port}{PATH}"
        wait_until_it_predicts(url, process)
        yield Running(url, process, time.perf_counter() - started)
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(30)


def wait_until_it_predicts(url: str, process: subprocess.Popen[bytes]) -> None:
    """Ask for one prediction until it comes."""
    body = json.dumps({"rows": test_rows(1)}).encode()
    request = urllib.request.Request(url, body, {"Content-Type": "application/json"})
    until = time.monotonic() + 60
    while time.monotonic() < until:
        if process.poll() is not None:
            raise SystemExit(f"a server ended with status {process.returncode}: {process.args!r}")
        try:
            urllib.request.urlopen(request, timeout=5).read()
            return
        except OSError:
            time.sleep(0.02)
    raise SystemExit(f"no prediction within a minute: {process.args!r}")


def load(server: Running, script: Path, connections: int, seconds: float) -> Round:
    """Load a server with wrk."""
    command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds:g}s", "--latency", "-s", str(script)]
    before_s = server.cpu_s
    out = subprocess.run([*command, server.url], capture_output=True, text=True, check=True).stdout
    spent_s = server.cpu_s - before_s
    failed = re.search(r"Non-2xx or 3xx responses: (\d+)", out)
    return Round(
        requests_s=float(_field(r"Requests/sec:\s+([\d.]+)", out)),
        p50_ms=milliseconds(_field(r"(?m)^\s+50%\s+(\S+)", out)),
        p99_ms=milliseconds(_field(r"(?m)^\s+99%\s+(\S+)", out)),
        failed=int(failed[1]) if failed else 0,
        cpu_us=1e6 * spent_s / int(_field(r"(\d+) requests in", out)),
    )


def _field(pattern: str, out: str) -> str:
    found = re.search(pattern, out)
    if found is None:
        raise SystemExit(f"wrk printed no {pattern}:\n{out}")
    return found[1]


def milliseconds(text: str) -> float:
    """Read one of wrk's times."""
    for unit, factor in (("us", 0.001), ("ms", 1.0), ("s", 1000.0)):
        if text.endswith(unit):
            return float(text.removesuffix(unit)) * factor
    raise SystemExit(f"wrk printed the time {text!r}")


def memory(server: Running) -> float:
    """Tell what a server and its children hold, in MiB, shared pages counted once."""
    return sum(float(member.memory_full_info().pss) for member in server.family) / 2**20


def free_port() -> int:
    """Ask the system for a port that is free now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def show(figures: dict[str, dict[str, Any]]) -> None:
    """Print the table, and the ratios to the bare handler."""
    for name, found in figures.items():
        print(f"{name}: ready in {found['ready_s']} s, {found['memory_mib']} MiB")
        for connections in CONNECTIONS:
            seen = found[str(connections)]
            print(
                f"  {connections:>4} connections {seen['requests_s']:>10,.0f} requests/s"
                f"  p50 {seen['p50_ms']:.2f} ms  p99 {seen['p99_ms']:.2f} ms"
                f"  CPU {seen['cpu_us']:.0f} us  {seen['failed']} failed"
            )
    ours = figures["fairlead"]
    for connections, goal in GOALS.items():
        bare, compiled = (ours[f"{connections} to {name}"] for name in REFERENCES)
        print(
            f"{connections:>4} connections: {bare['requests']:.2f} times the bare handler "
            f"(goal {goal}), p99 {bare['p99']:.2f} and CPU {bare['cpu']:.2f} times its; "
            f"{compiled['requests']:.2f} times the handler around our compiled file"
        )


if __name__ == "__main__":
    main()
