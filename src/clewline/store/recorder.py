"""Recording without waiting: a thread that writes records in groups, behind their blobs."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence

from clewline.errors import UsageError
from clewline.store.records import Record

_OF_THE_RECORDS = (UsageError, TypeError, ValueError)
"""Errors of the records themselves: writing them again would fail again."""

_LINGER_S = 0.01
"""How long a group waits for more records: a commit costs more than many records do."""


class Recorder:
    """
    Takes records at once and makes them durable soon, in the order of `add`.

    A record is written only after every blob that was put before it was added, and together
    with the other records of the same `add`. May be used from any thread. `drain`, or the end
    of the `with`, raises what went wrong.

    In a child that was forked meanwhile nothing waits to be written, and `add` raises
    RuntimeError.
    """

    def __init__(self, write: Callable[[Sequence[Record]], None]) -> None:
        """Start the thread; `write` makes blobs and then these records durable."""
        self._write = write
        self._condition = threading.Condition()
        self._waiting: list[tuple[Record, ...]] = []
        self._is_writing = False
        self._hurry = 0
        self._closed = False
        self._pid = os.getpid()
        self._refused: BaseException | None = None  # its records were dropped
        self._stopped: BaseException | None = None  # its records still wait
        self._thread = threading.Thread(target=self._work, name="clewline-recorder", daemon=True)
        self._thread.start()

    @property
    def error(self) -> BaseException | None:
        """The error that `drain` would raise now."""
        return self._refused or self._stopped

    def add(self, *records: Record) -> None:
        """
        Add records, which are written together; returns at once.

        Raises:
            RuntimeError: The recorder is closed, or belongs to the process that forked this one.
        """
        if self._is_forked():
            raise RuntimeError("the recorder belongs to the process that forked this one")
        with self._condition:
            if self._closed:
                raise RuntimeError("the recorder is closed")
            self._waiting.append(records)
            self._condition.notify_all()

    def drain(self) -> None:
        """
        Wait until everything added so far is durable.

        Raises:
            UsageError: The catalog refused records since the last `drain`; they are dropped
                with the other records of the same `add`, all others are written.
            TypeError, ValueError: The same, for a mistake of the caller's.
            Fault: The store cannot be written. Nothing is dropped; the next `drain` tries again.
        """
        if threading.current_thread() is self._thread or self._is_forked():
            return
        with self._condition:
            self._stopped = None
            self._hurry += 1
            self._condition.notify_all()
            self._condition.wait_for(
                lambda: self._stopped or not (self._is_writing or self._waiting)
            )
            self._hurry -= 1
            error, self._refused = self.error, None
        if error is not None:
            raise error

    def close(self) -> None:
        """Drain, and end the thread; raises what `drain` raises."""
        if self._is_forked():
            return  # the thread is the parent's, and so is what waits
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

    def _is_forked(self) -> bool:
        return self._pid != os.getpid()

    def _work(self) -> None:
        while (group := self._next_group()) is not None:
            error = self._attempt(group)
            if isinstance(error, _OF_THE_RECORDS):
                left = self._one_by_one(group)
            else:
                left = group if error else []
            with self._condition:
                self._is_writing = False
                self._waiting[:0] = left
                if left:
                    self._stopped = self._stopped or error
                self._condition.notify_all()

    def _next_group(self) -> list[tuple[Record, ...]] | None:
        with self._condition:
            self._condition.wait_for(lambda: self._closed or (self._waiting and not self._stopped))
            self._condition.wait_for(lambda: self._closed or self._hurry, timeout=_LINGER_S)
            if self._closed:
                return None
            group, self._waiting = self._waiting, []
            self._is_writing = True
            return group

    def _one_by_one(self, group: list[tuple[Record, ...]]) -> list[tuple[Record, ...]]:
        """Write each `add` by itself, so that one that is refused does not take others along."""
        for position, records in enumerate(group):
            error = self._attempt([records])
            if isinstance(error, _OF_THE_RECORDS):
                self._refused = self._refused or error
            elif error is not None:
                self._stopped = error
                return group[position:]
        return []

    def _attempt(self, group: Sequence[tuple[Record, ...]]) -> BaseException | None:
        try:
            self._write([record for records in group for record in records])
        except BaseException as error:  # carried to the thread that drains
            return error
        return None
