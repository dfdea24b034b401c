"""Kills the server with SIGKILL at random moments under load, and looks for lost answers."""

from __future__ import annotations

import argparse
import http.client
import random
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from fairlead.project import Project
from fairlead.serve import log_check
from fairlead.serve.log_reader import find
from fairlead.store import doctor

CONNECTIONS = 6
KEYED = 0.2
"""Share of requests with an idempotency key."""


class Refused(Exception):
    """The server answered a valid request with an error."""


class _Answer(msgspec.Struct):
    predictions: list[msgspec.Raw]


@dataclass
class Outcome:
    """What became of all that was answered."""

    kills: int = 0
    requests: int = 0
    predictions: int = 0
    keyed: int = 0
    retried: int = 0
    torn_tails: int = 0
    lost: list[str] = field(default_factory=list)
    changed: list[str] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)
    findings: list[str] = field(default_factory=list)

    @property
    def is_clean(self) -> bool:
        """Tell whether nothing was lost, changed or damaged."""
        return not (self.lost or self.changed or self.refused or self.findings)


@dataclass(frozen=True)
class Request:
    """A request that was answered whole, and the answer."""

    endpoint: str
    body: bytes
    key: str | None
    answer: bytes


class Server:
    """A server of ours in a process of its own."""

    def __init__(self, root: Path) -> None:
        words = [sys.executable, "-m", "fairlead.cli.main", "serve", "--port", "0"]
        self.process = subprocess.Popen(
            words, cwd=root, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
        )
        self.port = 0

    def wait(self) -> None:
        """Wait until it answers."""
        assert self.process.stderr is not None
        said = ""
        for line in self.process.stderr:
            said += line
            if line.startswith("Ready on "):
                self.port = int(line.split()[2].rstrip(".").rpartition(":")[2])
                return
        raise SystemExit(f"the server did not start: {said}")

    def stop(self) -> None:
        """Ask it to drain and stop."""
        self.process.terminate()
        self.process.communicate()

    def kill(self) -> None:
        """End it with SIGKILL."""
        self.process.kill()
        self.process.wait()
        assert self.process.stderr is not None
        self.process.stderr.close()


class Client(threading.Thread):
    """Sends requests over one connection until it breaks; keeps what was answered whole."""

    def __init__(self, port: int, bodies: dict[str, Sequence[bytes]], seed: int) -> None:
        super().__init__(daemon=True)
        self.connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        self.bodies = bodies
        self.random = random.Random(seed)
        self.answered: list[Request] = []
        self.refused: list[str] = []

    def run(self) -> None:
        while True:
            endpoint = self.random.choice(list(self.bodies))
            body = self.random.choice(self.bodies[endpoint])
            key = str(uuid.uuid4()) if self.random.random() < KEYED else None
            try:
                answer = send(self.connection, endpoint, body, key)
            except (http.client.HTTPException, OSError):
                self.connection.close()
                return
            except Refused as error:
                self.connection.close()
                self.refused.append(str(error))
                return
            self.answered.append(Request(endpoint, body, key, answer))


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
    project: Project, bodies: dict[str, Sequence[bytes]], kills: int, *, seed: int = 0
) -> Outcome:
    """
    Kill servers of a project under load, one after another.

    The next server starts while the one before is still answering, so two write
    the log side by side.

    Args:
        project: With live revisions.
        bodies: Endpoint → bodies of valid requests.
        kills: How many.
        seed: Of the moments and of the requests.
    """
    chance = random.Random(seed)
    outcome = Outcome()
    answered: list[Request] = []
    earlier: list[Request] = []  # answered before the server that is asked again was started
    server = Server(project.root)
    following = None
    try:
        for _ in range(kills):
            server.wait()
            retry(server, [request for request in earlier if request.key], outcome, chance)
            clients = [Client(server.port, bodies, chance.random()) for _ in range(CONNECTIONS)]
            for client in clients:
                client.start()
            following = Server(project.root)
            time.sleep(chance.uniform(0.02, 0.6))
            server.kill()
            for client in clients:
                client.join()
            earlier, answered = (
                answered,
                [request for client in clients for request in client.answered],
            )
            outcome.refused += [refusal for client in clients for refusal in client.refused]
            count(project, answered, outcome)
            outcome.kills += 1
            server = following
        server.wait()
        server.stop()
    finally:
        server.kill()
        if following is not None:
            following.kill()
    check(project, outcome)
    return outcome


def retry(server: Server, keyed: list[Request], outcome: Outcome, chance: random.Random) -> None:
    """Send some requests again that a killed server has answered: the answers must be the same."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)
    for request in chance.sample(keyed, min(5, len(keyed))):
        again = send(connection, request.endpoint, request.body, request.key)
        outcome.retried += 1
        if again != request.answer:
            outcome.changed.append(f"the retry with the key {request.key}")
    connection.close()


def count(project: Project, answered: list[Request], outcome: Outcome) -> None:
    """Look for everything that was answered, beside the killed server's open segment."""
    for request in answered:
        predictions = msgspec.json.decode(request.answer, type=_Answer).predictions
        outcome.requests += 1
        outcome.keyed += request.key is not None
        outcome.predictions += len(predictions)
        first = msgspec.json.decode(predictions[0])["id"]
        logged = find(project.log, first)
        if logged is None:
            outcome.lost.append(first)
            continue
        # A request is logged as one part of one frame.
        recorded = logged.frame.answers[logged.row : logged.row + len(predictions)]
        if recorded != [bytes(prediction) for prediction in predictions]:
            outcome.changed.append(first)
    found = log_check.findings(project, deep=False)
    outcome.torn_tails += sum(one.kind == "half-written record" for one in found)


def check(project: Project, outcome: Outcome) -> None:
    """After the last restart neither the log nor the store may have anything to say."""
    found = [*log_check.findings(project), *doctor.check(project.store_root)]
    outcome.findings += [f"{one.kind}: {one.what}" for one in found if one.kind != "orphan blob"]


def main() -> None:
    """Kill, look, keep."""
    from shared import demo
    from shared.keep import keep

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--no-save", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        project = demo.make(Path(folder) / "tumours")
        outcome = kill_often(
            project, {"tumours": bodies_of(project)}, options.kills, seed=options.seed
        )
    print(
        f"{outcome.kills} kills: {outcome.predictions:,} predictions in {outcome.requests:,} "
        f"requests answered, {len(outcome.lost)} lost, {len(outcome.changed)} changed; "
        f"{outcome.retried} of {outcome.keyed:,} keyed requests sent again; "
        f"{outcome.torn_tails} torn tails; {len(outcome.findings)} findings afterwards"
    )
    for problem in [*outcome.lost, *outcome.changed, *outcome.refused, *outcome.findings][:20]:
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
