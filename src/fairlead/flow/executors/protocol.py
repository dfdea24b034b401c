"""The contract of an executor: where steps run."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from typing import Protocol, TypeVar

T = TypeVar("T")


class Executor(Protocol):
    """
    Runs the step calls of one run.

    `submit` is called from the pipeline's thread, in the order of the calls; work
    waits by itself for the calls that it depends on, all of which were submitted
    earlier, so an executor that starts work in order never locks up. What the
    work raises comes out of its future, KeyboardInterrupt included. `close` waits
    for what was submitted and may be called twice.
    """

    name: str

    def submit(self, work: Callable[[], T]) -> Future[T]: ...

    def close(self) -> None: ...
