"""
Which requests a server answers: by the host that they ask for, and the site that they come from.

A browser sends what any web page tells it to send, to loopback too: a plain form needs no
permission of ours. A page can also have its own name resolve to the address of this server (DNS
rebinding), and then read the answers. So a request must ask for a name of this server, and a
browser must send it for a page of this server. Other clients send neither `Origin` nor
`Sec-Fetch-Site`.

Source:
    RFC 9110 (7.4, 15.5.20), RFC 6454 (7), W3C Fetch Metadata Request Headers.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase

from clewline.errors import CrossSite, Misdirected
from clewline.signature.field_rules import printable_text

KNOWN_HOSTS = 256
KNOWN_HOST_BYTES = 256
"""How many values of Host are remembered as allowed, and of what length at most."""
FROM_OUR_PAGES = frozenset({b"same-origin", b"none"})
"""Values of Sec-Fetch-Site: from a page of this server, or typed into the address bar."""
SETTING = "allowed_hosts under [server] in clewline.toml"


class HostCheck:
    """
    Checks what a request says of its host and of its origin.

    Args:
        allowed_hosts: Names beside `localhost` and addresses; `*` stands for any text.
        is_loopback: Whether the server is bound to loopback. Then the only addresses that it
            answers to are those of loopback; otherwise every address, because a proxy or a
            container may give it others than it knows, and rebinding needs a name.
    """

    def __init__(self, allowed_hosts: Iterable[str] = (), *, is_loopback: bool = True) -> None:
        self._patterns = tuple(name.lower() for name in allowed_hosts)
        self._is_loopback = is_loopback
        self.known: set[bytes | None] = {None}  # no browser leaves Host out, HTTP/1.0 may

    def check(self, headers: Mapping[bytes, bytes]) -> None:
        """
        Accept a request by its headers, whose names are in lower case.

        Raises:
            Misdirected: It asks for a host that is not this server.
            CrossSite: A browser sends it for a page of another site.
        """
        host = headers.get(b"host")
        if host not in self.known:
            self.check_host(host or b"")
        if b"origin" in headers or b"sec-fetch-site" in headers:
            self._check_site(host, headers.get(b"origin"), headers.get(b"sec-fetch-site"))

    def check_host(self, host: bytes) -> None:
        """Accept the value of Host, with or without a port; raise `Misdirected` as `check`."""
        name = _host_name(host)
        is_listed = any(fnmatchcase(name, pattern) for pattern in self._patterns)
        if not (is_listed or name == "localhost" or self._is_own_address(name)):
            raise Misdirected(
                f"This server does not answer to the host {printable_text(name)!r}.",
                f"Ask it by its address or localhost, or add the name to {SETTING}.",
            )
        if len(self.known) < KNOWN_HOSTS and len(host) <= KNOWN_HOST_BYTES:
            self.known.add(host)

    def _check_site(self, host: bytes | None, origin: bytes | None, site: bytes | None) -> None:
        if origin is not None:
            authority = origin.partition(b"://")[2]
            if _host_name(authority) in self._patterns:  # by its full name, not by a `*`
                return
            ours = host is not None and authority.lower() == host.lower()
            if not ours:
                raise _cross_site(f"from {printable_text(origin.decode('latin-1'))}")
        if site is not None and site.lower() not in FROM_OUR_PAGES:
            raise _cross_site(f"({printable_text(site.decode('latin-1'))})")

    def _is_own_address(self, name: str) -> bool:
        try:
            address = ipaddress.ip_address(name)
        except ValueError:
            return False
        mapped = getattr(address, "ipv4_mapped", None) or address
        return not self._is_loopback or mapped.is_loopback


def _host_name(authority: bytes) -> str:
    """
    Return the name in `name:port`, in lower case; of an IPv6 address without its brackets.

    >>> _host_name(b"LOCALHOST.:8470"), _host_name(b"[::1]:8470")
    ('localhost', '::1')
    """
    text = authority.decode("latin-1").lower()
    if text.startswith("["):
        return text[1:].partition("]")[0]
    return text.partition(":")[0].removesuffix(".")


def _cross_site(whence: str) -> CrossSite:
    return CrossSite(
        f"A browser sent this for a page of another site {whence}.",
        f"Send it from a program or from the server's own pages, or add the site to {SETTING}.",
    )
