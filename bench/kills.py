"""
Kills workers and supervisors with SIGKILL at random moments under load, and looks for lost answers.

A killed worker is replaced, and its server goes on. A killed supervisor leaves workers
that answer what they have taken and stop. Or all are killed at once. Meanwhile other callers reset
their connections in the middle of a request, answers that are not finite are among the others, and
the servers write an access log. Each caller gets an answer or a broken connection; none waits.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import os
import random
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from clewline.project import Project
from clewline.serve.log import check as log_check
from clewline.serve.log.frame import decode_frame, scan_frames
from clewline.serve.log.reader import find_prediction
from clewline.serve.log.segment import hours, segments
from clewline.serve.log.windowed_file import open_windowed
from clewline.store.doctor import check_store

CONNECTIONS = 6
RESETTING = 2
"""Callers that reset one connection after another."""
KEYED = 0.2
"""Share of requests with an idempotency key."""
WORKERS = 2
KINDS = ("worker", "supervisor", "all")
GONE_S = 40.0
"""How long the workers of a killed supervisor may take to stop."""
WAIT_S = 60.0
"""How long a caller waits for an answer before we say that it waits for ever."""
RESET = struct.pack("ii", 1, 0)
"""What SO_LINGER takes so that closing a socket sends RST (socket(7))."""


class Refused(Exception):
    """The server answered a valid request with an error."""


class _Answer(msgspec.Struct):
    predictions: list[msgspec.Raw]


@dataclass
class Outcome:
    """What became of all that was answered."""

    kills: dict[str, int] = field(default_factory=lambda: dict.fromkeys(KINDS, 0))
    requests: int = 0
    predictions: int = 0
    keyed: int = 0
    retried: int = 0
    mended: int = 0
    torn_tails: int = 0
    resets: int = 0
    not_finite: int = 0
    access_lines: int = 0
    waiting: list[str] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)
    changed: list[str] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)
    twice: list[str] = field(default_factory=list)
    orphans: list[int] = field(default_factory=list)
    findings: list[str] = field(default_factory=list)

    @property
    def is_clean(self) -> bool:
        """Tell whether nothing was lost, changed or damaged."""
        return not self.orphans and not self.problems

    @property
    def problems(self) -> list[str]:
        """Everything that should not have been."""
        wrong = (self.waiting, self.lost, self.changed, self.refused, self.twice, self.findings)
        return [problem for problems in wrong for problem in problems]


@dataclass(frozen=True)
class Request:
    """A request that was answered whole, and the answer."""

    endpoint: str
    body: bytes
    key: str | None
    answer: bytes


class Server:
    """A server of ours: a supervisor and its workers."""

    def __init__(self, root: Path, workers: int) -> None:
        words = [sys.executable, "-m", "clewline.cli.main", "serve", "--port", "0"]
        words += ["--workers", str(workers), "--access-log", str(access_log_of(root))]
        self.process = subprocess.Popen(
            words, cwd=root, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
        )
        self.port = 0
        self.said: list[str] = []

    def wait(self) -> None:
        """Wait until it answers, then read on what it says."""
        if self.port:
            return
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.said.append(line)
            if line.startswith("Ready on "):
                self.port = int(line.split()[2].rstrip(".").rpartition(":")[2])
                threading.Thread(target=self._read_on, daemon=True).start()
                return
        raise SystemExit(f"the server did not start: {''.join(self.said)}")

    @property
    def workers(self) -> list[int]:
        """The processes that the supervisor has now."""
        pid = self.process.pid
        try:
            return [int(p) for p in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
        except FileNotFoundError:
            return []

    def stop(self) -> None:
        """Ask it to drain and stop."""
        self.process.terminate()
        self.process.wait()

    def kill(self, kind: str, chance: random.Random) -> list[int]:
        """End some of it with SIGKILL; gives the workers that are left without a supervisor."""
        workers = self.workers
        if kind == "worker":
            _kill(chance.choice(workers))
            return []
        self.process.kill()
        if kind == "all":
            for pid in workers:
                _kill(pid)
        self.process.wait()
        return workers

    def _read_on(self) -> None:
        assert self.process.stderr is not None
        self.said.extend(self.process.stderr)
        self.process.stderr.close()


def access_log_of(root: Path) -> Path:
    """The file that the servers of a project write a line a request to."""
    return root / "access.jsonl"


def _kill(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return  # it has just stopped by itself


def wait_until_gone(workers: list[int]) -> list[int]:
    """Wait for processes to end; gives those that do not."""
    until = time.monotonic() + GONE_S
    while (left := [pid for pid in workers if _lives(pid)]) and time.monotonic() < until:
        time.sleep(0.01)
    return left


def _lives(pid: int) -> bool:
    try:
        return ") Z " not in Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False


class Client(threading.Thread):
    """Sends requests over one connection until it breaks; keeps what was answered whole.

    Set `enough` to end it after an answer.
    """

    def __init__(self, port: int, bodies: dict[str, Sequence[bytes]], seed: int) -> None:
        super().__init__(daemon=True)
        self.connection = http.client.HTTPConnection("127.0.0.1", port, timeout=WAIT_S)
        self.bodies = bodies
        self.random = random.Random(seed)
        self.answered: list[Request] = []
        self.broken: list[Request] = []  # with a key, and without a whole answer
        self.refused: list[str] = []
        self.waiting: list[str] = []
        self.enough = threading.Event()

    def run(self) -> None:
        while not self.enough.is_set():
            endpoint = self.random.choice(list(self.bodies))
            body = self.random.choice(self.bodies[endpoint])
            key = str(uuid.uuid4()) if self.random.random() < KEYED else None
            try:
                answer = send(self.connection, endpoint, body, key)
            except TimeoutError:
                self.connection.close()
                self.waiting.append(f"no answer from {endpoint} in {WAIT_S} s: {body[:200]!r}")
                return
            except (http.client.HTTPException, OSError):
                self.connection.close()
                if key is not None:
                    self.broken.append(Request(endpoint, body, key, b""))
                return
            except Refused as error:
                self.connection.close()
                self.refused.append(str(error))
                return
            self.answered.append(Request(endpoint, body, key, answer))
        self.connection.close()


class ResettingClient(threading.Thread):
    """Resets one connection after another, before, in or after the request, until the port closes.

    Set `enough` to end it.
    """

    def __init__(self, port: int, bodies: dict[str, Sequence[bytes]], seed: float) -> None:
        super().__init__(daemon=True)
        self.port = port
        self.bodies = bodies
        self.random = random.Random(seed)
        self.resets = 0
        self.enough = threading.Event()

    def run(self) -> None:
        while not self.enough.is_set():
            endpoint = self.random.choice(list(self.bodies))
            body = self.random.choice(self.bodies[endpoint])
            head = f"POST /v1/endpoints/{endpoint}/predict HTTP/1.1\r\nHost: localhost\r\n"
            head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
            request = head.encode() + body
            sent = self.random.choice((len(request), len(request), len(head), len(request) // 2))
            try:
                caller = socket.create_connection(("127.0.0.1", self.port), timeout=WAIT_S)
            except OSError:
                return
            with caller, contextlib.suppress(ConnectionError):
                caller.sendall(request[:sent])
                time.sleep(self.random.uniform(0, 0.02))
                caller.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
            self.resets += 1


def send(
    connection: http.client.HTTPConnection, endpoint: str, body: bytes, key: str | None
) -> bytes:
    """Send a request and read its whole answer."""
    headers = {"Content-Type": "application/json"}
    if key is not None:
        headers["Idempotency-Key"] = key
    connection.request("POST", f"/v1/endpoints/{endpoint}/predict", body, headers)
    response = connection.getresponse()
    answer = response.read()
    if response.status != 200:
        raise Refused(f"{response.status}: {answer.decode()[:500]}")
    return answer


def kill_often(
    project: Project,
    bodies: dict[str, Sequence[bytes]],
    kills: int,
    *,
    seed: int = 0,
    workers: int = WORKERS,
) -> Outcome:
    """
    Kill workers and servers of a project under load, one after another.

    Where the whole server goes, the next one starts while it is still answering, so
    that two write the log side by side.

    Args:
        project: With live revisions.
        bodies: Endpoint → bodies of valid requests.
        kills: How many.
        seed: Of the moments and of the requests.
        workers: Of each server.
    """
    chance = random.Random(seed)
    outcome = Outcome()
    answered: list[Request] = []
    earlier: list[Request] = []  # answered before the process that is asked again was started
    broken: list[Request] = []
    servers = [Server(project.root, workers)]
    try:
        for number in range(kills):
            kind = KINDS[number % len(KINDS)]
            server = servers[-1]
            server.wait()
            retry(server, [request for request in earlier if request.key], outcome, chance)
            mend(server, broken, outcome)
            clients = [Client(server.port, bodies, chance.random()) for _ in range(CONNECTIONS)]
            resetting = [
                ResettingClient(server.port, bodies, chance.random()) for _ in range(RESETTING)
            ]
            for client in (*clients, *resetting):
                client.start()
            if kind != "worker":
                servers.append(Server(project.root, workers))
            time.sleep(chance.uniform(0.02, 0.6))
            outcome.orphans += wait_until_gone(server.kill(kind, chance))
            earlier, answered = answered, finish(clients, resetting, outcome)
            broken = [request for client in clients for request in client.broken]
            count(project, answered, outcome)
            outcome.kills[kind] += 1
        servers[-1].wait()
        servers[-1].stop()
    finally:
        for server in servers:
            wait_until_gone(server.kill("all", chance))
    check(project, outcome)
    return outcome


def finish(
    clients: list[Client], resetting: list[ResettingClient], outcome: Outcome
) -> list[Request]:
    """Let the clients end whose connections live on, and gather what was answered."""
    for client in (*clients, *resetting):
        client.enough.set()
    for client in (*clients, *resetting):
        client.join()
    outcome.resets += sum(client.resets for client in resetting)
    outcome.waiting += [each for client in clients for each in client.waiting]
    outcome.refused += [refusal for client in clients for refusal in client.refused]
    return [request for client in clients for request in client.answered]


def retry(server: Server, keyed: list[Request], outcome: Outcome, chance: random.Random) -> None:
    """Send some requests again that a killed server has answered: the answers must be the same."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=WAIT_S)
    for request in chance.sample(keyed, min(5, len(keyed))):
        again = send(connection, request.endpoint, request.body, request.key)
        outcome.retried += 1
        if again != request.answer:
            outcome.changed.append(f"the retry with the key {request.key}")
    connection.close()


