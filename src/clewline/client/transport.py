"""What both clients tell httpx, and what they make of its answers."""

from __future__ import annotations

import ssl
from pathlib import Path

from clewline.client.failures import Lost, Reply
from clewline.entry_points import install_command
from clewline.errors import NotSupported, UsageError

try:
    import httpx
except ImportError as error:
    raise NotSupported("The client needs httpx.", install_command("client")) from error

_NOT_SENT = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout)


def context_of(url: str, verify: bool, ca_file: str | Path | None) -> ssl.SSLContext | bool:
    """
    Say whom to trust.

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


def reply_of(response: httpx.Response) -> Reply:
    """Give an answer as it came."""
    return Reply(response.status_code, response.content, response.headers.get("retry-after", ""))


def lost_by(error: httpx.RequestError) -> Lost:
    """Say why no answer came."""
    reason = str(error) or type(error).__name__
    timed_out = isinstance(error, httpx.TimeoutException)
    return Lost(reason, sent=not isinstance(error, _NOT_SENT), timed_out=timed_out)
