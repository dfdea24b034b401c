"""
Keeps what a step prints: stdout, stderr, logging and warnings, at Python's level.

The text is shown as ever, and appended to the step's own file as it comes, so
that the log of a step that was killed can be read up to its last line.
"""

from __future__ import annotations

import io
import logging
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, TextIO, cast

from clewline.flow.context import StepContext, current_step
from clewline.flow.step_log import StepJournal

_FORMAT = "%(levelname)s %(name)s: %(message)s"


@contextmanager
def capturing() -> Iterator[None]:
    """Send what is printed inside a step to its journal too, for the time of a run."""
    out, error = sys.stdout, sys.stderr
    tees = Tee(out), Tee(error)
    handler = _LogHandler(tees)
    root = logging.getLogger()
    level = root.level
    sys.stdout, sys.stderr = cast(TextIO, tees[0]), cast(TextIO, tees[1])
    root.addHandler(handler)
    if level == logging.WARNING and len(root.handlers) == 1:
        # Nobody configured logging: INFO goes to the step's log, WARNING is shown too.
        root.setLevel(logging.INFO)
    try:
        yield
    finally:
        root.removeHandler(handler)
        root.setLevel(level)
        _put_back(tees, out, error)


def _put_back(tees: tuple[Tee, Tee], out: TextIO, error: TextIO) -> None:
    """A step may have replaced the streams by its own; those stay."""
    if cast(object, sys.stdout) is tees[0]:
        sys.stdout = out
    if cast(object, sys.stderr) is tees[1]:
        sys.stderr = error


class Tee:
    """A text stream that also writes to the journal of the step that is going on."""

    def __init__(self, target: TextIO) -> None:
        self.target = target

    def write(self, text: str) -> int:
        """Show the text, and keep it."""
        journal = _journal(current_step())
        if journal is not None:
            journal.write(text)
        self.show(text)
        return len(text)

    def show(self, text: str) -> None:
        """Show the text for as long as somebody looks: a run into `head` goes on in silence."""
        try:
            self.target.write(text)
        except BrokenPipeError:
            self.target = _Nobody()

    def flush(self) -> None:
        """Pass on what was shown so far."""
        try:
            self.target.flush()
        except BrokenPipeError:
            self.target = _Nobody()

    def writelines(self, lines: Iterable[str]) -> None:
        """Write each."""
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.target, name)


class _Nobody(io.StringIO):
    def write(self, text: str) -> int:
        return len(text)


class _LogHandler(logging.Handler):
    def __init__(self, tees: tuple[Tee, Tee]) -> None:
        super().__init__()
        self._tees = tees
        self.setFormatter(logging.Formatter(_FORMAT))

    def emit(self, record: logging.LogRecord) -> None:
        """Keep the record, unless a handler of the user's prints it through our streams."""
        if self._is_printed():
            return
        text = self.format(record) + "\n"
        journal = _journal(current_step())
        if journal is not None:
            journal.write(text)
        if record.levelno >= logging.WARNING:
            self._tees[1].show(text)

    def _is_printed(self) -> bool:
        streams = [getattr(each, "stream", None) for each in logging.getLogger().handlers]
        return any(stream is tee for stream in streams for tee in self._tees)


def _journal(step: StepContext | None) -> StepJournal | None:
    return step.notes if step is not None and isinstance(step.notes, StepJournal) else None