def mend(server: Server, broken: list[Request], outcome: Outcome) -> None:
    """Send again what was killed under way: it may have been logged, and is not logged again."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=WAIT_S)
    for request in broken:
        send(connection, request.endpoint, request.body, request.key)
        outcome.mended += 1
    connection.close()


def keys_twice(log: Path) -> list[str]:
    """Give the idempotency keys that stand in the log more than once."""
    seen: Counter[str] = Counter()
    for segment in (segment for hour in hours(log) for segment in segments(log, hour)):
        with open_windowed(segment.frames) as frames:
            keyed = [decode_frame(frames, slot) for slot in scan_frames(frames, 0) if slot.keyed]
        for frame in keyed:
            seen.update(f"{frame.endpoint} {part.idempotency_key}" for part in frame.requests)
    return [key for key, times in seen.items() if times > 1 and not key.endswith(" None")]


def count(project: Project, answered: list[Request], outcome: Outcome) -> None:
    """Look for everything that was answered, beside the killed server's open segment."""
    for request in answered:
        predictions = msgspec.json.decode(request.answer, type=_Answer).predictions
        outcome.requests += 1
        outcome.keyed += request.key is not None
        outcome.predictions += len(predictions)
        outcome.not_finite += sum(b"null" in bytes(prediction) for prediction in predictions)
        first = msgspec.json.decode(predictions[0])["id"]
        logged = find_prediction(project.log, first)
        if logged is None:
            outcome.lost.append(first)
            continue
        # A request is logged as one part of one frame.
        recorded = logged.batch.answers[logged.row : logged.row + len(predictions)]
        if recorded != [bytes(prediction) for prediction in predictions]:
            outcome.changed.append(first)
    found = log_check.check_log(project, deep=False)
    outcome.torn_tails += sum(one.code.startswith("unfinished") for one in found)


