"""How commands print: data to stdout, messages to stderr, JSON on request."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import msgspec

from clewline.errors import ClewlineError, InvalidInput, UsageError
from clewline.formatting import format_size

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

T = TypeVar("T")

_PROBLEMS_SHOWN = 20


class Mode:
    """The global options; set once by `main`."""

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
    """Return a Rich console on stdout; plain and never folded when it is not a terminal."""
    from rich.console import Console

    class PipedConsole(Console):
        def on_broken_pipe(self) -> None:
            raise BrokenPipeError  # Rich would exit with status 1; `main` knows better

    if sys.stdout.isatty():
        return PipedConsole(highlight=False)
    return PipedConsole(highlight=False, width=200, soft_wrap=True)


def make_table(*columns: str) -> Table:
    """Return an empty table without lines, as every list of the command line is printed."""
    from rich.table import Table

    return Table(*columns, box=None, pad_edge=False, header_style="dim", padding=(0, 2, 0, 0))


def print_lines(lines: Iterable[str]) -> None:
    """Print lines on stdout as they are, without markup."""
    out = console()
    for line in lines:
        out.print(line, markup=False)


def print_message(text: str) -> None:
    """Print a line to stderr, for as long as somebody reads there."""
    try:
        sys.stderr.write(text + "\n")
        sys.stderr.flush()
    except BrokenPipeError:
        sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115


def print_error(error: ClewlineError) -> None:
    """Print an error: what happened, with the values, and what to do next."""
    fields = error.fields if isinstance(error, InvalidInput) else ()
    if Mode.json:
        body = {"code": error.code, "message": error.message, "fix": error.fix, "fields": fields}
        present = {name: value for name, value in body.items() if value}
        print_message(msgspec.json.encode({"error": present}).decode())
        return
    print_message(f"error: {error.message}")
    for problem in fields[:_PROBLEMS_SHOWN]:
        print_message(
            f"  row {problem.row}, {problem.field}: "
            f"{problem.value!r} where {problem.expected} was expected"
        )
    if error.fix:
        print_message(f"  {error.fix}")


def write_page(path: Path, page: str) -> None:
    """
    Write a page to a file, and say where.

    Raises:
        UsageError: The file cannot be written.
    """
    data = page.encode("utf-8")
    try:
        path.write_bytes(data)
    except OSError as error:
        reason = error.strerror or str(error)
        raise UsageError(f"{path} cannot be written: {reason}.", "Name another file.") from error
    print_message(f"The page is in {path} ({format_size(len(data))}); open it with a browser.")
