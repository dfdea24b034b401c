"""A file fetched whole or not at all, its bytes counted and digested as they come."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import msgspec

from clewline.errors import NotSupported
from clewline.formatting import format_size
from clewline.hub.web import (
    WIRE_ERRORS,
    DownloadLimits,
    HubFault,
    HubRefused,
    HubResponse,
    open_url,
)
from clewline.store.disk import disk_errors

_PIECE = 1 << 18


class Fetched(msgspec.Struct, frozen=True, kw_only=True):
    """A file that is there in full."""

    sha256: str
    size_bytes: int
    commit: str | None  # of the hub's repository


class TooSlow(HubFault):
    """A body that comes too slowly to wait for; trying at once again would not help."""


class _BrokenOff(Exception):
    """The body ended before its length, or the connection did."""


def fetch(
    url: str,
    path: Path | None,
    bounds: DownloadLimits,
    *,
    token: str | None = None,
    judge: Callable[[Any], None] = lambda headers: None,
) -> Fetched:
    """
    Fetch a file; one that breaks off is begun again, from its first byte.

    Args:
        url: Where it is.
        path: Where it goes; None: nowhere, only its digest is wanted. Nothing is left there
            when it cannot be fetched.
        bounds: Of its size and of our patience.
        token: For the host of `url` alone.
        judge: Told the headers of the first answer, before a byte of the body is read.

    Raises:
        HubFault: It broke off as often as we try, or was too slow.
        HubRefused: The server answered with an error.
        NotSupported: It is larger than the bound.
    """
    for left in reversed(range(bounds.attempts)):
        try:
            with open_url(url, bounds, token=token, judge=judge) as answer:
                return _kept(answer, path, bounds)
        except (_BrokenOff, HubFault, HubRefused) as error:
            passing = not isinstance(error, HubRefused | TooSlow) or (
                isinstance(error, HubRefused) and error.status >= 500
            )
            if not left or not passing:
                raise _told(url, error, bounds) from error
    raise AssertionError("a last attempt returns or raises")


def _told(url: str, error: Exception, bounds: DownloadLimits) -> Exception:
    if isinstance(error, _BrokenOff):
        return HubFault(
            f"{url} broke off {bounds.attempts} times, at last {error}; nothing of it was kept.",
            "Try again; or bring the file on a disk: clewline models import FILE.",
        )
    return error


def declared_size(headers: Any) -> int | None:
    """Give the size that a server states for a file, the hub's own word first."""
    for name in ("X-Linked-Size", "Content-Length"):
        found = headers.get(name, "")
        if found.isascii() and found.isdigit():
            return int(found)
    return None


def require_size(count: int | None, url: str, bounds: DownloadLimits) -> None:
    """
    Refuse a file that is larger than the bound.

    Raises:
        NotSupported: It is.
    """
    if count is not None and count > bounds.size_bytes:
        raise NotSupported(
            f"{url} is larger than {format_size(bounds.size_bytes)}: {format_size(count)}.",
            "Raise the bound if that is right: clewline models import … --max-size 2GiB.",
        )


def _kept(answer: HubResponse, path: Path | None, bounds: DownloadLimits) -> Fetched:
    require_size(_length(answer), answer.url, bounds)
    commit = answer.first.get("X-Repo-Commit")
    if path is None:
        return _read(answer, None, bounds, commit)
    with disk_errors(path):
        try:
            with path.open("wb") as out:
                return _read(answer, out, bounds, commit)
        except BaseException:
            path.unlink(missing_ok=True)
            raise


def _length(answer: HubResponse) -> int | None:
    text = answer.headers.get("Content-Length", "")
    return int(text) if text.isascii() and text.isdigit() else None


def _read(
    answer: HubResponse, out: BinaryIO | None, bounds: DownloadLimits, commit: str | None
) -> Fetched:
    hasher, count, begun = hashlib.sha256(), 0, time.monotonic()
    while piece := _piece(answer):
        hasher.update(piece)
        count += len(piece)
        require_size(count, answer.url, bounds)
        _require_pace(answer.url, count, time.monotonic() - begun, bounds)
        if out is not None:
            out.write(piece)
    expected = _length(answer)
    if expected is not None and count != expected:
        raise _BrokenOff(f"after {count} of {expected} bytes")
    return Fetched(sha256=hasher.hexdigest(), size_bytes=count, commit=commit)


def _piece(answer: HubResponse) -> bytes:
    try:
        data: bytes = answer.response.read1(_PIECE)
    except WIRE_ERRORS as error:
        raise _BrokenOff(f"({error or type(error).__name__})") from error
    return data


def _require_pace(url: str, count: int, seconds: float, bounds: DownloadLimits) -> None:
    if seconds > bounds.grace_s and count < seconds * bounds.slowest:
        raise TooSlow(
            f"{url} gave {format_size(count)} in {seconds:.0f} s and is given up.",
            "Try again later; or bring the file on a disk: clewline models import FILE.",
        )
