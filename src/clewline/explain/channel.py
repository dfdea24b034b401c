"""
How the processes of a server ask its explaining process.

    worker ── a request, with one end of a new socket pair ──►  one channel of the server
    worker ◄── the reply, over that pair ─────────────────────  explaining process

The process takes one request after another, so whatever waits stays in the kernel. If the
process dies, only the request that it worked on gets no reply; the next process takes the
others. A caller who leaves closes its end, and the request is passed over. The channel has no
name, so nobody but the processes of the server can use it.

Nothing heavy is imported here: the supervisor and the workers use it.
"""

from __future__ import annotations

import os
import select
import socket
from contextlib import suppress
from typing import Any, NamedTuple

import msgspec

from clewline import errors
from clewline.errors import ClewlineError, Fault

MESSAGE_BYTES = 64 << 10
REPLY_S = 10.0
"""How long a worker may take to read its reply."""


class ExplainRequest(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Which prediction to explain, and how."""

    prediction: str
    kind: str | None = None  # None: the endpoint's own, else the best for the model
    options: dict[str, Any] = {}
    fresh: bool = False  # whether to compute it though it is stored


class ExplainReply(msgspec.Struct, frozen=True, omit_defaults=True):
    """An explanation as JSON, or why there is none."""

    explanation: msgspec.Raw = msgspec.Raw()
    error: str = ""  # the class
    message: str = ""
    fix: str | None = None

    @classmethod
    def of_error(cls, error: ClewlineError) -> ExplainReply:
        """Return the reply that an error means: its class, or the nearest that all know."""
        name = next(each.__name__ for each in type(error).__mro__ if hasattr(errors, each.__name__))
        return cls(error=name, message=error.message, fix=error.fix)

    def result(self) -> bytes | ClewlineError:
        """Return the explanation as JSON, or the error."""
        if not self.error:
            return bytes(self.explanation)
        kind = getattr(errors, self.error, Fault)
        raised: ClewlineError = kind(self.message, self.fix)
        return raised


class TakenRequest(NamedTuple):
    """A request in the explaining process, and the socket of the one who asked."""

    request: ExplainRequest
    caller: socket.socket

    @property
    def is_abandoned(self) -> bool:
        """Whether the one who asked has left."""
        return has_hung_up(self.caller)

    def reply(self, reply: ExplainReply) -> None:
        """Reply, unless the one who asked has left; then the pair is closed."""
        with self.caller:
            self.caller.settimeout(REPLY_S)
            try:
                self.caller.sendall(msgspec.json.encode(reply))
            except (BrokenPipeError, ConnectionResetError, TimeoutError):
                return  # nobody waits for it any more


class ExplainChannel(NamedTuple):
    """The channel of one server: both ends, and a bell (eventfd) that needs no answer."""

    asking: socket.socket
    taking: socket.socket
    bell: int

    @classmethod
    def create(cls) -> ExplainChannel:
        """Create a channel on which nothing waits."""
        asking, taking = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        for end in (asking, taking):
            end.setblocking(False)
        return cls(asking, taking, os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC))

    def close(self) -> None:
        """Close both ends: whoever waits is told that there is no answer."""
        self.asking.close()
        self.taking.close()
        os.close(self.bell)


def ask(asking: socket.socket, request: ExplainRequest) -> socket.socket | None:
    """
    Send a request; returns the socket of its reply, or None if the channel is full.

    Raises:
        InvalidInput: The options are too large.
    """
    data = msgspec.json.encode(request)
    if len(data) > MESSAGE_BYTES:
        raise errors.InvalidInput(
            f"The request to explain has {len(data)} bytes; the limit is {MESSAGE_BYTES}.",
            "Send fewer options.",
        )
    ours, theirs = socket.socketpair()
    with theirs:
        try:
            socket.send_fds(asking, [data], [theirs.fileno()])
        except OSError:  # no room in the channel, or too many descriptors wait in it
            ours.close()
            return None
    ours.setblocking(False)
    return ours


def ring(bell: int) -> None:
    """Have the explaining process look at the log; it is started if there is none."""
    with suppress(BlockingIOError):  # it was rung 2⁶⁴ times and nobody has heard it
        os.eventfd_write(bell, 1)


def take(taking: socket.socket, bell: int, timeout_s: float) -> TakenRequest | bool:
    """
    Take the next request.

    Returns:
        The request; True if the bell was rung; False if nothing came within `timeout_s` seconds.
    """
    readable, _, _ = select.select([taking.fileno(), bell], [], [], timeout_s)
    if bell in readable:
        with suppress(BlockingIOError):  # another process of the same server was quicker
            os.eventfd_read(bell)
    if taking.fileno() not in readable:
        return bool(readable)
    try:
        data, descriptors, _, _ = socket.recv_fds(taking, MESSAGE_BYTES, 1)
    except BlockingIOError:  # another process of the same server was quicker
        return False
    caller = socket.socket(fileno=descriptors[0])
    os.set_inheritable(descriptors[0], False)
    return TakenRequest(msgspec.json.decode(data, type=ExplainRequest), caller)


def has_hung_up(end: socket.socket) -> bool:
    """Return whether the other end of a socket pair was closed."""
    poll = select.poll()
    poll.register(end, select.POLLHUP)
    return bool(poll.poll(0))
