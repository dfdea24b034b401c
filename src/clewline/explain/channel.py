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
        """Return the reply that an error means."""
        return cls(error=type(error).__name__, message=error.message, fix=error.fix)

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
    """Both ends of the channel of one server."""

    asking: socket.socket
    taking: socket.socket

    @classmethod
    def create(cls) -> ExplainChannel:
        """Create a channel on which nothing waits."""
        channel = cls(*socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET))
        for end in channel:
            end.setblocking(False)
        return channel

    def close(self) -> None:
        """Close both ends: whoever waits is told that there is no answer."""
        self.asking.close()
        self.taking.close()


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


def wake(asking: socket.socket) -> bool:
    """Have an explaining process started, if there is none; False if the channel is full."""
    try:
        asking.send(b"{}")
    except BlockingIOError:
        return False
    return True


def take(taking: socket.socket, timeout_s: float | None) -> TakenRequest | bool:
    """
    Take the next request.

    Returns:
        The request; True if somebody wants the process to look around; False if nothing came
        within `timeout_s` seconds.
    """
    if not select.select([taking], [], [], timeout_s)[0]:
        return False
    try:
        data, descriptors, _, _ = socket.recv_fds(taking, MESSAGE_BYTES, 1)
    except BlockingIOError:  # another process of the same server was quicker
        return False
    if not descriptors:
        return True
    caller = socket.socket(fileno=descriptors[0])
    os.set_inheritable(descriptors[0], False)
    return TakenRequest(msgspec.json.decode(data, type=ExplainRequest), caller)


def has_hung_up(end: socket.socket) -> bool:
    """Return whether the other end of a socket pair was closed."""
    poll = select.poll()
    poll.register(end, select.POLLHUP)
    return bool(poll.poll(0))
