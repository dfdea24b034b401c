"""An idempotency key holds against every process that serves the project, dead or alive."""

from __future__ import annotations

import asyncio
import os
import resource
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from functools import wraps
from pathlib import Path
from typing import Any

import msgspec
import pytest
from support import PATIENCE_S, forbidden, no_more_files, process

from clewline.errors import ClewlineError, Conflict, Fault, Overloaded, StoreFull, StoreReadOnly
from clewline.serve.idempotency.claim_thread import body_digest
from clewline.serve.idempotency.idempotency import Idempotency
from clewline.serve.idempotency.key_claims import KeyClaims
from clewline.serve.log.frame import LoggedBatch, LoggedRequest, key_hash
from clewline.serve.log.writer import LogWriter
from clewline.serve.request.predict_request import PredictRequest, PredictResponse, Reply

BODY = b'{"rows":[{}]}'
ASK = PredictRequest(BODY, key="k")


def in_loop(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """Run a test in an event loop of its own."""

    @wraps(test)
    def run(*args: Any, **named: Any) -> None:
        asyncio.run(test(*args, **named))

    return run


class Server:
    """One server's keys; answers by writing a frame, when it is told to."""

    def __init__(self, log: Path, make: Callable[..., LoggedBatch]) -> None:
        self.idempotency = Idempotency(log)
        self.writer = LogWriter(log)
        self.make = make
        self.begun: list[Reply] = []
        self.came: asyncio.Queue[None] = asyncio.Queue()

    def ask(self, ask: PredictRequest = ASK) -> asyncio.Future[PredictResponse | ClewlineError]:
        future: asyncio.Future[PredictResponse | ClewlineError] = (
            asyncio.get_running_loop().create_future()
        )
        self.idempotency.claim("income", ask, future.set_result, self.go)
        return future

    def go(self, reply: Reply) -> None:
        self.begun.append(reply)
        self.came.put_nowait(None)

    def log(self, body: bytes = BODY) -> PredictResponse:
        frame = self.make(parts=[LoggedRequest("json", body, 1, None, "k")])
        assert self.writer.write_now(frame)
        return PredictResponse("income#12", frame.answers, frame.ids[:16])

    def close(self) -> None:
        self.idempotency.close()
        self.writer.close()


@pytest.fixture
def servers(tmp_path: Path, frame: Callable[..., LoggedBatch]) -> Callable[[], Server]:
    return lambda: Server(tmp_path / "log", frame)


@in_loop
async def test_a_retry_at_another_server_waits_for_the_first_answer(
    servers: Callable[[], Server],
) -> None:
    one, other = servers(), servers()
    first = one.ask()
    await one.came.get()
    retry, again = other.ask(), one.ask()
    await asyncio.sleep(0.03)
    assert not retry.done()
    answer = one.log()
    one.begun[0](answer)
    assert await asyncio.wait_for(retry, PATIENCE_S) == await first == await again == answer
    assert not other.begun
    one.close()
    other.close()


@in_loop
async def test_a_failure_is_not_recorded_and_a_server_that_waited_computes_itself(
    servers: Callable[[], Server],
) -> None:
    one, other = servers(), servers()
    first = one.ask()
    await one.came.get()
    retry = other.ask()
    one.begun[0](Fault("The disk is full."))
    assert isinstance(await first, Fault)
    await asyncio.wait_for(other.came.get(), PATIENCE_S)
    other.begun[0](answer := other.log())
    assert await retry == answer
    one.close()
    other.close()


@contextmanager
def full_disk() -> Iterator[None]:
    """Let no file of this process grow; SQLite takes the refusal for a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)


@in_loop
async def test_a_key_is_freed_even_if_the_disk_was_full_when_its_request_failed(
    servers: Callable[[], Server], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("clewline.serve.idempotency.claim_thread.RETRY_S", 0.01)
    one, other = servers(), servers()
    first = one.ask()
    await one.came.get()
    with full_disk():
        one.begun[0](StoreFull("The log is full."))
        refused = await asyncio.wait_for(one.ask(PredictRequest(BODY, key="another")), PATIENCE_S)
        assert isinstance(refused, ClewlineError)
    assert isinstance(await first, StoreFull)
    retry = other.ask()
    await asyncio.wait_for(other.came.get(), PATIENCE_S)
    other.begun[0](other.log())
    assert isinstance(await retry, PredictResponse)
    one.close()
    other.close()


@in_loop
async def test_a_full_disk_at_the_first_key_leaves_nothing_behind(
    servers: Callable[[], Server],
) -> None:
    server = servers()
    with full_disk():
        await server.ask()
        before = os.listdir("/proc/self/fd")
        for number in range(3):
            answer = await server.ask(PredictRequest(BODY, key=str(number)))
            assert isinstance(answer, ClewlineError)
        assert len(os.listdir("/proc/self/fd")) == len(before)
    again = server.ask()
    await asyncio.wait_for(server.came.get(), PATIENCE_S)
    server.begun[0](server.log())
    assert isinstance(await again, PredictResponse)
    server.close()


@in_loop
async def test_retries_at_the_same_server_share_the_answer_and_are_counted(
    servers: Callable[[], Server],
) -> None:
    one = servers()
    asked = [one.ask() for _ in range(3)]
    await one.came.get()
    one.begun[0](answer := one.log())
    assert [await asyncio.wait_for(each, PATIENCE_S) for each in asked] == [answer] * 3
    assert (len(one.begun), one.idempotency.replays) == (1, 2)
    one.close()


@in_loop
async def test_another_body_under_the_same_key_is_refused_by_every_server(
    servers: Callable[[], Server],
) -> None:
    one, other = servers(), servers()
    one.ask()
    await one.came.get()
    foreign = [
        one.ask(PredictRequest(b"{}", key="k")),
        other.ask(PredictRequest(b"{}", key="k")),
    ]
    one.begun[0](one.log())
    assert [type(await asyncio.wait_for(each, PATIENCE_S)) for each in foreign] == [
        Conflict,
        Conflict,
    ]
    assert one.idempotency.replays == other.idempotency.replays == 0
    one.close()
    other.close()


@in_loop
async def test_another_body_is_refused_at_once_while_another_server_answers_the_key(
    servers: Callable[[], Server],
) -> None:
    one, other = servers(), servers()
    one.ask()
    await one.came.get()
    foreign = other.ask(PredictRequest(b"{}", key="k"))
    assert isinstance(await asyncio.wait_for(foreign, PATIENCE_S), Conflict)
    one.begun[0](one.log())
    one.close()
    other.close()


@in_loop
async def test_another_body_is_refused_after_a_restart(servers: Callable[[], Server]) -> None:
    one = servers()
    one.log()
    one.close()
    other = servers()  # it knows the key from the log alone
    foreign = other.ask(PredictRequest(b"{}", key="k"))
    assert isinstance(await asyncio.wait_for(foreign, PATIENCE_S), Conflict)
    assert isinstance(await asyncio.wait_for(other.ask(), PATIENCE_S), PredictResponse)
    assert not other.begun
    other.close()


@in_loop
async def test_claims_that_another_process_locks_refuse_a_key_after_a_bounded_wait(
    tmp_path: Path, servers: Callable[[], Server], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("clewline.serve.idempotency.key_claims.LOCK_S", 0.1)
    server = servers()
    first = server.ask()
    await server.came.get()
    holder = sqlite3.connect(tmp_path / "claims" / "claims.sqlite")
    holder.execute("BEGIN IMMEDIATE")
    refused = await asyncio.wait_for(server.ask(PredictRequest(BODY, key="another")), 10)
    assert isinstance(refused, Overloaded)
    holder.close()
    server.begun[0](server.log())
    assert isinstance(await first, PredictResponse)
    again = server.ask(PredictRequest(BODY, key="another"))
    await asyncio.wait_for(server.came.get(), PATIENCE_S)
    server.begun[1](server.log())
    assert isinstance(await again, PredictResponse)
    server.close()


def test_only_this_user_may_read_or_lock_the_claims(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        claims = KeyClaims(tmp_path / "claims")
    finally:
        os.umask(before)
    with claims.transaction():
        assert claims.take(b"mark", b"body") is None
    modes = {path.stat().st_mode & 0o777 for path in (tmp_path / "claims").iterdir()}
    assert modes == {0o600}
    assert (tmp_path / "claims").stat().st_mode & 0o777 == 0o700
    claims.close()


@in_loop
async def test_a_request_on_which_the_model_failed_may_be_tried_again(
    servers: Callable[[], Server],
) -> None:
    one = servers()
    failed = [b'{"id":"x","error":{"code":"model_failed","message":"it raised"}}']
    frame = one.make(parts=[LoggedRequest("json", BODY, 1, None, "k")])
    assert one.writer.write_now(msgspec.structs.replace(frame, answers=failed))
    one.close()
    other = servers()  # it finds the key when it reads the log
    retry = other.ask()
    await asyncio.wait_for(other.came.get(), PATIENCE_S)
    other.begun[0](answer := other.log())
    assert await retry == answer
    other.close()


KILLED = """
import sys, time
from pathlib import Path
from clewline.serve.idempotency.key_claims import KeyClaims
claims = KeyClaims(Path(sys.argv[1]))
with claims.transaction():
    assert claims.take(bytes.fromhex(sys.argv[2]), bytes.fromhex(sys.argv[3])) is None
print("claimed", flush=True)
time.sleep(60)
"""


@pytest.mark.parametrize("logged", [True, False])
@in_loop
async def test_the_key_of_a_killed_server_is_found_in_the_log_or_taken_over(
    tmp_path: Path, servers: Callable[[], Server], logged: bool
) -> None:
    mark = key_hash("income", "k").hex()
    body = body_digest("json", "", BODY).hex()
    survivor = servers()
    words = [sys.executable, "-c", KILLED, str(tmp_path / "claims"), mark, body]
    with process(words, stdout=subprocess.PIPE) as killed:
        assert killed.stdout is not None
        assert killed.stdout.readline() == b"claimed\n"
        retry = survivor.ask()
        answer = survivor.log() if logged else None
        os.kill(killed.pid, signal.SIGKILL)
    if answer is None:
        await asyncio.wait_for(survivor.came.get(), PATIENCE_S)
        survivor.begun[0](answer := survivor.log())
    assert await asyncio.wait_for(retry, PATIENCE_S) == answer
    assert len(survivor.begun) == (not logged)
    survivor.close()


def test_only_its_owner_can_free_a_key(tmp_path: Path) -> None:
    one, other = KeyClaims(tmp_path / "claims"), KeyClaims(tmp_path / "claims")
    with one.transaction():
        assert one.take(b"mark", b"body") is None
    with other.transaction():
        other.settle(b"mark", None)
        held = other.take(b"mark", b"body")
    assert held is not None
    assert held.owner == one.owner
    with one.transaction():
        one.settle(b"mark", None)
    with other.transaction():
        assert other.take(b"mark", b"body") is None
    one.close()
    other.close()


def test_the_oldest_keys_are_forgotten_first_and_files_of_dead_processes_are_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from clewline.serve.idempotency import key_claims as module

    monkeypatch.setattr(module, "KEPT_KEYS", 500)
    claims = KeyClaims(tmp_path / "claims")
    marks = [number.to_bytes(16, "big") for number in range(1000)]
    with claims.transaction():
        for mark in marks:
            assert claims.take(mark, b"body") is None
            if mark != marks[50]:
                claims.settle(mark, mark)
        assert claims.take(marks[999], b"body") is not None
        assert claims.take(marks[50], b"body") is not None  # it is under way, however old
        assert claims.take(marks[100], b"body") is None
    claims.close()
    (tmp_path / "claims" / "1-dead.alive").touch()
    KeyClaims(tmp_path / "claims").close()
    assert not list((tmp_path / "claims").glob("*.alive"))


@pytest.mark.parametrize("is_limit", [True, False])
@in_loop
async def test_claims_that_are_not_opened_are_reported_as_what_the_system_says(
    servers: Callable[[], Server], tmp_path: Path, is_limit: bool
) -> None:
    server = servers()
    with no_more_files() if is_limit else forbidden(tmp_path):
        refused = await asyncio.wait_for(server.ask(), PATIENCE_S)
    assert isinstance(refused, Overloaded if is_limit else StoreReadOnly)
    assert ("Too many open files" if is_limit else "ermission denied") in str(refused)
    answered = server.ask()
    await asyncio.wait_for(server.came.get(), PATIENCE_S)
    server.begun[0](server.log())
    assert isinstance(await answered, PredictResponse)
    server.close()
