"""From a server's answer to the error that it means: the same classes that the server raises."""

from __future__ import annotations

from typing import Any

import msgspec

from clewline import errors
from clewline.errors import (
    ClewlineError,
    DeadlineExceeded,
    Fault,
    FieldProblem,
    InvalidInput,
    ModelFailed,
    Overloaded,
    UsageError,
)


class Unreachable(Fault):
    """No answer came: the connection could not be made, or broke."""

    code = "unreachable"


class Reply(msgspec.Struct, frozen=True):
    """An answer as it came."""

    status: int
    body: bytes
    retry_after: str = ""


class Lost(msgspec.Struct, frozen=True):
    """No answer came."""

    reason: str
    sent: bool  # whether the server may have got the request
    timed_out: bool = False

    def error(self, url: str) -> ClewlineError:
        """Say it as an error."""
        if self.timed_out and self.sent:
            return DeadlineExceeded(
                f"{url} did not answer in time ({self.reason}).",
                "Ask again, with a longer timeout_s.",
            )
        return Unreachable(
            f"{url} gave no answer: {self.reason}.",
            "See that the server runs and the URL is right.",
        )


def error_of(reply: Reply) -> ClewlineError:
    """Make the error of an answer, whichever protocol gave it its shape."""
    said = _said(reply.body)
    code, message = str(said.get("code", "")), str(said.get("message", ""))
    if not message:
        shown = reply.body[:200].decode("utf-8", "replace")
        message = f"The server answered {reply.status}: {shown}"
    kind = _classes().get(code)
    if kind is None:
        kind = UsageError if reply.status < 500 else Fault
    if issubclass(kind, InvalidInput):
        return kind(message, None, _problems(said.get("fields")))
    if issubclass(kind, ModelFailed):
        return kind(message, None, _texts(said.get("ids")))
    if issubclass(kind, Overloaded):
        return kind(message, None, wait_of(reply) or 1.0)
    return kind(message)


def wait_of(reply: Reply) -> float | None:
    """Read how many seconds an answer asks to wait; None when it does not say so."""
    text = reply.retry_after.strip()
    return float(text) if text.isascii() and text.isdigit() and len(text) < 9 else None


def _classes() -> dict[str, type[ClewlineError]]:
    """Find the class of each code."""
    found: dict[str, type[ClewlineError]] = {}
    level: list[type[ClewlineError]] = [ClewlineError]
    while level:
        for kind in level:
            if kind.__module__ == errors.__name__:
                found[kind.code] = kind
        level = [child for kind in level for child in kind.__subclasses__()]
    return found


def _said(body: bytes) -> dict[str, Any]:
    """Find what an error says: under `error`, or beside its message, as other protocols have it."""
    try:
        outer = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return {}
    if not isinstance(outer, dict):
        return {}
    inner = outer.get("error")
    if isinstance(inner, dict):
        return inner
    return outer | {"message": inner} if isinstance(inner, str) else {}


def _problems(said: Any) -> tuple[FieldProblem, ...]:
    try:
        return msgspec.convert(said or (), tuple[FieldProblem, ...])
    except msgspec.ValidationError:
        return ()  # a server of another version says them otherwise; the message has the first


def _texts(said: Any) -> tuple[str, ...]:
    return tuple(map(str, said)) if isinstance(said, list) else ()
