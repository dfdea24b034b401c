"""Runs every step at its call, in the thread of the pipeline."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

T = TypeVar("T")


class InlineExecutor:
    """One step after the other, in this process and thread."""

    name = "inline"

    def submit(self, work: Callable[[], T]) -> Future[T]:
        """Do the work now; the future that comes back is done."""
        future: Future[T] = Future()
        try:
            future.set_result(work())
        except BaseException as error:
            future.set_exception(error)
        return future

    def close(self) -> None:
        """Nothing is ever left over."""
