"""What a supervisor and its workers say to each other: a line of JSON each."""

from __future__ import annotations

import msgspec

from clewline.workers.options import ServerOptions


class ForbidRevision(msgspec.Struct, frozen=True, tag=True):
    """Do not load a revision any more, and let it answer nothing: it has crashed too often."""

    endpoint: str
    revision: int
    message: str


class StopWorker(msgspec.Struct, frozen=True, tag=True):
    """Answer what is under way, and stop; perhaps another worker goes on with the socket."""

    hands_over: bool = False


class WorkerOrders(msgspec.Struct, frozen=True, kw_only=True):
    """What a worker is told first."""

    options: ServerOptions
    slot: int  # its place on the board
    forbidden: list[ForbidRevision]
    # Descriptors that it has inherited.
    listen: int
    board: int
    shelf: list[int]
    bells: list[int]
    status: int
    dump: int  # where its stacks are written if it crashes


class ReadyEndpoint(msgspec.Struct, frozen=True):
    """An endpoint that answers."""

    endpoint: str
    ref: str  # name#number
    models: list[str]


class WorkerReady(msgspec.Struct, frozen=True, tag=True):
    """Requests are answered."""

    served: list[ReadyEndpoint]
    failures: list[str]
    endpoints: int  # how many there are


class WorkerFailed(msgspec.Struct, frozen=True, tag=True):
    """The worker cannot start, for a reason that it knows."""

    error: str  # the class
    message: str
    fix: str | None


FromWorker = WorkerReady | WorkerFailed
