"""Asking other servers: HTTPS alone, bounded redirects, a token for its own host alone."""

from __future__ import annotations

import http.client
import ssl
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urljoin

import msgspec

from clewline.errors import CheckFailed, Fault, InvalidInput
from clewline.hub import address

MOST_REDIRECTS = 5
REDIRECTS = (301, 302, 303, 307, 308)
WIRE_ERRORS = (OSError, http.client.HTTPException)
"""What a connection that fails or answers no HTTP raises, `urllib.error.URLError` among them."""


class DownloadLimits(msgspec.Struct, frozen=True, kw_only=True):
    """How much and how long a server is listened to."""

    size_bytes: int = 1 << 30
    silence_s: float = 30.0  # without a byte
    grace_s: float = 30.0  # before a slow body is given up
    slowest: float = 16384.0  # bytes a second, on the whole, after that
    attempts: int = 3


class HubFault(Fault):
    """A server could not be reached, or broke off."""

    code = "hub_unreachable"


class HubRefused(CheckFailed):
    """A server answered with an error."""

    code = "hub_refused"

    def __init__(self, message: str, fix: str, status: int, headers: Any) -> None:
        super().__init__(message, fix)
        self.status, self.headers = status, headers


class HubResponse:
    """An answer whose body is still to be read."""

    def __init__(self, response: Any, url: str, first: Any) -> None:
        self.response, self.url = response, url
        self.headers = response.headers
        self.first = first  # headers of the first server asked, before any redirect


@contextmanager
def open_url(
    url: str,
    bounds: DownloadLimits,
    *,
    method: str = "GET",
    token: str | None = None,
    follow: bool = True,
    judge: Callable[[Any], None] = lambda headers: None,
) -> Iterator[HubResponse]:
    """
    Ask a server, and follow where it sends us.

    Args:
        url: What is asked for.
        bounds: How long a silence may be.
        method: GET or HEAD.
        token: Shown to the host of `url` alone, never to one that it redirects to.
        follow: Whether to follow redirects; otherwise the first answer is given.
        judge: Told the headers of the first answer, before anything else is asked or read.

    Raises:
        HubFault: It cannot be reached, or speaks no HTTP.
        HubRefused: It answers with an error's status.
        InvalidInput: It redirects to plain HTTP, or in circles.
    """
    response, at, first = None, url, None
    try:
        for _ in range(MOST_REDIRECTS + 1):
            response = _one(at, bounds, method, token if _same_host(at, url) else None)
            if first is None:
                first = response.headers
                judge(first)
            if response.status not in REDIRECTS or not follow:
                break
            at = _next(at, response)
            response.close()
        else:
            raise InvalidInput(
                f"{url} redirects more than {MOST_REDIRECTS} times, at last to {at}.",
                "Write the address that it leads to in the end.",
            )
        _require_good(response, at)
        yield HubResponse(response, at, first)
    finally:
        if response is not None:
            response.close()


def _same_host(one: str, other: str) -> bool:
    return address.url_origin(one) == address.url_origin(other)


class _Unfollowed(urllib.request.HTTPRedirectHandler):
    """Leaves redirects to us, who judge them."""

    def redirect_request(self, *_: Any, **__: Any) -> None:
        return None


def _one(url: str, bounds: DownloadLimits, method: str, token: str | None) -> Any:
    """Ask once; an error's status is an answer too."""
    headers = {"User-Agent": "clewline", "Accept-Encoding": "identity"}
    if token:
        headers["Authorization"] = f"Bearer {token}"
    request = urllib.request.Request(url, method=method, headers=headers)
    opener = urllib.request.build_opener(_Unfollowed)
    try:
        return opener.open(request, timeout=bounds.silence_s)
    except urllib.error.HTTPError as error:
        return error
    except WIRE_ERRORS as error:
        raise unreachable(url, error) from error


def unreachable(url: str, error: BaseException) -> HubFault:
    """Say why a server could not be reached, and the way without it."""
    reason = getattr(error, "reason", error)
    certificate = isinstance(reason, ssl.SSLCertVerificationError)
    fix = (
        "Its certificate is not one that this machine trusts (SSL_CERT_FILE names others)."
        if certificate
        else "Look after the network (HTTPS_PROXY is honoured). Without one, bring the file on a "
        "disk: `clewline models import FILE --digest sha256:… --name NAME` satisfies `from:` too."
    )
    return HubFault(f"{url} cannot be fetched: {reason or type(error).__name__}.", fix)


def _next(url: str, response: Any) -> str:
    location = response.headers.get("Location")
    if not location:
        raise InvalidInput(f"{url} redirects ({response.status}) to nowhere.", "Check the address.")
    found = str(urljoin(url, location))
    downwards = url.startswith("https:") and not found.startswith("https:")
    try:
        address.require_safe(found)
    except InvalidInput as error:
        raise InvalidInput(f"{url} redirects to {found!r}: {error.message}", error.fix) from error
    if downwards:
        raise InvalidInput(
            f"{url} redirects to {found}, which is plain HTTP.",
            "Write an address that stays HTTPS.",
        )
    return found


def _require_good(response: Any, url: str) -> None:
    status = int(response.status)
    if status >= 400:
        raise HubRefused(
            f"{url} answered {status} {response.reason or ''}".rstrip() + ".",
            "Check the address."
            if status < 500
            else "The server has a fault of its own; try again later.",
            status,
            response.headers,
        )
