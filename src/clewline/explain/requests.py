"""Requests to explain that wait in a worker for the explaining process of its server."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from typing import TypeAlias

import msgspec

from clewline.errors import ClewlineError, DeadlineExceeded, Fault, NotSupported, Overloaded
from clewline.explain import channel
from clewline.explain.channel import ExplainReply, ExplainRequest
from clewline.serve.endpoint_server import UnderWay

WAITING = 64
"""Maximum requests of one worker that wait."""
CHECK_S = 0.25
"""Time between two looks whether the callers are still there."""
READ_BYTES = 1 << 16

WhenExplained: TypeAlias = Callable[[bytes | ClewlineError], None]
"""Gets an explanation as JSON, or the reason why there is none."""


class ExplanationRequests:
    """
    What a worker has asked the explaining process. Lives on the loop's thread.

    Args:
        asking: The end of the server's channel on which requests are sent; stays the caller's.
        under_way: The callers of the worker, to whom it says when it stops.
    """

    def __init__(self, asking: socket.socket, under_way: dict[UnderWay, None]) -> None:
        self._asking = asking
        self._under_way = under_way
        self._waiting: set[_WaitingExplanation] = set()
        self._check: asyncio.TimerHandle | None = None

    @property
    def waiting(self) -> int:
        """How many requests wait for the explaining process."""
        return len(self._waiting)

    def explain(
        self,
        request: ExplainRequest,
        timeout_s: float,
        is_abandoned: Callable[[], bool],
        then: WhenExplained,
    ) -> None:
        """
        Ask for an explanation.

        If the caller leaves, it is not computed. If the time is over, it is: whoever asks
        later finds it stored.

        Args:
            request: What to explain.
            timeout_s: How long the caller waits.
            is_abandoned: Returns whether the caller has left.
            then: Called once, now or later on this thread.

        Raises:
            Overloaded: Too many wait already.
            InvalidInput: The options are too large.
        """
        full = len(self._waiting) >= WAITING
        reply = None if full else channel.ask(self._asking, request)
        if reply is None:
            raise Overloaded(
                f"{len(self._waiting)} requests wait for their explanations.", "Try again in 1 s."
            )
        loop = asyncio.get_running_loop()
        waiting = _WaitingExplanation(self, request, reply, is_abandoned, then)
        self._waiting.add(waiting)
        self._under_way[waiting] = None
        loop.add_reader(reply, waiting.read)
        waiting.timer = loop.call_later(timeout_s, waiting.expire)
        if self._check is None:
            self._check = loop.call_later(CHECK_S, self._look_after_callers)

    def _look_after_callers(self) -> None:
        """Take back the requests whose callers have left."""
        for waiting in list(self._waiting):
            if waiting.then is not None and waiting.is_abandoned():
                waiting.leave()
        self._check = None
        if self._waiting:
            self._check = asyncio.get_running_loop().call_later(CHECK_S, self._look_after_callers)

    def forget(self, waiting: _WaitingExplanation) -> None:
        """Forget a request that has its reply, or whose caller has left."""
        self._waiting.discard(waiting)


class _WaitingExplanation:
    """One request, from its sending to its reply."""

    def __init__(
        self,
        requests: ExplanationRequests,
        request: ExplainRequest,
        reply: socket.socket,
        is_abandoned: Callable[[], bool],
        then: WhenExplained,
    ) -> None:
        self.is_abandoned = is_abandoned
        self.then: WhenExplained | None = then  # None: answered, or the caller has left
        self.timer: asyncio.TimerHandle | None = None
        self._requests, self._request, self._reply = requests, request, reply
        self._data: list[bytes] = []

    def read(self) -> None:
        """Read what has come of the reply; its end is the end of the connection."""
        try:
            data = self._reply.recv(READ_BYTES)
        except BlockingIOError:
            return
        except ConnectionResetError:
            data = b""
        if data:
            self._data.append(data)
            return
        self._close()
        self._settle(self._result())

    def expire(self) -> None:
        """Answer that the time is over; the explanation is computed all the same."""
        self._settle(
            DeadlineExceeded(
                f"The explanation of {self._request.prediction} is still being computed.",
                "Ask again in a moment: it is stored when it is done.",
            )
        )

    def give_up(self, error: ClewlineError) -> None:
        """Answer with an error now, and take the request back."""
        self._settle(error)
        self._close()

    def leave(self) -> None:
        """Take the request back: its caller has left, and nothing can be answered."""
        self._settle(Fault("The caller has gone."))
        self._close()

    def _result(self) -> bytes | ClewlineError:
        if not self._data:
            return Fault(
                f"The explaining process ended while it explained {self._request.prediction}: "
                "the model crashed it, or needed too much time or memory.",
                "The server's log has the reason.",
            )
        try:
            return msgspec.json.decode(b"".join(self._data), type=ExplainReply).result()
        except msgspec.DecodeError:
            return Fault("The explaining process ended while it replied.", "Ask again.")

    def _settle(self, result: bytes | ClewlineError) -> None:
        then, self.then = self.then, None
        if then is None:
            return
        self._requests._under_way.pop(self, None)
        if self.timer is not None:
            self.timer.cancel()
        then(result)

    def _close(self) -> None:
        if self._reply.fileno() >= 0:
            asyncio.get_running_loop().remove_reader(self._reply)
            self._reply.close()
        self._requests.forget(self)


def require_requests(requests: ExplanationRequests | None) -> ExplanationRequests:
    """
    Return what asks the explaining process.

    Raises:
        NotSupported: The server has none, as behind Granian.
    """
    if requests is None:
        raise NotSupported(
            "This server has no explaining process.",
            "Start it with `clewline serve`, or use `clewline explain ID`.",
        )
    return requests
