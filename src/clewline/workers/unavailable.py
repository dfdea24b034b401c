"""Answers for callers of a port on which no worker can start, so that nobody waits for one."""

from __future__ import annotations

import socket
from contextlib import suppress

from clewline.errors import ClewlineError
from clewline.protocols.http.error_responses import error_response

LINGER_S = 2.0
"""How long a caller may take to read the answer, until the connection is dropped."""
CALLERS = 512
"""Maximum callers who are answered at the same time."""


class UnavailablePort:
    """
    Accepts callers, and tells each of them the same reason, whatever they ask.

    Args:
        listening: The socket, which workers use as well.
        answers: Whether callers can read an answer; with TLS the connection is only closed.
    """

    def __init__(self, listening: socket.socket, *, answers: bool) -> None:
        self._listening = listening
        self._answers = answers
        self._callers: dict[socket.socket, float] = {}  # until when they may read

    def answer(self, reason: ClewlineError | None, now: float) -> None:
        """Accept and answer everybody who waits, if there is a reason; drop who has read it."""
        for caller, until in list(self._callers.items()):
            if now > until or _has_left(caller):
                del self._callers[caller]
                caller.close()
        if reason is None:
            return
        self._listening.setblocking(False)
        with suppress(OSError):  # nobody waits any more, or there is no descriptor left
            while len(self._callers) < CALLERS:
                caller, _ = self._listening.accept()
                self._callers[caller] = now + LINGER_S
                caller.setblocking(False)
                with suppress(OSError):  # the caller has gone
                    if self._answers:
                        caller.send(_http_answer(reason))
                    caller.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        """Drop all callers."""
        for caller in self._callers:
            caller.close()


def _has_left(caller: socket.socket) -> bool:
    """Read and drop what a caller sends: closing with unread data would lose the answer."""
    try:
        return not caller.recv(1 << 20)
    except BlockingIOError:
        return False
    except OSError:
        return True


def _http_answer(reason: ClewlineError) -> bytes:
    response = error_response(reason)
    return (
        b"HTTP/1.1 %d Unavailable\r\ncontent-type: %b\r\ncontent-length: %d\r\n"
        b"retry-after: 1\r\nconnection: close\r\n\r\n%b"
        % (response.status, response.content_type, len(response.body), response.body)
    )