def check(project: Project, outcome: Outcome) -> None:
    """After the last restart neither the log nor the store may have anything to say."""
    outcome.twice += keys_twice(project.log)
    outcome.access_lines = access_log_of(project.root).read_bytes().count(b"\n")
    found = [*log_check.check_log(project), *check_store(project.store_root)]
    outcome.findings += [f"{one.code}: {one.values}" for one in found if not one.harmless]


def main() -> None:
    """Kill, look, keep."""
    from shared import demo, doubling
    from shared.keep import keep

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--workers", type=int, default=WORKERS)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--no-save", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        project = demo.make(Path(folder) / "tumours")
        bodies = {"tumours": bodies_of(project), "doubling": doubling.BODIES}
        doubling.add(project)
        outcome = kill_often(
            project,
            bodies,
            options.kills,
            seed=options.seed,
            workers=options.workers,
        )
    print(
        f"{sum(outcome.kills.values())} kills {outcome.kills}: {outcome.predictions:,} "
        f"predictions in {outcome.requests:,} requests answered, {outcome.not_finite:,} of them "
        f"not finite, {outcome.resets:,} connections reset, {outcome.access_lines:,} lines in the "
        f"access log; {len(outcome.waiting)} callers left waiting, "
        f"{len(outcome.lost)} lost, {len(outcome.changed)} changed; "
        f"{outcome.retried} of {outcome.keyed:,} keyed requests sent again, and {outcome.mended} "
        f"that broke; {len(outcome.twice)} logged twice; "
        f"{outcome.torn_tails} torn tails; {len(outcome.orphans)} orphans; "
        f"{len(outcome.findings)} findings afterwards"
    )
    for problem in outcome.problems[:20]:
        print(f"  {problem}")
    if not options.no_save:
        keep("kills", msgspec.to_builtins(outcome) | {"seed": options.seed})
    raise SystemExit(0 if outcome.is_clean else 1)


def bodies_of(project: Project) -> list[bytes]:
    """Requests of one to 1,000 rows, from the model's background sample."""
    (path,) = project.packages.glob("*/*/background.json")
    rows = msgspec.json.decode(path.read_bytes(), type=list[msgspec.Raw])
    chance = random.Random(0)
    sizes = [1] * 20 + [3, 17, 100, 1000]
    return [msgspec.json.encode({"rows": chance.choices(rows, k=size)}) for size in sizes]


if __name__ == "__main__":
    main()
