"""How commands speak: data to stdout, messages to stderr, JSON when asked."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, TypeVar

import msgspec

from clewline.errors import ClewlineError, InvalidInput

if TYPE_CHECKING:
    from rich.console import Console

T = TypeVar("T")


class Mode:
    """What the global options say; set once by `main`."""

    json = False
    debug = False


def emit(data: T, render: Callable[[T], None]) -> None:
    """Print `data`: as JSON with --json, otherwise as `render` shows it."""
    if Mode.json:
        sys.stdout.write(msgspec.json.format(msgspec.json.encode(data), indent=2).decode() + "\n")
    else:
        render(data)
    sys.stdout.flush()


def console() -> Console:
    """A Rich console on stdout; plain, and never folded, when it is not a terminal."""
    from rich.console import Console

    class Piped(Console):
        def on_broken_pipe(self) -> None:
            raise BrokenPipeError  # Rich would exit with status 1; `main` knows better

    if sys.stdout.isatty():
        return Piped(highlight=False)
    return Piped(highlight=False, width=200, soft_wrap=True)


def print_lines(lines: Iterable[str]) -> None:
    """Print lines on stdout as they are, without markup."""
    out = console()
    for line in lines:
        out.print(line, markup=False)


def message(text: str) -> None:
    """Say something that is not the answer, on stderr, for as long as somebody listens there."""
    try:
        sys.stderr.write(text + "\n")
        sys.stderr.flush()
    except BrokenPipeError:
        sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115


def complain(error: ClewlineError) -> None:
    """Print an error: what happened, with the values, and what to do next."""
    if Mode.json:
        body: dict[str, object] = {"code": error.code, "message": error.message}
        if error.fix:
            body["fix"] = error.fix
        if isinstance(error, InvalidInput) and error.fields:
            body["fields"] = error.fields
        message(msgspec.json.encode({"error": body}).decode())
        return
    message(f"error: {error.message}")
    if isinstance(error, InvalidInput):
        for problem in error.fields[:20]:
            message(
                f"  row {problem.row}, {problem.field}: "
                f"{problem.value!r} where {problem.expected} was expected"
            )
    if error.fix:
        message(f"  {error.fix}")
