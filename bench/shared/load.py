"""Load from wrk: one thread, bodies in turn; and from h2load for gRPC."""

from __future__ import annotations

import re
import shutil
import statistics
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil
from shared.servers import Question, Running

SCRIPT = """
local bodies = {}
local file = io.open("%s", "rb")
while true do
  local size = file:read("*l")
  if not size then break end
  bodies[#bodies + 1] = file:read(tonumber(size))
end
local headers = {%s}
local next_body = 0
request = function()
  next_body = next_body %% #bodies + 1
  return wrk.format("POST", "%s", headers, bodies[next_body])
end
"""


@dataclass(frozen=True)
class Round:
    """What one round of load saw."""

    requests_s: float
    p50_ms: float
    p99_ms: float
    failed: int
    cpu_us: float  # of the server, user and system, a request
    load_cpu: float  # cores that the load generator took


@contextmanager
def script(question: Question) -> Iterator[Path]:
    """Write what wrk needs to ask a question."""
    with tempfile.TemporaryDirectory() as folder:
        bodies, lua = Path(folder) / "bodies", Path(folder) / "ask.lua"
        bodies.write_bytes(b"".join(b"%d\n%b" % (len(body), body) for body in question.bodies))
        headers = ", ".join(f'["{name}"] = "{value}"' for name, value in question.headers.items())
        lua.write_text(SCRIPT % (bodies, headers, question.path))
        yield lua


def wrk(server: Running, lua: Path, connections: int, seconds: float) -> Round:
    """Load a server with wrk."""
    if shutil.which("wrk") is None:
        raise SystemExit("wrk is missing. Install it: apt-get install wrk")
    command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds:g}s", "--timeout", "20s", "--latency"]
    out, spent_s, load_s = _timed(
        server, [*command, "-s", str(lua), f"http://127.0.0.1:{server.port}/"]
    )
    failed = re.search(r"Non-2xx or 3xx responses: (\d+)", out)
    broken = re.search(r"Socket errors: connect (\d+), read (\d+), write (\d+), timeout (\d+)", out)
    return Round(
        requests_s=float(_field(r"Requests/sec:\s+([\d.]+)", out)),
        p50_ms=milliseconds(_field(r"(?m)^\s+50%\s+(\S+)", out)),
        p99_ms=milliseconds(_field(r"(?m)^\s+99%\s+(\S+)", out)),
        failed=(int(failed[1]) if failed else 0)
        + (sum(map(int, broken.groups())) if broken else 0),
        cpu_us=1e6 * spent_s / max(1, int(_field(r"(\d+) requests in", out))),
        load_cpu=load_s / seconds,
    )


def h2load(server: Running, port: int, body: bytes, clients: int, requests: int) -> Round:
    """Load a gRPC server with h2load: one call under way on each connection."""
    if shutil.which("h2load") is None:
        raise SystemExit("h2load is missing. Install it: apt-get install nghttp2-client")
    with tempfile.NamedTemporaryFile() as file:
        file.write(b"\0" + len(body).to_bytes(4, "big") + body)
        file.flush()
        command = ["h2load", f"-n{requests}", f"-c{clients}", "-m1", "-t1", "-d", file.name]
        command += ["-H", "content-type: application/grpc", "-H", "te: trailers"]
        out, spent_s, load_s = _timed(
            server,
            [*command, f"http://127.0.0.1:{port}/inference.GRPCInferenceService/ModelInfer"],
        )
    finished, rate = re.search(r"finished in ([\d.]+)(ms|s), ([\d.]+) req/s", out), 0.0
    if finished is None:
        raise SystemExit(f"h2load printed no rate:\n{out}")
    rate = float(finished[3])
    seconds = float(finished[1]) / (1000 if finished[2] == "ms" else 1)
    succeeded = int(_field(r"(\d+) succeeded", out))
    return Round(
        requests_s=rate,
        p50_ms=milliseconds(_field(r"time for request:\s+\S+\s+\S+\s+(\S+)", out)),
        p99_ms=float("nan"),  # h2load tells the mean and the longest
        failed=requests - succeeded,
        cpu_us=1e6 * spent_s / requests,
        load_cpu=load_s / seconds,
    )


def summary(results: Sequence[Round]) -> dict[str, float]:
    """Take the medians of the rounds."""
    return {
        "requests_s": round(statistics.median(r.requests_s for r in results), 1),
        "p50_ms": round(statistics.median(r.p50_ms for r in results), 3),
        "p99_ms": round(statistics.median(r.p99_ms for r in results), 3),
        "cpu_us": round(statistics.median(r.cpu_us for r in results), 1),
        "load_cpu": round(statistics.median(r.load_cpu for r in results), 2),
        "failed": sum(r.failed for r in results),
    }


def ratio(results: Sequence[Round], other: Sequence[Round]) -> dict[str, float]:
    """Compare round by round with another server, and take the medians."""
    pairs = list(zip(results, other, strict=True))
    return {
        "requests": round(statistics.median(a.requests_s / b.requests_s for a, b in pairs), 2),
        "p99": round(statistics.median(a.p99_ms / b.p99_ms for a, b in pairs), 2),
        "cpu": round(statistics.median(a.cpu_us / b.cpu_us for a, b in pairs), 2),
    }


def milliseconds(text: str) -> float:
    """Read a time as wrk and h2load print it."""
    for unit, factor in (("us", 0.001), ("ms", 1.0), ("m", 60_000.0), ("s", 1000.0)):
        if text.endswith(unit):
            return float(text.removesuffix(unit)) * factor
    raise SystemExit(f"{text!r} is no time")


def _timed(server: Running, command: list[str]) -> tuple[str, float, float]:
    """Run a load generator: its output, and the CPU seconds of the server and of itself."""
    before_s = server.cpu_s
    own = psutil.Process().cpu_times()
    out = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    after = psutil.Process().cpu_times()
    load_s = sum(after[2:4]) - sum(own[2:4])  # of children
    return out, server.cpu_s - before_s, load_s


def _field(pattern: str, out: str) -> str:
    found = re.search(pattern, out)
    if found is None:
        raise SystemExit(f"the load generator printed no {pattern}:\n{out}")
    return found[1]
