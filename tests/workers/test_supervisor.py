"""A server of several workers replaces one that dies or hangs, and finds the endpoint at fault."""

from __future__ import annotations

import asyncio
import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import pytest
from explained import add_python_model
from support import PATIENCE_S, start_process, tmpfs, wait_for

from clewline.errors import Conflict
from clewline.protocols.http import listener
from clewline.serve import revision
from clewline.serve.endpoint_file import read_endpoint
from clewline.serve.log import reader as log_reader
from clewline.store.store import Store

if TYPE_CHECKING:
    from conftest import Loans

ROW: dict[str, Any] = {"age": 39, "hours": 40.5, "job": "nurse"}
DOCS = Path(__file__).parents[2] / "docs"
CRASH, HANG, EXIT = 50.001, 50.002, 50.003
"""Hours that the project's function does not survive; the model's sample has two decimals."""

NODES = """
import ctypes
import os

def fragile(rows: list[dict]) -> list[dict]:
    for row in rows:
        if row["hours"] == 50.001:
            ctypes.string_at(0)
        if row["hours"] == 50.002:
            ctypes.PyDLL(None).sleep(60)  # holds the interpreter
        if row["hours"] == 50.003:
            os._exit(3)
    return rows
"""
APART = """
import subprocess, time

class Model:
    def predict(self, rows):
        return [self.one(row["x"]) for row in rows]

    def one(self, x):
        if x == 1:
            time.sleep(600)
        if x == 2:
            return subprocess.Popen(["sleep", "600"], start_new_session=True).pid
        return 2 * x
"""
RISKY = """
endpoint: risky
graph: {transform: nodes.py:fragile, model: income@1}
"""


class Server:
    """`clewline serve` in a process of its own, and what it says."""

    def __init__(self, root: Path, *words: str) -> None:
        command = [sys.executable, "-m", "clewline.cli.main", "serve", "--port", "0", *words]
        self.process = start_process(command, cwd=root, stderr=subprocess.PIPE, text=True)
        self.said = ""
        self._changed = threading.Condition()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        self.port = int(self.wait_for(r"Ready on http://127\.0\.0\.1:(\d+)")[1])

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            with self._changed:
                self.said += line
                self._changed.notify_all()
        with self._changed:
            self._changed.notify_all()

    def wait_for(self, pattern: str, times: int = 1) -> re.Match[str]:
        """Wait until something was said so often."""
        with self._changed:
            found = self._changed.wait_for(
                lambda: len(list(re.finditer(pattern, self.said))) >= times, PATIENCE_S
            )
            assert found, self.said
            return list(re.finditer(pattern, self.said))[times - 1]

    @property
    def workers(self) -> list[int]:
        """The processes that the supervisor has."""
        pid = self.process.pid
        return [int(p) for p in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]

    def ask(self, method: str, path: str, body: Any = None, **headers: str) -> tuple[int, Any]:
        """Send a request on a connection of its own; (0, None) when it got no answer."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE_S)
        named = {"content-type": "application/json"}
        named |= {name.replace("_", "-"): value for name, value in headers.items()}
        try:
            connection.request(method, path, None if body is None else json.dumps(body), named)
            answer = connection.getresponse()
            raw = answer.read()
            is_json = answer.headers["content-type"] == "application/json"
            return answer.status, json.loads(raw) if is_json else raw.decode()
        except (ConnectionError, http.client.HTTPException):
            return 0, None
        finally:
            connection.close()

    def predict(
        self, endpoint: str = "income", hours: float = 40.5, **headers: str
    ) -> tuple[int, Any]:
        return self.ask(
            "POST", f"/v1/endpoints/{endpoint}/predict", ROW | {"hours": hours}, **headers
        )

    def wait_until_ready(self) -> Any:
        """Wait until every worker answers."""

        def ready() -> Any:
            status, answer = self.ask("GET", "/health/ready")
            return answer if status == 200 else None

        return wait_for(ready)

    def stop(self) -> int:
        self.process.terminate()
        code = self.process.wait(20)
        self._reader.join()
        return code


@pytest.fixture
def serve() -> Iterator[Callable[..., Server]]:
    """Start servers; all are stopped at the end, and leave no process behind."""
    running: list[Server] = []

    def start(root: Path, *words: str) -> Server:
        running.append(Server(root, *words))
        return running[-1]

    yield start
    for server in running:
        if server.process.poll() is None:
            workers = server.workers
            server.stop()
            assert not [pid for pid in workers if is_alive(pid)]
        assert server.process.stderr is not None
        server.process.stderr.close()


@pytest.fixture
def project(loans: Loans) -> Path:
    """A project whose endpoint `income` is sound, and whose endpoint `risky` is not."""
    root = loans.project.root
    (root / "nodes.py").write_text(NODES)
    apply(loans, "risky", RISKY)
    return root


def apply(loans: Loans, name: str, text: str) -> None:
    """Write an endpoint's file and make it live."""
    (loans.project.endpoints / f"{name}.yaml").write_text(text)
    with Store.open(loans.project.store_root) as store:
        revision.apply(loans.project, store, read_endpoint(loans.project, name))


