"""Servers under test: started, waited for, measured and stopped."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import psutil

JSON = {"Content-Type": "application/json"}


@dataclass(frozen=True)
class Question:
    """A request to predict: where, with which headers, and the bodies to send in turn."""

    path: str
    bodies: tuple[bytes, ...]
    headers: Mapping[str, str] = field(default_factory=lambda: JSON)


@dataclass(frozen=True)
class Server:
    """A server under test; `command` is given ports, and the question shows that it is ready."""

    name: str
    command: Callable[[int], tuple[str, ...]]
    folder: Path
    question: Question
    environment: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Running:
    """A server that answers."""

    server: Server
    port: int
    process: subprocess.Popen[bytes]
    ready_s: float  # from the command to the first prediction

    @property
    def family(self) -> list[psutil.Process]:
        """The process and its children."""
        parent = psutil.Process(self.process.pid)
        return [parent, *parent.children(recursive=True)]

    @property
    def cpu_s(self) -> float:
        """User and system time so far."""
        return sum(sum(member.cpu_times()[:2]) for member in self.family)

    @property
    def memory_mib(self) -> float:
        """What it and its children hold, shared pages counted once."""
        return sum(float(member.memory_full_info().pss) for member in self.family) / 2**20


@contextmanager
def running(server: Server, *, wait_s: float = 120.0) -> Iterator[Running]:
    """Run a server, until its first prediction and then for as long as asked."""
    port = free_port()
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    started = time.perf_counter()
    process = subprocess.Popen(
        server.command(port),
        cwd=server.folder,
        env=environment | dict(server.environment),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,  # so that what it leaves behind can be ended too
    )
    try:
        _wait_until_it_predicts(server, port, process, wait_s)
        yield Running(server, port, process, time.perf_counter() - started)
    finally:
        _stop(process)


def ask(port: int, question: Question, *, timeout_s: float = 20.0) -> bytes:
    """Ask once."""
    url = f"http://127.0.0.1:{port}{question.path}"
    request = urllib.request.Request(url, question.bodies[0], dict(question.headers))
    with urllib.request.urlopen(request, timeout=timeout_s) as answer:
        data: bytes = answer.read()
        return data


def free_port() -> int:
    """Ask the system for a port that is free now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _wait_until_it_predicts(
    server: Server, port: int, process: subprocess.Popen[bytes], wait_s: float
) -> None:
    until = time.monotonic() + wait_s
    while time.monotonic() < until:
        if process.poll() is not None:
            raise SystemExit(f"{server.name} ended with status {process.returncode}")
        try:
            ask(port, server.question)
            return
        except OSError:
            time.sleep(0.02)
    raise SystemExit(f"{server.name} gave no prediction within {wait_s:g} s")


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(20)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    try:
        os.killpg(process.pid, signal.SIGKILL)  # workers that outlived it
    except ProcessLookupError:
        return
