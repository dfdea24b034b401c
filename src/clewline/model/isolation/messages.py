"""
Messages between a server and the process of an isolated model.

A message is a typed head in msgpack and arrays as their raw bytes behind it:
`<size> <length of head> <number of question> <0> <head> <bytes of each array>`. Nothing in it is
code. An answer has the number of its question, and comes from the process that was asked.
"""

from __future__ import annotations

import dataclasses
import math
import select
import socket
import struct
import sys
import time
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from clewline.model.runtime.outputs import Outputs
from clewline.signature.columns import Columns
from clewline.signature.field import Signature

FIRST_BYTES = 1 << 16
"""Bytes that one system call reads first: nearly always the whole message."""
ALIGNMENT = 16
_START = struct.Struct("<QQQQ")
_CREDENTIALS = struct.Struct("iII")  # process, user, group: unix(7)
_CREDENTIALS_BYTES = socket.CMSG_SPACE(_CREDENTIALS.size)

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
    """The other side is gone."""


class WrongMessage(Exception):
    """What came is no answer to the question: damaged, out of turn, or of another process."""


_decoder = msgspec.msgpack.Decoder(_Envelope)


class Channel:
    """
    One end of the socket between a server and a model's process; for one thread at a time.

    Args:
        end: A stream socket of the family AF_UNIX.
        most_bytes: Longest message that is accepted.
        checks_sender: Whether the kernel names the sender of each message (unix(7),
            SO_PASSCRED). All must be of the process that sent the first one: a fork of a
            model's process has a copy of the socket.
    """

    def __init__(
        self, end: socket.socket, *, most_bytes: int = sys.maxsize, checks_sender: bool = False
    ) -> None:
        end.setblocking(False)
        self.sender: int | None = None  # id of the process at the other end, once it is known
        self._end, self._most_bytes, self._checks_sender = end, most_bytes, checks_sender
        self._first = bytearray(FIRST_BYTES)
        self._poll = select.poll()
        if checks_sender:
            end.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)

    def close(self) -> None:
        """Close this end."""
        self._end.close()

    def send(self, message: Message, number: int, *, until: float | None = None) -> None:
        """
        Send a message.

        Args:
            message: Its arrays need not be contiguous.
            number: Of the question; its answer has the same.
            until: Of `time.monotonic`; None waits for ever.

        Raises:
            ProcessGone: The other side is gone.
            TimeoutError: It did not take the message in time.
        """
        arrays = [np.ascontiguousarray(array) for array in message.arrays]
        specs = [ArraySpec(array.dtype.str, array.shape) for array in arrays]
        head = msgspec.msgpack.encode(_Envelope(message.head, specs))
        pieces: list[Buffer] = [b"", head]
        for array in arrays:
            pieces += [_padding(len(pieces[-1])), array.reshape(-1).view(np.uint8).data]
        size = sum(map(len, pieces))
        pieces[0] = _START.pack(size, len(head), number, 0)
        if size <= FIRST_BYTES:
            pieces = [b"".join(pieces)]
        for piece in pieces:
            left = memoryview(piece)
            while left:
                try:
                    left = left[self._end.send(left) :]
                except BlockingIOError:
                    self._wait(select.POLLOUT, until)
                except OSError as error:
                    raise ProcessGone(f"the process is gone: {error}") from error

    def receive(self, *, until: float | None = None) -> tuple[int, Message]:
        """
        Wait for a message; return the number of its question, and the message.

        Raises:
            ProcessGone: The other side is gone.
            WrongMessage: It is no message, or another process sent it.
            TimeoutError: No whole message came in time.
        """
        first = memoryview(self._first)
        count = self._receive_into(first, until)
        while count < _START.size:
            count += self._receive_into(first[count:], until)
        size, length, number, _ = _START.unpack_from(first)
        if not length <= size <= self._most_bytes:
            raise WrongMessage(f"{size} bytes were announced; the limit is {self._most_bytes}")
        rest = count - _START.size
        if rest > size:
            raise WrongMessage(f"{rest - size} bytes came behind the message")
        data = bytearray(size)
        data[:rest] = first[_START.size : count]
        while rest < size:
            rest += self._receive_into(memoryview(data)[rest:], until)
        try:
            envelope = _decoder.decode(memoryview(data)[:length])
            arrays, start = [], length
            for spec in envelope.arrays:
                start += len(_padding(start))
                dtype, items = np.dtype(spec.dtype), math.prod(spec.shape)
                array = np.frombuffer(data, dtype, count=items, offset=start)
                arrays.append(array.reshape(spec.shape))
                start += array.nbytes
        except (msgspec.DecodeError, ValueError, TypeError) as error:
            raise WrongMessage(f"what came is no message: {error}") from error
        return number, Message(envelope.head, arrays)

    def _receive_into(self, buffer: memoryview, until: float | None) -> int:
        while True:
            self._wait(select.POLLIN, until)
            try:
                size = _CREDENTIALS_BYTES if self._checks_sender else 0
                count, about, _, _ = self._end.recvmsg_into([buffer], size)
            except BlockingIOError:
                continue
            except OSError as error:
                raise ProcessGone(f"the process is gone: {error}") from error
            if not count:
                raise ProcessGone("the process is gone")
            for _, _, credentials in about:
                sender = _CREDENTIALS.unpack(credentials)[0]
                self.sender = self.sender or sender
                if sender != self.sender:
                    raise WrongMessage(f"process {sender} wrote it, not {self.sender}")
            return count

    def _wait(self, event: int, until: float | None) -> None:
        wait_ms = None if until is None else (until - time.monotonic()) * 1000
        self._poll.register(self._end, event)
        if (wait_ms is not None and wait_ms <= 0) or not self._poll.poll(wait_ms):
            raise TimeoutError


def _padding(size: int) -> bytes:
    """Return the zeros behind `size` bytes, so that the next array is aligned."""
    return bytes(-size % ALIGNMENT)


def rows_message(columns: Columns) -> Message:
    """Make the message that holds rows."""
    tensors = dict(columns.tensors)
    head = RowsHead(columns.texts.tolist(), list(tensors))
    return Message(head, [columns.numbers, *tensors.values()])


def read_columns(message: Message) -> Columns:
    """Take rows out of a message."""
    if not isinstance(message.head, RowsHead) or not message.arrays:
        raise WrongMessage("rows were expected")
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
        raise WrongMessage("answers were expected")
    return Outputs(**dict(zip(message.head.parts, message.arrays, strict=True)))
