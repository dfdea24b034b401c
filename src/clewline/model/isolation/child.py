"""The program of an isolated model's process: load the model, then answer until the server ends."""

from __future__ import annotations

import faulthandler
import os
import resource
import socket
import sys
import traceback
from collections.abc import Callable
from typing import Any

from clewline.errors import ClewlineError
from clewline.model.isolation import messages
from clewline.model.runtime.outputs import Transformer
from clewline.model_families import family_named

Work = Callable[[messages.Message], tuple[messages.Message, Any]]


def main(descriptor: int, memory_bytes: int) -> None:
    """
    Answer the messages that come over a socket, one by one.

    Args:
        descriptor: Of the socket.
        memory_bytes: Limit on the memory of this process; 0 for none.
    """
    if memory_bytes:
        resource.setrlimit(resource.RLIMIT_DATA, (memory_bytes, memory_bytes))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    faulthandler.enable()
    os.set_inheritable(descriptor, False)  # no program that the model starts has it …
    channel, own = messages.Channel(socket.socket(fileno=descriptor)), os.getpid()
    os.register_at_fork(after_in_child=channel.close)  # … and no fork of the model
    try:
        loaded = answer(channel, load)
        while loaded is not None:
            answer(channel, lambda message: predict(loaded, message))
    except messages.ProcessGone:
        return  # the server closed the model
    finally:
        if os.getpid() != own:  # a fork that came back here must not clean up for the model
            os._exit(1)


def answer(channel: messages.Channel, work: Work) -> Any:
    """Take a message, do what it asks for, and send the result; return what `work` gave."""
    number, message = channel.receive()
    result = None
    try:
        reply, result = work(message)
    except ClewlineError as error:
        code = MemoryError.__name__ if isinstance(error.__cause__, MemoryError) else error.code
        reply = messages.Message(messages.FailedReply(code, error.message, error.fix))
    except Exception as error:  # a user's model may raise anything
        traceback.print_exc()
        reply = messages.Message(messages.FailedReply(type(error).__name__, str(error)))
    sys.stderr.flush()
    channel.send(reply, number)
    return result


def load(message: messages.Message) -> tuple[messages.Message, Any]:
    """Load the model that a message holds."""
    head = message.head
    if not isinstance(head, messages.LoadRequest):
        raise messages.ProcessGone("a model was expected")
    files = {name: array.tobytes() for name, array in zip(head.files, message.arrays, strict=True)}
    loaded = family_named(head.runtime).load(files, head.signature)
    return messages.Message(messages.LoadReply()), loaded


def predict(loaded: Any, message: messages.Message) -> tuple[messages.Message, None]:
    """Answer or transform the rows that a message holds."""
    columns = messages.read_columns(message)
    if isinstance(loaded, Transformer):
        return messages.rows_message(loaded.transform(columns)), None
    return messages.outputs_message(loaded.predict(columns)), None
