"""
What came back from a server: its answer, or why there is none, and the error that each means.

An error of the server is raised here as the class that the server raised.
"""

from __future__ import annotations

import ssl
from functools import cache
from pathlib import Path
from typing import Any, Self

import httpx
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


class ApiResponse(msgspec.Struct, frozen=True):
    """An answer as it came."""

    status: int
    body: bytes
    retry_after: str = ""

    @classmethod
    def of(cls, response: httpx.Response) -> Self:
        """Take what is needed of an answer."""
        return cls(response.status_code, response.content, response.headers.get("retry-after", ""))

    def wait_s(self) -> float | None:
        """Return the seconds that the answer asks to wait; None if it does not ask."""
        text = self.retry_after.strip()
        return float(text) if text.isascii() and text.isdigit() and len(text) < 9 else None

    def error(self) -> ClewlineError:
        """Return the error that the answer means, whichever protocol gave it its shape."""
        content = _error_content(self.body)
        code, message = str(content.get("code", "")), str(content.get("message", ""))
        if not message:
            shown = self.body[:200].decode("utf-8", "replace")
            message = f"The server answered {self.status}: {shown}"
        kind = _error_classes().get(code) or (UsageError if self.status < 500 else Fault)
        if issubclass(kind, InvalidInput):
            try:
                fields = msgspec.convert(content.get("fields") or (), tuple[FieldProblem, ...])
            except msgspec.ValidationError:
                fields = ()  # a server of another version; the message names the first
            return kind(message, None, fields)
        if issubclass(kind, ModelFailed):
            ids = content.get("ids")
            return kind(message, None, tuple(map(str, ids)) if isinstance(ids, list) else ())
        if issubclass(kind, Overloaded):
            return kind(message, None, self.wait_s() or 1.0)
        return kind(message)


class ConnectionFailure(msgspec.Struct, frozen=True):
    """Why no answer came."""

    reason: str
    sent: bool  # whether the server may have got the request
    timed_out: bool = False

    @classmethod
    def of(cls, error: httpx.RequestError) -> Self:
        """Take what is needed of an error of httpx."""
        never_sent = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout)
        return cls(
            str(error) or type(error).__name__,
            sent=not isinstance(error, never_sent),
            timed_out=isinstance(error, httpx.TimeoutException),
        )

    def error(self, url: str) -> ClewlineError:
        """Return the error to raise."""
        if self.timed_out and self.sent:
            return DeadlineExceeded(
                f"{url} did not answer in time ({self.reason}).",
                "Ask again, with a longer timeout_s.",
            )
        return Unreachable(
            f"{url} gave no answer: {self.reason}.",
            "Check that the server runs and that the URL is right.",
        )


def trusted_authorities(
    url: str, verify: bool, ca_file: str | Path | None
) -> ssl.SSLContext | bool:
    """
    Return the certificate authorities to trust, as httpx takes them.

    Raises:
        UsageError: The file of authorities cannot be read.
    """
    if not url.startswith("https:"):
        return False  # saves reading the system's authorities
    if ca_file is None or not verify:
        return verify
    try:
        return ssl.create_default_context(cafile=str(ca_file))
    except (OSError, ssl.SSLError) as error:
        raise UsageError(
            f"The authorities in {ca_file} cannot be read: {error}.", "Give a file in PEM."
        ) from error


@cache
def _error_classes() -> dict[str, type[ClewlineError]]:
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type)]
    return {kind.code: kind for kind in kinds if issubclass(kind, ClewlineError)}


def _error_content(body: bytes) -> dict[str, Any]:
    """Find what an error says: under `error`, or beside its message in other protocols."""
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