def is_alive(pid: int) -> bool:
    try:
        return ") Z " not in Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:
        return False


def metric(text: str, name: str) -> float:
    return sum(float(found) for found in re.findall(rf"^{name}(?:{{.*}})? (\S+)$", text, re.M))


def test_three_crashes_fail_the_endpoint_with_the_reason_while_others_are_served(
    serve: Callable[..., Server], project: Path, loans: Loans
) -> None:
    server = serve(project)
    assert server.predict("risky")[0] == 200
    for at in range(3):
        assert server.predict("risky", CRASH) == (0, None)
        server.wait_for("crashed by SIGSEGV while computing risky#1", at + 1)
        assert server.predict()[0] == 200  # waits in the queue of the socket, if need be
    assert "nodes.py" in server.said  # the stack names the place
    assert "fragile" in server.said
    server.wait_for(r"risky#1 has ended 3 workers")
    status, answer = server.predict("risky")
    assert status == 500
    assert "risky#1 has ended 3 workers" in answer["error"]["message"]
    assert server.predict()[0] == 200
    assert server.ask("GET", "/health/ready")[0] == 503
    assert metric(server.ask("GET", "/metrics")[1], "clewline_worker_exits_total") == 3

    apply(loans, "risky", RISKY.replace("income@1", "income@2"))
    server.wait_until_ready()
    assert server.predict("risky")[0] == 200


def test_a_worker_is_replaced_if_its_model_holds_the_interpreter_and_the_other_answers_meanwhile(
    serve: Callable[..., Server], project: Path
) -> None:
    server = serve(project, "--workers", "2")
    assert server.wait_until_ready()["workers"] == {"ready": 2, "of": 2}
    hung = threading.Thread(target=server.predict, args=("risky", HANG))
    hung.start()
    said = server.wait_for(r"worker process (\d+) hangs: (.*)")
    assert "stood still" in said[2] or "computing risky#1" in said[2]
    server.wait_for(rf"worker process {said[1]} was ended because")
    assert "fragile" in server.said  # its stack
    hung.join()
    server.wait_until_ready()
    assert server.predict()[0] == 200


def test_kills_by_an_operator_count_against_no_revision_and_counters_never_decrease(
    serve: Callable[..., Server], project: Path
) -> None:
    server = serve(project, "--workers", "2")
    for _ in range(20):
        assert server.predict()[0] == 200
    text = server.ask("GET", "/metrics")[1]
    assert metric(text, "clewline_predictions_total") == 20
    assert metric(text, "clewline_batch_rows_count") == 20
    assert metric(text, "clewline_workers_ready") == 2
    documented = (DOCS / "metrics.md").read_text()
    for name in re.findall(r"^# HELP (clewline_\S+)", text, re.M):
        assert f"`{name}`" in documented
    for at in range(2):
        for pid in server.workers:
            os.kill(pid, signal.SIGKILL)
            server.wait_for(f"worker process {pid} was killed by SIGKILL")
        server.wait_until_ready()
        text = server.ask("GET", "/metrics")[1]
        assert metric(text, "clewline_predictions_total") == 20 + at
        assert server.predict()[0] == 200
        assert metric(server.ask("GET", "/metrics")[1], "clewline_predictions_total") == 21 + at
    assert "has ended" not in server.said


