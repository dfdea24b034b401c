"""
Fetch files over HTTPS, with limits on redirects, size, silence and speed.

A token goes only to the host that it is for. A file arrives as a whole or not at all; its bytes
are counted and digested as they come.
"""

from __future__ import annotations

import hashlib
import http.client
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple
from urllib.parse import urljoin

import msgspec

from clewline.errors import CheckFailed, Fault, InvalidInput, NotSupported
from clewline.formatting import format_size
from clewline.hub.address import require_safe, url_origin
from clewline.store.disk import disk_errors

MOST_REDIRECTS = 5
REDIRECTS = (301, 302, 303, 307, 308)
CONNECTION_ERRORS = (OSError, http.client.HTTPException)
"""What a connection raises that fails or does not answer in HTTP, such as `URLError`."""

_PIECE_BYTES = 1 << 18


class DownloadLimits(msgspec.Struct, frozen=True, kw_only=True):
    """How large a file may be, and how slow a server."""

    size_bytes: int = 1 << 30
    silence_s: float = 30.0  # longest time without a byte
    grace_s: float = 30.0  # time before the rate counts
    bytes_per_s: float = 16384.0  # smallest average rate
    attempts: int = 3


class HubFault(Fault):
    """A server cannot be reached, or broke off."""

    code = "hub_unreachable"


class HubRefused(CheckFailed):
    """A server answered with an error."""

    code = "hub_refused"

    def __init__(self, message: str, fix: str, status: int, headers: Any) -> None:
        super().__init__(message, fix)
        self.status, self.headers = status, headers


class TooSlow(HubFault):
    """The body comes too slowly to wait for; a second attempt would not help."""


class _ConnectionLost(Exception):
    """The body ended before its length, or the connection did."""


class HubResponse(NamedTuple):
    """A response, its body still unread."""

    response: Any
    url: str
    first_headers: Any  # of the first server, before any redirect


class DownloadedFile(msgspec.Struct, frozen=True, kw_only=True):
    """A file that arrived as a whole."""

    sha256: str
    size_bytes: int
    commit: str | None  # of the hub's repository


@contextmanager
def open_url(
    url: str,
    limits: DownloadLimits,
    *,
    method: str = "GET",
    token: str | None = None,
    follow: bool = True,
    check_headers: Callable[[Any], None] = lambda headers: None,
) -> Iterator[HubResponse]:
    """
    Request a URL, and follow its redirects.

    Args:
        url: The address.
        limits: How long a silence may be.
        method: GET or HEAD.
        token: Sent only to the host of `url`, never to one that it redirects to.
        follow: Whether to follow redirects, rather than return the first response.
        check_headers: Gets the headers of the first response, before anything else is
            requested or read.

    Raises:
        HubFault: The server cannot be reached, or does not answer in HTTP.
        HubRefused: The server answers with an error's status.
        InvalidInput: It redirects to plain HTTP, or in circles.
    """
    response, at, first_headers = None, url, None
    try:
        for _ in range(MOST_REDIRECTS + 1):
            own = url_origin(at) == url_origin(url)
            response = _request(at, limits, method, token if own else None)
            if first_headers is None:
                first_headers = response.headers
                check_headers(first_headers)
            if response.status not in REDIRECTS or not follow:
                break
            location = response.headers.get("Location")
            if not location:
                raise InvalidInput(
                    f"{at} redirects ({response.status}) without an address.", "Check the address."
                )
            target = urljoin(at, location)
            try:
                require_safe(target)
            except InvalidInput as error:
                message = f"{at} redirects to {target!r}: {error.message}"
                raise InvalidInput(message, error.fix) from error
            if at.startswith("https:") and not target.startswith("https:"):
                raise InvalidInput(
                    f"{at} redirects to {target}, which is plain HTTP.",
                    "Write an address that stays HTTPS.",
                )
            at = target
            response.close()
        else:
            raise InvalidInput(
                f"{url} redirects more than {MOST_REDIRECTS} times, the last time to {at}.",
                "Write the address that it finally leads to.",
            )
        if response.status >= 400:
            status = f"{response.status} {response.reason or ''}".rstrip()
            fix = "Check the address."
            if response.status >= 500:
                fix = "The server has a fault of its own; try again later."
            raise HubRefused(
                f"{at} answered {status}.", fix, int(response.status), response.headers
            )
        yield HubResponse(response, at, first_headers)
    finally:
        if response is not None:
            response.close()


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """Leaves redirects to `open_url`, which checks them."""

    def redirect_request(self, *_: Any, **__: Any) -> None:
        return None


