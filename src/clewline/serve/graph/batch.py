"""What goes through a graph of nodes, and what comes out of it."""

from __future__ import annotations

import signal
from collections.abc import Mapping

import msgspec
import numpy as np
from numpy.typing import NDArray

from clewline.errors import ClewlineError, ModelFailed
from clewline.model.runtime import Outputs
from clewline.serve.log.frame import RoutePath
from clewline.signature.columns import Columns

Checksums = Mapping[str, NDArray[np.uint32]]
"""Node → a checksum of what it made of each row, shape (n,)."""


class Batch(msgspec.Struct, frozen=True, eq=False):
    """Checked rows that go through the graph together, in order."""

    columns: Columns  # n rows
    ids: list[bytes]  # n prediction ids of 16 bytes
    entities: list[str | None]  # n; whom a row is about, where its caller said so


class NodeAnswers(msgspec.Struct, frozen=True, eq=False, gc=False):
    """
    What a node says of a batch, and which way each row went to it.

    Rows that went alike share a `RoutePath`: row `i` went `ways[taken[i]]`, and where
    `taken` is None every row went `ways[0]`.
    """

    outputs: Outputs  # n answers
    ways: tuple[RoutePath, ...]  # one or more
    taken: NDArray[np.intp] | None = None  # shape (n,), indices into `ways`
    marks: Checksums = {}  # of the nodes gone through; a graph of one model has none


def node_failure(node: str, error: BaseException) -> ModelFailed:
    """
    Make the error that names the node that raised; the ids of the rows are added above it.

    Also of what is no `Exception`: a function that calls `sys.exit` fails its rows, and
    does not end the server. Ctrl-C is raised again, where it means what it says.
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
    """Tell a person's Ctrl-C from code that raises; a server has handlers of its own for it."""
    handler = signal.getsignal(signal.SIGINT)
    return isinstance(error, KeyboardInterrupt) and handler is signal.default_int_handler