def test_readiness_reports_that_a_worker_is_being_replaced(
    serve: Callable[..., Server], project: Path
) -> None:
    server = serve(project, "--workers", "2")
    one, other = server.workers
    os.kill(one, signal.SIGSTOP)
    try:
        statuses = set()
        until = time.monotonic() + 20
        while 503 not in statuses and time.monotonic() < until:
            connection = socket.create_connection(("127.0.0.1", server.port), timeout=0.3)
            try:
                connection.sendall(b"GET /health/ready HTTP/1.1\r\nhost: localhost\r\n\r\n")
                answer = connection.recv(4096)
            except TimeoutError:
                continue  # it stands in the queue of the stopped one
            finally:
                connection.close()
            statuses.add(int(answer.split()[1]))
            if 503 in statuses:
                assert b"1 of 2 workers are ready: worker" in answer
        assert 503 in statuses
    finally:
        with suppress(ProcessLookupError):  # it may have been replaced meanwhile
            os.kill(one, signal.SIGCONT)
    server.wait_until_ready()
    assert other in server.workers


def test_workers_stop_after_their_supervisor_and_answer_the_requests_that_they_have_taken(
    serve: Callable[..., Server], project: Path, loans: Loans
) -> None:
    server = serve(project, "--workers", "2")
    workers = server.workers
    answers = [server.predict()[1] for _ in range(4)]
    server.process.kill()
    server.process.wait()
    wait_for(lambda: not any(is_alive(pid) for pid in workers))
    for answer in answers:
        assert log_reader.find_prediction(loans.project.log, answer["predictions"][0]["id"])


@pytest.mark.parametrize("trouble", ["full", "read-only"])
def test_callers_learn_that_no_worker_can_start_and_are_answered_when_one_can(
    make_loans: Callable[[Path], Loans],
    tmp_path: Path,
    serve: Callable[..., Server],
    trouble: str,
) -> None:
    (tmp_path / "disk").mkdir()
    with tmpfs(tmp_path / "disk", "size=64m") as disk:
        loans = make_loans(disk)
        server = serve(disk)
        status, answer = server.predict()
        assert status == 200
        ids = [answer["predictions"][0]["id"]]
        if trouble == "full":
            with suppress(OSError), (disk / "ballast").open("wb", buffering=0) as ballast:
                while ballast.write(bytes(4096)):
                    pass
        os.kill(server.workers[0], signal.SIGKILL)
        server.wait_for("was killed by SIGKILL")
        if trouble == "read-only":
            subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
        for key in (None, "a key"):
            status, answer = server.predict(**({"idempotency_key": key} if key else {}))
            assert status == 507, (answer, server.said)
            assert answer["error"]["code"] == (
                "store_full" if trouble == "full" else "store_read_only"
            )
        if trouble == "full":
            (disk / "ballast").unlink()
        else:
            subprocess.run(["mount", "-o", "remount,rw", str(disk)], check=True)
        wait_for(lambda: server.predict()[0] == 200)
        status, answer = server.predict()
        ids.append(answer["predictions"][0]["id"])
        assert all(log_reader.find_prediction(loans.project.log, each) for each in ids)
        assert server.stop() == 0


def test_a_retry_gets_the_first_answer_whichever_worker_it_meets(
    serve: Callable[..., Server], project: Path
) -> None:
    server = serve(project, "--workers", "2")
    first = server.predict(idempotency_key="k")
    assert [server.predict(idempotency_key="k") for _ in range(10)] == [first] * 10
    for pid in server.workers:
        os.kill(pid, signal.SIGKILL)
    assert server.predict(idempotency_key="k") == first


