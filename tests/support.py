"""What tests of several folders use: waiting, and processes that end with the test run."""

from __future__ import annotations

import asyncio
import os
import resource
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from typing import Any, TypeVar

import pytest
from packaging.version import Version

T = TypeVar("T")


def needs(distribution: str, version: str) -> pytest.MarkDecorator:
    """Skip a test where a library is older than `version`."""
    found = metadata.version(distribution)
    too_old = Version(found) < Version(version)
    return pytest.mark.skipif(too_old, reason=f"needs {distribution} {version}, not {found}")


TREES_IN_ONNX = needs("onnxruntime", "1.21")
"""ONNX Runtime 1.20 has no trees in float64: models of trees are served by their own library."""

NOBODY = 65534
"""A user who may enter no folder of a test."""

PATIENCE_S = 60.0
"""How long a test waits before it fails; long enough for a machine that is busy elsewhere."""


def wait_for(condition: Callable[[], T], seconds: float = PATIENCE_S) -> T:
    """Return what `condition` returns, as soon as that is true."""
    give_up = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < give_up, f"waited {seconds} s for {condition}"
        time.sleep(0.002)
    return found


async def wait_until(condition: Callable[[], T], seconds: float = PATIENCE_S) -> T:
    """Return what `condition` returns, as soon as that is true; other tasks run meanwhile."""
    give_up = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < give_up, f"waited {seconds} s for {condition}"
        await asyncio.sleep(0.002)
    return found


@contextmanager
def no_more_files() -> Iterator[None]:
    """Let this process open no more files."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    lowest = os.dup(0)
    os.close(lowest)
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@contextmanager
def forbidden(folder: Path) -> Iterator[None]:
    """Let this process enter a folder no more; root, who may enter any, becomes nobody."""
    user, mode = os.geteuid(), folder.stat().st_mode
    folder.chmod(0o700 if user == 0 else 0)
    if user == 0:
        os.seteuid(NOBODY)
    try:
        yield
    finally:
        if user == 0:
            os.seteuid(0)
        folder.chmod(mode)


@contextmanager
def tmpfs(path: Path, options: str) -> Iterator[Path]:
    """Mount a file system in memory for the block, or skip the test without the right to do so."""
    command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(path)]
    if shutil.which("mount") is None or subprocess.run(command, capture_output=True).returncode:
        pytest.skip("needs the right to mount a file system: run the tests as root")
    try:
        yield path
    finally:
        subprocess.run(["umount", "-l", str(path)], check=True)


def free_port() -> int:
    """Return a port of this machine that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def tied(command: Sequence[Any]) -> list[Any]:
    """Return a command that the kernel kills when the test run ends (prctl(2))."""
    setpriv = shutil.which("setpriv")  # of util-linux; without it, an orphan may outlive a kill
    return [*([setpriv, "--pdeathsig", "KILL"] if setpriv else []), *command]


def start_process(command: Sequence[Any], **options: Any) -> subprocess.Popen[Any]:
    """Start a process that ends with the test run at the latest."""
    return subprocess.Popen(tied(command), **options)


@contextmanager
def process(command: Sequence[Any], **options: Any) -> Iterator[subprocess.Popen[Any]]:
    """Start a process that ends with the block."""
    with start_process(command, **options) as started:
        try:
            yield started
        finally:
            started.kill()
