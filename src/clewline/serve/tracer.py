"""Who follows requests through a server, where somebody wants spans of them."""

from __future__ import annotations

from typing import Protocol

from clewline.serve.ask import Ask
from clewline.serve.once import Reply


class Tracer(Protocol):
    """Called on the loop's thread; it waits for nothing, and breaks no answer."""

    def follow(self, endpoint: str, ask: Ask, reply: Reply) -> Reply:
        """
        Give what is to be told of the answer in place of `reply`.

        For a request that is sampled, `ask.stamps` is set.
        """
