"""Recording without waiting: a thread that writes records in groups, behind their blobs."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

from fairlead.errors import UsageError
from fairlead.store.records import Record

_LINGER_S = 0.01
"""How long a group waits for more: one commit costs more than many records."""


class Recorder:
    """
    Takes records at once and makes them durable soon, in the order of `add`.

    A record is written only after every blob that was put before it was added.
    May be used from any thread. `drain` (or the end of the `with`) tells whether
    all went well; when the disk was full, what could not be written is kept, and
    `drain` tries again.
    """

    def __init__(self, write: Callable[[Sequence[Record]], None]) -> None:
        """Begin, with a function that makes blobs and then these records durable."""
        self._write = write
        self._condition = threading.Condition()
        self._waiting: list[Record] = []
        self._is_writing = False
        self._hurry = 0
        self._closed = False
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._work, name="fairlead-recorder", daemon=True)
        self._thread.start()

    @property
    def error(self) -> BaseException | None:
        """What stopped the writing, until `drain` has raised it."""
        return self._error

    def add(self, *records: Record) -> None:
        """Promise records; returns at once."""
        with self._condition:
            if self._closed:
                raise RuntimeError("the recorder is closed")
            self._waiting.extend(records)
            self._condition.notify_all()

    def drain(self) -> None:
        """
        Wait until everything added so far is durable.

        Raises:
            FairleadError: What stopped the writing. Records that the catalog
                refused are dropped; those that found no space are kept.
        """
        if threading.current_thread() is self._thread:
            return
        with self._condition:
            self._error = None
            self._hurry += 1
            self._condition.notify_all()
            self._condition.wait_for(lambda: self._error or not self._is_busy())
            self._hurry -= 1
            if self._error is not None:
                raise self._error

    def close(self) -> None:
        """Drain, and end the thread."""
        try:
            self.drain()
        finally:
            with self._condition:
                self._closed = True
                self._condition.notify_all()
            self._thread.join()

    def __enter__(self) -> Recorder:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _is_busy(self) -> bool:
        return self._is_writing or bool(self._waiting)

    def _work(self) -> None:
        while (group := self._next_group()) is not None:
            error = self._attempt(group)
            with self._condition:
                self._is_writing = False
                self._error = error
                if error is not None and not isinstance(error, UsageError):
                    self._waiting[:0] = group
                self._condition.notify_all()

    def _next_group(self) -> list[Record] | None:
        with self._condition:
            self._condition.wait_for(lambda: self._closed or (self._waiting and not self._error))
            self._condition.wait_for(lambda: self._closed or self._hurry, timeout=_LINGER_S)
            if self._closed:
                return None
            group, self._waiting = self._waiting, []
            self._is_writing = True
            return group

    def _attempt(self, group: Sequence[Record]) -> BaseException | None:
        try:
            self._write(group)
        except BaseException as error:  # carried to the thread that drains
            return error
        return None