def _request(url: str, limits: DownloadLimits, method: str, token: str | None) -> Any:
    """Send one request; a response with an error's status is returned too."""
    headers = {"User-Agent": "clewline", "Accept-Encoding": "identity"}
    if token:
        headers["Authorization"] = f"Bearer {token}"
    request = urllib.request.Request(url, method=method, headers=headers)
    try:
        opener = urllib.request.build_opener(_NoRedirects)
        return opener.open(request, timeout=limits.silence_s)
    except urllib.error.HTTPError as error:
        return error
    except CONNECTION_ERRORS as error:
        reason = getattr(error, "reason", error)
        fix = (
            "Check the network and HTTPS_PROXY. Without a network, copy the file here and run "
            "`clewline models import FILE --digest sha256:… --name NAME`: `from:` then finds it."
        )
        if isinstance(reason, ssl.SSLCertVerificationError):
            fix = "The certificate is not trusted here. Name its authority in SSL_CERT_FILE."
        raise HubFault(
            f"{url} cannot be fetched: {reason or type(error).__name__}.", fix
        ) from error


def download_file(
    url: str,
    path: Path | None,
    limits: DownloadLimits,
    *,
    token: str | None = None,
    check_headers: Callable[[Any], None] = lambda headers: None,
) -> DownloadedFile:
    """
    Fetch a file; if it breaks off, start again from its first byte.

    Args:
        url: The address.
        path: The file to write, in a temporary folder: if the download fails, a part of it may
            remain. None computes only the digest.
        limits: Of its size, and of the time to wait.
        token: For the host of `url` only.
        check_headers: Gets the headers of the first response, before a byte of the body is
            read.

    Raises:
        HubFault: Every attempt broke off, or it was too slow.
        HubRefused: The server answered with an error.
        NotSupported: The file is larger than the limit.
    """
    for left in reversed(range(limits.attempts)):
        try:
            with open_url(url, limits, token=token, check_headers=check_headers) as response:
                require_size(_content_length(response.response.headers), response.url, limits)
                if path is None:
                    return _read(response, None, limits)
                with disk_errors(path), path.open("wb") as out:
                    return _read(response, out, limits)
        except _ConnectionLost as error:
            if not left:
                raise HubFault(
                    f"{url} broke off {limits.attempts} times, the last time {error}; "
                    "nothing of it was kept.",
                    "Try again, or copy the file here: clewline models import FILE.",
                ) from error
        except TooSlow:
            raise
        except (HubFault, HubRefused) as error:
            if not left or (isinstance(error, HubRefused) and error.status < 500):
                raise
    raise AssertionError("the last attempt returns or raises")


def _read(response: HubResponse, out: BinaryIO | None, limits: DownloadLimits) -> DownloadedFile:
    hasher, count, start = hashlib.sha256(), 0, time.monotonic()
    while True:
        try:
            piece: bytes = response.response.read1(_PIECE_BYTES)
        except CONNECTION_ERRORS as error:
            raise _ConnectionLost(f"({error or type(error).__name__})") from error
        if not piece:
            break
        hasher.update(piece)
        count += len(piece)
        require_size(count, response.url, limits)
        took_s = time.monotonic() - start
        if took_s > limits.grace_s and count < took_s * limits.bytes_per_s:
            raise TooSlow(
                f"{response.url} sent {format_size(count)} in {took_s:.0f} s, which is too slow.",
                "Try again later, or copy the file here: clewline models import FILE.",
            )
        if out is not None:
            out.write(piece)
    expected = _content_length(response.response.headers)
    if expected is not None and count != expected:
        raise _ConnectionLost(f"after {count} of {expected} bytes")
    commit = response.first_headers.get("X-Repo-Commit")
    return DownloadedFile(sha256=hasher.hexdigest(), size_bytes=count, commit=commit)


def _content_length(headers: Any, name: str = "Content-Length") -> int | None:
    text = headers.get(name, "")
    return int(text) if text.isascii() and text.isdigit() else None


def declared_size(headers: Any) -> int | None:
    """Return the size in bytes that a server states for a file, preferably the hub itself."""
    linked = _content_length(headers, "X-Linked-Size")
    return _content_length(headers) if linked is None else linked


def require_size(size_bytes: int | None, url: str, limits: DownloadLimits) -> None:
    """
    Check that a file is not larger than the limit.

    Raises:
        NotSupported: It is larger.
    """
    if size_bytes is not None and size_bytes > limits.size_bytes:
        most, found = format_size(limits.size_bytes), format_size(size_bytes)
        raise NotSupported(
            f"{url} has {found}, more than the limit of {most}.",
            "If that is right, raise the limit: clewline models import … --max-size 2GiB.",
        )
