"""
Messages between a server and the process of an isolated model.

A message is a typed head in msgpack and arrays as their raw bytes behind it:
`<length of head> <head> <bytes of each array>`. Nothing in it is code.
"""

from __future__ import annotations

import dataclasses
import socket
import struct
import time
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from clewline.model.runtime.outputs import Outputs
from clewline.signature.columns import Columns
from clewline.signature.field import Signature

LARGEST_HEAD = 1 << 30  # bytes; texts of a batch stand in it
_LENGTH = struct.Struct("<Q")

Buffer = bytes | bytearray | memoryview


class ArraySpec(msgspec.Struct, frozen=True, array_like=True):
    """How the raw bytes of an array are to be read."""

    dtype: str
    shape: tuple[int, ...]


class LoadRequest(msgspec.Struct, frozen=True, tag="load"):
    """Load a model; an array of bytes for each file follows."""

    ref: str  # name@number
    runtime: str
    signature: Signature
    files: list[str]


class LoadReply(msgspec.Struct, frozen=True, tag="loaded"):
    """The model is ready."""


class RowsHead(msgspec.Struct, frozen=True, tag="rows"):
    """Columns: numbers and tensors follow, texts stand here."""

    texts: list[list[str | None]]
    tensors: list[str]


class OutputsHead(msgspec.Struct, frozen=True, tag="answers"):
    """Outputs: the arrays that are named follow."""

    parts: list[str]


class FailedReply(msgspec.Struct, frozen=True, tag="failed"):
    """The model raised; the process goes on."""

    code: str  # of a ClewlineError, or the name of the type
    message: str
    fix: str | None = None


Head = LoadRequest | LoadReply | RowsHead | OutputsHead | FailedReply


class _Envelope(msgspec.Struct, frozen=True, array_like=True):
    head: Head
    arrays: list[ArraySpec]


class Message(msgspec.Struct, frozen=True, eq=False):
    """A head and its arrays."""

    head: Head
    arrays: list[NDArray[Any]] = []


class ProcessGone(Exception):
    """The other side is gone, or does not keep to the protocol."""


_decoder = msgspec.msgpack.Decoder(_Envelope)


def send(to: socket.socket, message: Message, *, until: float | None = None) -> None:
    """
    Send a message.

    Args:
        to: A stream socket.
        message: Its arrays need not be contiguous.
        until: Of `time.monotonic`; None waits for ever.

    Raises:
        ProcessGone: The other side is gone.
        TimeoutError: It did not take the message in time.
    """
    arrays = [np.ascontiguousarray(array) for array in message.arrays]
    specs = [ArraySpec(array.dtype.str, array.shape) for array in arrays]
    head = msgspec.msgpack.encode(_Envelope(message.head, specs))
    pieces: list[Buffer] = [_LENGTH.pack(len(head)) + head]
    pieces += [array.reshape(-1).view(np.uint8).data for array in arrays if array.size]
    try:
        for piece in pieces:
            to.settimeout(_left(until))
            to.sendall(piece)
    except TimeoutError:
        raise
    except OSError as error:
        raise ProcessGone(f"the process is gone: {error}") from error


def receive(sender: socket.socket, *, until: float | None = None) -> Message:
    """
    Wait for a message.

    Raises:
        ProcessGone: The other side is gone, or sent what is no message.
        TimeoutError: No whole message came in time.
    """
    (length,) = _LENGTH.unpack(_read(sender, _LENGTH.size, until))
    if length > LARGEST_HEAD:
        raise ProcessGone(f"a head of {length} bytes was announced")
    try:
        envelope = _decoder.decode(_read(sender, length, until))
    except msgspec.DecodeError as error:
        raise ProcessGone(f"what came is no message: {error}") from error
    return Message(envelope.head, [_array(sender, spec, until) for spec in envelope.arrays])


def rows_message(columns: Columns) -> Message:
    """Make the message that holds rows."""
    tensors = dict(columns.tensors)
    head = RowsHead(columns.texts.tolist(), list(tensors))
    return Message(head, [columns.numbers, *tensors.values()])


def read_columns(message: Message) -> Columns:
    """Take rows out of a message."""
    if not isinstance(message.head, RowsHead) or not message.arrays:
        raise ProcessGone("rows were expected")
    numbers, *tensors = message.arrays
    texts = np.empty((len(numbers), len(next(iter(message.head.texts), ()))), dtype=object)
    for row, values in enumerate(message.head.texts):
        texts[row, :] = values
    return Columns(numbers, texts, dict(zip(message.head.tensors, tensors, strict=True)))


PARTS = tuple(part.name for part in dataclasses.fields(Outputs))


def outputs_message(outputs: Outputs) -> Message:
    """Make the message that holds answers."""
    found = {name: getattr(outputs, name) for name in PARTS}
    present = {name: array for name, array in found.items() if array is not None}
    return Message(OutputsHead(list(present)), list(present.values()))


def read_outputs(message: Message) -> Outputs:
    """Take answers out of a message."""
    if not isinstance(message.head, OutputsHead) or not set(message.head.parts) <= set(PARTS):
        raise ProcessGone("answers were expected")
    return Outputs(**dict(zip(message.head.parts, message.arrays, strict=True)))


def _array(sender: socket.socket, spec: ArraySpec, until: float | None) -> NDArray[Any]:
    dtype = np.dtype(spec.dtype)
    if dtype.hasobject:
        raise ProcessGone(f"an array of {spec.dtype} was announced")
    size = dtype.itemsize * int(np.prod(spec.shape, dtype=np.int64))
    return np.frombuffer(_read(sender, size, until), dtype=dtype).reshape(spec.shape)


def _read(sender: socket.socket, size: int, until: float | None) -> bytearray:
    data = bytearray(size)
    rest = memoryview(data)
    while rest:
        sender.settimeout(_left(until))
        try:
            count = sender.recv_into(rest)
        except TimeoutError:
            raise
        except OSError as error:
            raise ProcessGone(f"the process is gone: {error}") from error
        if not count:
            raise ProcessGone("the process is gone")
        rest = rest[count:]
    return data


def _left(until: float | None) -> float | None:
    if until is None:
        return None
    left = until - time.monotonic()
    if left <= 0:
        raise TimeoutError
    return left
