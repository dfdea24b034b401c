"""
Predictions at a fixed rate, with and without explanations beside them, in one run.

The rate is kept whatever the server does (open loop), and a latency counts from the time at which
a request was due. Windows without and with explaining take turns, so that what else the machine
does falls on both.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from shared import income
from shared.keep import keep
from shared.servers import Running, running

CONNECTIONS = 16
EXPLAINERS = 2
"""Callers who ask for explanations without pause: one is computed, the next one waits."""
KINDS = ("attributions", "counterfactuals", "anchors")


def main() -> None:
    """Measure, print, keep."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rate", type=int, default=1000, help="predictions a second")
    parser.add_argument("--seconds", type=float, default=5.0, help="of a window")
    parser.add_argument("--rounds", type=int, default=6, help="windows without and with")
    parser.add_argument("--kinds", nargs="+", default=list(KINDS))
    parser.add_argument("--project", type=Path, help="one with a live endpoint income")
    parser.add_argument("--no-save", action="store_true")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        project = given.project or income.make_project(Path(folder) / "income")
        with running(income.ours(project)) as server:
            figures = {
                kind: asyncio.run(measure(server, kind, given.rate, given.seconds, given.rounds))
                for kind in given.kinds
            }
            figures["memory_mib"] = {"while explaining": round(server.memory_mib)}
    print(json.dumps(figures, indent=2))
    if not given.no_save:
        keep("explain_beside", figures, versions=("onnxruntime", "numpy"))


async def measure(
    server: Running, kind: str, rate: int, seconds: float, rounds: int
) -> dict[str, Any]:
    """Take turns between windows without and with explaining."""
    bodies = [json.dumps(row).encode() for row in income.sample()]
    load = Load(server.port, bodies, rate)
    await load.open()
    ids = await load.predict_some(200)
    await load.window(1.0)  # warm
    quiet, beside, explained = [], [], 0
    explaining = Explaining(server.port, kind, ids)
    await explaining.window(1.0)  # the process is started
    for _ in range(rounds):
        quiet.append(await load.window(seconds))
        begun = asyncio.create_task(explaining.window(seconds))
        beside.append(await load.window(seconds))
        explained += await begun
    await load.close()
    p99 = {
        name: [float(np.quantile(each, 0.99)) for each in windows]
        for name, windows in (("quiet", quiet), ("beside", beside))
    }
    before, after = (median(p99[name]) * 1e3 for name in ("quiet", "beside"))
    return {
        "rate": rate,
        "explanations_s": round(explained / (rounds * seconds), 1),
        "p50_ms": {
            "quiet": round(median(float(np.median(each)) for each in quiet) * 1e3, 3),
            "beside": round(median(float(np.median(each)) for each in beside) * 1e3, 3),
        },
        "p99_ms": {"quiet": round(before, 3), "beside": round(after, 3)},
        "p99_grows_by_ms": round(after - before, 3),
        "p99_ratio": round(after / before, 3),
        "holds": after <= 1.25 * before or after - before <= 1.0,
    }


class Load:
    """Sends predictions at a fixed rate over some connections."""

    def __init__(self, port: int, bodies: list[bytes], rate: int) -> None:
        self._port, self._rate = port, rate
        head = f"POST {income.NATIVE} HTTP/1.1\r\nhost: 127.0.0.1:{port}\r\n"
        head += "content-type: application/json\r\ncontent-length: "
        self._requests = itertools.cycle(
            [head.encode() + b"%d\r\n\r\n" % len(body) + body for body in bodies]
        )
        self._free: asyncio.Queue[Connection] = asyncio.Queue()

    async def open(self) -> None:
        """Open the connections."""
        for _ in range(CONNECTIONS):
            streams = await asyncio.open_connection("127.0.0.1", self._port)
            self._free.put_nowait(Connection(*streams))

    async def close(self) -> None:
        """Close the connections."""
        while not self._free.empty():
            self._free.get_nowait().writer.close()

    async def predict_some(self, count: int) -> list[str]:
        """Predict rows, and return their ids."""
        connection = await self._free.get()
        ids = []
        for _ in range(count):
            answer = await connection.ask(next(self._requests))
            ids.append(json.loads(answer)["predictions"][0]["id"])
        self._free.put_nowait(connection)
        return ids

    async def window(self, seconds: float) -> list[float]:
        """Send for some seconds; return the latencies, in seconds from when each was due."""
        start, latencies = time.perf_counter(), []

        async def one(due: float) -> None:
            connection = await self._free.get()
            await connection.ask(next(self._requests))
            latencies.append(time.perf_counter() - due)
            self._free.put_nowait(connection)

        sent = []
        for number in range(int(seconds * self._rate)):
            due = start + number / self._rate
            if (left_s := due - time.perf_counter()) > 0:
                await asyncio.sleep(left_s)
            sent.append(asyncio.create_task(one(due)))
        await asyncio.gather(*sent)
        return latencies


class Connection:
    """One connection; one request at a time."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self.writer = reader, writer

    async def ask(self, request: bytes) -> bytes:
        """Send a request; return the body of its answer."""
        self.writer.write(request)
        head = await self._reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200"), head
        length = next(
            line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length")
        )
        return await self._reader.readexactly(int(length.split(b":")[1]))


class Explaining:
    """Callers who ask for fresh explanations without pause."""

    def __init__(self, port: int, kind: str, ids: list[str]) -> None:
        self._port, self._ids = port, itertools.cycle(ids)
        self._body = json.dumps({"kind": kind, "fresh": True}).encode()

    async def window(self, seconds: float) -> int:
        """Ask for some seconds; return how many explanations came."""
        until = time.perf_counter() + seconds
        return sum(await asyncio.gather(*(self._ask_until(until) for _ in range(EXPLAINERS))))

    async def _ask_until(self, until: float) -> int:
        connection = Connection(*await asyncio.open_connection("127.0.0.1", self._port))
        count = 0
        while time.perf_counter() < until:
            path = f"/v1/predictions/{next(self._ids)}/explain"
            head = f"POST {path} HTTP/1.1\r\nhost: 127.0.0.1:{self._port}\r\n"
            head += f"content-type: application/json\r\ncontent-length: {len(self._body)}\r\n\r\n"
            await connection.ask(head.encode() + self._body)
            count += 1
        connection.writer.close()
        return count


if __name__ == "__main__":
    main()