def test_a_worker_that_exits_is_replaced_and_a_rolling_restart_fails_no_request(
    serve: Callable[..., Server], project: Path
) -> None:
    server = serve(project, "--workers", "2")
    assert server.predict("risky", EXIT) == (0, None)
    server.wait_for("ended itself with status 3 while computing risky#1")
    server.wait_until_ready()
    before = set(server.workers)
    statuses: list[int] = []
    done = threading.Event()

    def hammer() -> None:
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=PATIENCE_S)
        while not done.is_set():  # on one connection, until an answer says that it is closed
            headers = {"content-type": "application/json"}
            connection.request("POST", "/v1/endpoints/income/predict", json.dumps(ROW), headers)
            answer = connection.getresponse()
            answer.read()
            statuses.append(answer.status)
        connection.close()

    callers = [threading.Thread(target=hammer) for _ in range(4)]
    for caller in callers:
        caller.start()
    server.process.send_signal(signal.SIGHUP)
    wait_for(lambda: not before & set(server.workers))
    done.set()
    for caller in callers:
        caller.join()
    assert set(statuses) == {200}


def test_a_port_that_another_server_shares_is_refused() -> None:
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        other.bind(("127.0.0.1", 0))
        other.listen()
        with pytest.raises(Conflict, match="is not available"):
            listener.listening_sockets("127.0.0.1", other.getsockname()[1], 2)
    mine = listener.listening_sockets("127.0.0.1", 0, 3)
    assert len({each.getsockname() for each in mine}) == 1
    for each in mine:
        each.close()


def test_two_servers_that_take_a_port_at_the_same_time_do_not_both_get_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    first = listener.listening_sockets("127.0.0.1", 0, 2)
    port = first[0].getsockname()[1]
    bound = listener._bind
    free = lambda host, port, *, shared: bound(host, port if shared else 0, shared=shared)  # noqa: E731
    monkeypatch.setattr(listener, "_bind", free)  # as if the other had come after the look
    with pytest.raises(Conflict, match="at the same time"):
        listener.listening_sockets("127.0.0.1", port, 1)
    for each in first:
        each.close()


ROUTED = """
endpoint: routed
graph:
  route: {kind: weights, weights: {a: 0.5, b: 0.5}}
  arms: {a: income@1, b: income@1}
shadow: {s: income@1}
"""
CONNECTIONS = 32


class Hammer:
    """Asks endpoints over many connections at once, until it is told to stop."""

    def __init__(self, port: int, endpoints: list[str]) -> None:
        self.answers: list[tuple[str, int, bytes]] = []
        self._port, self._endpoints = port, endpoints
        self._done = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()))
        self._thread.start()

    def stop(self) -> None:
        self._done.set()
        self._thread.join()

    async def _run(self) -> None:
        names = [self._endpoints[n % len(self._endpoints)] for n in range(CONNECTIONS)]
        await asyncio.gather(*map(self._ask, names))

    async def _ask(self, endpoint: str) -> None:
        body = json.dumps(ROW).encode()
        head = f"POST /v1/endpoints/{endpoint}/predict HTTP/1.1\r\nhost: localhost\r\n"
        head += f"content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
        reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
        while not self._done.is_set():
            writer.write(head.encode() + body)
            said = await reader.readuntil(b"\r\n\r\n")
            length = re.search(rb"content-length: (\d+)", said)
            assert length is not None
            answer = await reader.readexactly(int(length[1]))
            self.answers.append((endpoint, int(said.split()[1]), answer))
        writer.close()


def go_live(loans: Loans, endpoint: str, number: int) -> None:
    with Store.open(loans.project.store_root) as store:
        revision.rollback(loans.project, store, endpoint, number)


def revision_of(server: Server, endpoint: str) -> set[str]:
    """The revisions that answer now, asked often enough to meet every worker."""
    return {server.predict(endpoint)[1]["revision"] for _ in range(12)}


def wait_for_revision(server: Server, endpoint: str, ref: str) -> None:
    wait_for(lambda: revision_of(server, endpoint) == {ref})


