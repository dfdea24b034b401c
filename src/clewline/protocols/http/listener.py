"""Listening sockets: one for each worker, all on one port, and nobody else's beside them."""

from __future__ import annotations

import errno
import os
import socket
from contextlib import suppress
from pathlib import Path

from clewline.errors import Conflict

BACKLOG = 1024
_LISTENING = "0A"


def listen(host: str, port: int, count: int) -> list[socket.socket]:
    """
    Take an address once for each worker; the system spreads callers over the sockets.

    Args:
        host: An IP address.
        port: 0 lets the system choose.
        count: How many sockets.

    Raises:
        Conflict: Another server listens there, of whomever it is.
    """
    if port:
        _bound(host, port, shared=False).close()  # SO_REUSEPORT would not notice the other server
    taken: list[socket.socket] = []
    try:
        for _ in range(count):
            taken.append(_bound(host, port, shared=True))
            port = taken[0].getsockname()[1]
        for each in taken:
            each.listen(BACKLOG)
        if _foreign(port, taken):
            raise _taken(host, port, "another server started on it at the same time")
    except BaseException:
        for each in taken:
            each.close()
        raise
    return taken


def reserve(host: str, port: int) -> socket.socket:
    """
    Hold a port for sockets that others bind with SO_REUSEPORT; nobody is answered on this one.

    Raises:
        Conflict: Another server listens there.
    """
    if port:
        _bound(host, port, shared=False).close()
    return _bound(host, port, shared=True)


def _bound(host: str, port: int, *, shared: bool) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    bound = socket.socket(family, socket.SOCK_STREAM)
    # REUSEADDR lets a restarted server have its port back at once; it never lets
    # two listen on one port, as REUSEPORT does for processes of one user.
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if shared:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    try:
        bound.bind((host, port))
    except OSError as error:
        bound.close()
        if error.errno in (errno.EADDRINUSE, errno.EACCES):
            raise _taken(host, port, str(error.strerror)) from error
        raise
    bound.setblocking(False)
    return bound


def _taken(host: str, port: int, why: str) -> Conflict:
    return Conflict(
        f"Port {port} on {host} cannot be listened on: {why}.",
        "Stop the server that holds it, or choose another one with --port N.",
    )


def _foreign(port: int, ours: list[socket.socket]) -> bool:
    """Tell whether a socket that is not ours listens on the port."""
    own = {os.fstat(each.fileno()).st_ino for each in ours}
    addresses = {each.getsockname()[0] for each in ours}
    listening: set[int] = set()
    for table in (Path("/proc/net/tcp"), Path("/proc/net/tcp6")):
        with suppress(OSError):  # no such table on this system
            listening |= _inodes(table.read_text(), port, addresses)
    return bool(listening - own)


def _inodes(table: str, port: int, addresses: set[str]) -> set[int]:
    """Read who listens on a port of all addresses, or of one of these."""
    found = set()
    for line in table.splitlines()[1:]:
        words = line.split()
        address, _, hexadecimal = words[1].partition(":")
        if words[3] != _LISTENING or int(hexadecimal, 16) != port:
            continue
        if not int(address, 16) or _readable(address) in addresses:
            found.add(int(words[9]))
    return found


def _readable(address: str) -> str:
    """
    Give the text of an address as the kernel shows it: words in the machine's order.

    >>> _readable("0100007F")
    '127.0.0.1'
    """
    words = [bytes.fromhex(address[at : at + 8])[::-1] for at in range(0, len(address), 8)]
    family = socket.AF_INET6 if len(words) > 1 else socket.AF_INET
    return socket.inet_ntop(family, b"".join(words))
