"""What the catalog keeps of an exception: type, message, and the frames of the project's code."""

from __future__ import annotations

import linecache
import traceback
from pathlib import Path
from typing import Any

from clewline.errors import ClewlineError
from clewline.flow.code.origin import is_in_project


def describe(error: BaseException, root: Path) -> dict[str, Any]:
    """
    Return an exception as the catalog keeps it.

    Returns:
        `type`, `message`, `frames` (file below `root`, line, function, text; of the
        project's code only, outermost first), `causes` (the same for each cause) and
        the full `traceback` as a string.
    """
    causes: list[BaseException] = []
    seen = {id(error)}
    # The message of our own errors includes the cause.
    current: BaseException | None = None if isinstance(error, ClewlineError) else error
    while current is not None:
        context = None if current.__suppress_context__ else current.__context__
        current = context if current.__cause__ is None else current.__cause__
        if current is None or id(current) in seen:
            break
        seen.add(id(current))
        causes.append(current)
    return {
        **_describe_one(error, root),
        "causes": [_describe_one(cause, root) for cause in causes],
        "traceback": _printable("".join(traceback.format_exception(error))),
    }


def render(error: dict[str, Any]) -> str:
    """Return a described exception as lines of text: its message, then the project's frames."""
    lines = [_headline(error)]
    lines += [f"  because of {_headline(cause)}" for cause in error.get("causes", [])]
    # The error's own frames, or else those of the first cause that touches the project.
    chain = (each["frames"] for each in (error, *error.get("causes", [])))
    for frame in next(filter(None, chain), []):
        lines.append(f"  {frame['file']}:{frame['line']} in {frame['function']}")
        if frame["text"]:
            lines.append(f"      {frame['text']}")
    return "\n".join(lines)


def _headline(error: dict[str, Any]) -> str:
    return f"{error['type']}: {error['message']}" if error["message"] else str(error["type"])


def _describe_one(error: BaseException, root: Path) -> dict[str, Any]:
    frames = []
    for frame, line in traceback.walk_tb(error.__traceback__):
        code = frame.f_code
        text = linecache.getline(code.co_filename, line, frame.f_globals)
        frames.append((code.co_filename, line, code.co_qualname, text))
    if isinstance(error, SyntaxError) and error.filename:  # it has no frame of its own
        frames.append((error.filename, error.lineno or 1, "<module>", error.text or ""))
    try:
        message = _printable(str(error))
    except Exception as other:  # a foreign class may raise anything in __str__
        message = f"<str() of the exception raised {type(other).__qualname__}>"
    return {
        "type": type(error).__qualname__,
        "message": message,
        "frames": [
            {
                "file": _printable(str(Path(file).relative_to(root))),
                "line": line,
                "function": function,
                "text": text.strip(),
            }
            for file, line, function, text in frames
            if is_in_project(Path(file), root)
        ],
    }


def _printable(text: str) -> str:
    """Return text without lone surrogates, which file names may contain and UTF-8 may not."""
    return text.encode("utf-8", "backslashreplace").decode()