def test_no_request_over_32_connections_fails_while_revisions_are_swapped(
    serve: Callable[..., Server], loans: Loans
) -> None:
    apply(loans, "routed", ROUTED)
    server = serve(loans.project.root, "--workers", "2")
    hammer = Hammer(server.port, ["income", "routed"])
    plain = (loans.project.endpoints / "income.yaml").read_text()
    try:
        apply(loans, "income", plain.replace("income@1", "income@2"))
        wait_for_revision(server, "income", "income#2")
        apply(loans, "routed", ROUTED.replace("{a: 0.5, b: 0.5}", "{a: 0.9, b: 0.1}"))
        wait_for_revision(server, "routed", "routed#2")
        go_live(loans, "income", 1)
        wait_for_revision(server, "income", "income#1")
        package = next((loans.project.packages / "income" / "2").glob("model*"))
        sound = package.read_bytes()
        package.write_bytes(sound[:-1])
        go_live(loans, "income", 2)
        server.wait_for(r"income#2 could not be loaded", 2)  # by each worker
        assert revision_of(server, "income") == {"income#1"}
        status, answer = server.ask("GET", "/health/ready")
        assert (status, "income" in answer["error"]["message"]) == (503, True)
        package.write_bytes(sound)
        wait_for_revision(server, "income", "income#2")
    finally:
        hammer.stop()
    assert len(hammer.answers) > CONNECTIONS
    assert {(status, answer) for _, status, answer in hammer.answers if status != 200} == set()
    for _, _, answer in hammer.answers[::97]:
        assert log_reader.find_prediction(
            loans.project.log, json.loads(answer)["predictions"][0]["id"]
        )


def test_the_supervisor_imports_neither_models_nor_the_catalog() -> None:
    program = "import sys, clewline.workers.supervisor; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], stdout=subprocess.PIPE, check=True)
    loaded = set(done.stdout.decode().split())
    assert "clewline.workers.supervisor" in loaded
    assert not loaded & {"numpy", "polars", "onnxruntime", "sqlalchemy", "clewline.serve.batcher"}


def test_isolated_models_that_hang_stall_nobody_else(
    serve: Callable[..., Server], project: Path, loans: Loans
) -> None:
    add_python_model(loans.project, "apart", APART)
    names = [f"apart{at}" for at in range((os.cpu_count() or 1) + 4)]  # more than compute threads
    text = "endpoint: NAME\ntimeout_ms: 5000\ngraph: {model: apart@1, isolate: true}\n"
    for name in names:
        apply(loans, name, text.replace("NAME", name))
    server = serve(project)

    def ask(name: str, x: float) -> tuple[int, Any]:
        return server.ask("POST", f"/v1/endpoints/{name}/predict", {"x": x})

    def value(answer: tuple[int, Any]) -> Any:
        return answer[1]["predictions"][0]["value"] if answer[0] == 200 else None

    wait_for(lambda: value(ask(names[0], 3)) == 6)
    for _ in range(20):  # their calls are known to be quick
        ask(names[0], 3)
    workers, hung = server.workers, {}
    threads = [
        threading.Thread(target=lambda name=name: hung.update({name: ask(name, 1)}))
        for name in names[:-1]
    ]
    for thread in threads:
        thread.start()
    answered = 0
    while any(thread.is_alive() for thread in threads):
        assert server.predict()[0] == 200
        rows = {"rows": [ROW] * 100}  # computed on a thread
        assert server.ask("POST", "/v1/endpoints/income/predict", rows)[0] == 200
        assert value(ask(names[-1], 4)) == 8
        answered += 1
    assert answered > 2
    assert {status for status, _ in hung.values()} <= {500, 504}
    wait_for(lambda: value(ask(names[0], 5)) == 10)  # its process was started again
    assert server.workers == workers
    assert "hangs" not in server.said
    restarts = metric(server.ask("GET", "/metrics")[1], "clewline_isolated_restarts_total")
    assert restarts >= 1


def test_nothing_of_an_isolated_model_outlives_a_killed_worker(
    serve: Callable[..., Server], project: Path, loans: Loans
) -> None:
    add_python_model(loans.project, "apart", APART)
    apply(loans, "apart", "endpoint: apart\ngraph: {model: apart@1, isolate: true}\n")
    server = serve(project)
    _, answer = server.ask("POST", "/v1/endpoints/apart/predict", {"x": 2})
    (worker,) = server.workers
    descendants = [each.pid for each in psutil.Process(worker).children(recursive=True)]
    assert answer["predictions"][0]["value"] in descendants
    os.kill(worker, signal.SIGKILL)
    wait_for(lambda: not any(is_alive(pid) for pid in descendants))
