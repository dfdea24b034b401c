"""Messages between a supervisor and its workers: a line of JSON each."""

from __future__ import annotations

import msgspec

from clewline.workers.options import ServerOptions


class ForbidRevision(msgspec.Struct, frozen=True, tag=True):
    """Neither load nor serve a revision any more: it has crashed too often."""

    endpoint: str
    revision: int
    message: str


class StopWorker(msgspec.Struct, frozen=True, tag=True):
    """Answer all requests that were taken, and stop."""

    hands_over: bool = False  # whether another worker goes on with the socket


class WorkerOrders(msgspec.Struct, frozen=True, kw_only=True):
    """All that a worker needs to start."""

    options: ServerOptions
    slot: int  # its place in the worker table
    forbidden: list[ForbidRevision]
    # Descriptors that it has inherited.
    listen: int
    table: int
    metrics: list[int]
    bells: list[int]
    status: int
    dump: int  # of the file to which its stacks are written if it crashes


class ReadyEndpoint(msgspec.Struct, frozen=True):
    """An endpoint that answers."""

    endpoint: str
    ref: str  # name#number
    models: list[str]


class WorkerReady(msgspec.Struct, frozen=True, tag=True):
    """The worker answers requests."""

    served: list[ReadyEndpoint]
    failures: list[str]
    endpoints: int  # how many there are


class WorkerFailed(msgspec.Struct, frozen=True, tag=True):
    """The worker cannot start, and knows why."""

    error: str  # the class
    message: str
    fix: str | None
