"""Executors decide where the steps of a run run: the contract, and the one that ships."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from typing import Protocol, TypeVar

from clewline.entry_points import load_entry_point

T = TypeVar("T")


class Executor(Protocol):
    """
    Runs the step calls of one run.

    `submit` is called from the pipeline's thread, in the order of the calls. The work
    itself waits for the calls that it depends on, and all of those were submitted
    earlier, so an executor that starts work in order cannot deadlock. An exception
    in the work is raised by its future, KeyboardInterrupt included. `close` waits
    for the submitted work and may be called twice.
    """

    name: str

    def submit(self, work: Callable[[], T]) -> Future[T]: ...

    def close(self) -> None: ...


class InlineExecutor:
    """Runs each step at its call, in the thread of the pipeline."""

    name = "inline"

    def submit(self, work: Callable[[], T]) -> Future[T]:
        """Do the work now, and return a future that is done."""
        future: Future[T] = Future()
        try:
            future.set_result(work())
        except BaseException as error:
            future.set_exception(error)
        return future

    def close(self) -> None:
        """Do nothing: no work is ever pending."""


def load_executor(name: str) -> Executor:
    """
    Load the executor that an installed package offers under a name.

    Raises:
        NotSupported: No installed package offers it.
    """
    if name == "inline":  # the default must not wait for a scan of all distributions
        return InlineExecutor()
    executor: Executor = load_entry_point("clewline.executors", name)()
    return executor
