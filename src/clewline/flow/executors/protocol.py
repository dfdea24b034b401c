"""The contract of an executor: where steps run."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from typing import Protocol, TypeVar

from clewline.entry_points import load_entry_point

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


def executor_named(name: str) -> Executor:
    """
    Make the executor that an installed package offers under a name.

    Raises:
        NotSupported: No installed package offers it.
    """
    if name == "inline":  # the default must not wait for a scan of all distributions
        from clewline.flow.executors.inline import InlineExecutor

        return InlineExecutor()
    executor: Executor = load_entry_point("clewline.executors", name)()
    return executor
