"""What is kept of an exception: its type and words, and the frames of the user's own code."""

from __future__ import annotations

import linecache
import traceback
from pathlib import Path
from types import TracebackType
from typing import Any

from clewline.errors import ClewlineError
from clewline.flow.code.firstparty import FOREIGN_FOLDERS


def describe(error: BaseException, root: Path) -> dict[str, Any]:
    """
    An exception as the catalog keeps it.

    Returns:
        `type`, `message`, `frames` (file below `root`, line, function, text; the
        user's own only, outermost first), `causes` (the same of what it came
        from) and the full `traceback` as text.
    """
    found = _one(error, root)
    # An error of ours has its cause in its own words.
    is_ours = isinstance(error, ClewlineError)
    causes = [_one(cause, root) for cause in _causes(error) if not is_ours]
    full = "".join(traceback.format_exception(error))
    return {**found, "causes": causes, "traceback": _printable(full)}


def render(error: dict[str, Any]) -> str:
    """The exception as lines of text: its own words, then the user's frames."""
    lines = [_headline(error)]
    lines += [f"  because of {_headline(cause)}" for cause in error.get("causes", [])]
    for frame in _frames(error):
        lines.append(f"  {frame['file']}:{frame['line']} in {frame['function']}")
        if frame["text"]:
            lines.append(f"      {frame['text']}")
    return "\n".join(lines)


def _headline(error: dict[str, Any]) -> str:
    return f"{error['type']}: {error['message']}" if error["message"] else str(error["type"])


def _frames(error: dict[str, Any]) -> list[dict[str, Any]]:
    """The deepest story that touches the user's code: the first cause's, else the error's own."""
    told = [each for each in (error, *error.get("causes", [])) if each["frames"]]
    return list(told[0]["frames"]) if told else []


def _one(error: BaseException, root: Path) -> dict[str, Any]:
    kind = type(error)
    return {
        "type": kind.__qualname__,
        "message": _words(error),
        "frames": [*_own_frames(error.__traceback__, root), *_syntax_frame(error, root)],
    }


def _words(error: BaseException) -> str:
    try:
        return _printable(str(error))
    except Exception as other:  # what a foreign class does to tell itself may raise anything
        return f"<its message cannot be told: {type(other).__qualname__}>"


def _printable(text: str) -> str:
    """Text without lone surrogates, which names of files may hold and UTF-8 may not."""
    return text.encode("utf-8", "backslashreplace").decode()


def _own_frames(trace: TracebackType | None, root: Path) -> list[dict[str, Any]]:
    frames = []
    for frame, line in traceback.walk_tb(trace):
        file = Path(frame.f_code.co_filename)
        if _is_own(file, root):
            text = linecache.getline(str(file), line, frame.f_globals).strip()
            name = frame.f_code.co_qualname
            frames.append(_frame(file, root, line, name, text))
    return frames


def _syntax_frame(error: BaseException, root: Path) -> list[dict[str, Any]]:
    """A syntax error has no frame of its own; it names its place."""
    if not isinstance(error, SyntaxError) or not error.filename:
        return []
    file = Path(error.filename)
    if not _is_own(file, root):
        return []
    return [_frame(file, root, error.lineno or 1, "<module>", (error.text or "").strip())]


def _frame(file: Path, root: Path, line: int, function: str, text: str) -> dict[str, Any]:
    shown = str(file.relative_to(root))
    return {"file": _printable(shown), "line": line, "function": function, "text": text}


def _is_own(file: Path, root: Path) -> bool:
    return file.is_relative_to(root) and FOREIGN_FOLDERS.isdisjoint(file.relative_to(root).parts)


def _causes(error: BaseException) -> list[BaseException]:
    found: list[BaseException] = []
    seen = {id(error)}
    current: BaseException | None = error
    while current is not None:
        following = current.__cause__
        if following is None and not current.__suppress_context__:
            following = current.__context__
        if following is None or id(following) in seen:
            break
        seen.add(id(following))
        found.append(following)
        current = following
    return found
