"""What goes through the nodes of a graph, and what each node answers."""

from __future__ import annotations

import signal
from collections.abc import Mapping
from typing import Protocol

import msgspec
import numpy as np
from numpy.typing import NDArray

from clewline.errors import ClewlineError, ModelFailed
from clewline.model.runtime import Outputs
from clewline.serve.log.frame import RoutePath
from clewline.signature.columns import Columns
from clewline.signature.field import Signature

Checksums = Mapping[str, NDArray[np.uint32]]
"""Node → a checksum of its result for each row, shape (n,)."""


class Batch(msgspec.Struct, frozen=True, eq=False):
    """Checked rows that go through the graph together, in order."""

    columns: Columns  # n rows
    ids: list[bytes]  # n prediction ids of 16 bytes
    entities: list[str | None]  # n; whom or what a row is about, if its caller said so


class NodeAnswers(msgspec.Struct, frozen=True, eq=False, gc=False):
    """
    The answers of a node to a batch, and the path of each row through the graph.

    Rows with the same path share it: row `i` took `paths[path_of_row[i]]`, or
    `paths[0]` if `path_of_row` is None.
    """

    outputs: Outputs  # n answers
    paths: tuple[RoutePath, ...]  # one or more
    path_of_row: NDArray[np.intp] | None = None  # shape (n,), indices into `paths`
    checksums: Checksums = {}  # of the nodes passed; a graph of one model has none


class Node(Protocol):
    """
    A part of an endpoint's graph that answers rows.

    Called from one thread at a time, not always the same one. The answer to a
    row depends on the row, its id and its entity, never on its neighbours. The
    batch belongs to the caller: a node must not change its arrays. An exception
    fails the whole batch; the row of an `InvalidInput` is a row of the batch.
    """

    signature: Signature

    @property
    def background(self) -> bytes:
        """Return a JSON array of rows to try the node on."""

    def answer(self, batch: Batch) -> NodeAnswers:
        """Answer every row of a batch, in order."""

    def close(self) -> None:
        """
        Release what the node itself holds; no call comes after it.

        The builder closes the nodes below it, and releases models.
        """


class BuiltNode(Node, Protocol):
    """A node as the builder makes it: of a node kind, with its name in the tree."""

    name: str

    def compute(self, batch: Batch) -> NodeAnswers:
        """Answer as `answer` does, but raise errors as they are, without the node's name."""


def node_failure(node: str, error: BaseException) -> ModelFailed:
    """
    Return the error for callers that names the node that raised.

    This also holds for errors that are no `Exception`: a function that calls
    `sys.exit` fails its rows, and does not end the server.

    Raises:
        KeyboardInterrupt: The error is a person's Ctrl-C.
    """
    if is_ctrl_c(error):
        raise error
    if isinstance(error, ClewlineError):
        return ModelFailed(f"The node {node!r} failed: {error.message}", error.fix)
    return ModelFailed(
        f"The node {node!r} raised {type(error).__name__}.",
        "The server's log has the reason; it is not in the request.",
    )


def is_ctrl_c(error: BaseException) -> bool:
    """Tell a person's Ctrl-C from code that raises; a server has its own handlers for it."""
    handler = signal.getsignal(signal.SIGINT)
    return isinstance(error, KeyboardInterrupt) and handler is signal.default_int_handler
