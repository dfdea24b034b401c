"""The program of an isolated model's process: load the model, then answer until the server ends."""

from __future__ import annotations

import faulthandler
import fcntl
import os
import select
import socket
import sys
import traceback
from typing import Any

from clewline.errors import ClewlineError
from clewline.model.isolation import messages
from clewline.model.runtime.outputs import Transformer
from clewline.model_families import family_named


def main(channel: int, lifeline: int) -> None:
    """
    Answer the messages that come over a socket, one by one.

    Args:
        channel: Descriptor of the socket.
        lifeline: Descriptor of a pipe that the server holds open while it lives.
    """
    end_with_server(lifeline)
    faulthandler.enable()
    with socket.socket(fileno=channel) as server:
        try:
            loaded = answer(server, load)
            while loaded is not None:
                answer(server, lambda message: predict(loaded, message))
        except messages.ProcessGone:
            return  # the server closed the model


def end_with_server(lifeline: int) -> None:
    """
    End this process when the server ends, even if native code never returns.

    The kernel sends SIGIO, which by default ends a process, when the last writer of
    the pipe is gone: also where native code never gives the interpreter back.
    """
    fcntl.fcntl(lifeline, fcntl.F_SETOWN, os.getpid())
    flags = fcntl.fcntl(lifeline, fcntl.F_GETFL)
    fcntl.fcntl(lifeline, fcntl.F_SETFL, flags | os.O_ASYNC | os.O_NONBLOCK)
    if select.select([lifeline], [], [], 0)[0]:
        os._exit(1)  # it was gone before the kernel was asked


def answer(server: socket.socket, work: Any) -> Any:
    """Take a message, do what it asks for, and send what came of it; gives what `work` gave."""
    message = messages.receive(server)
    try:
        reply, result = work(message)
    except ClewlineError as error:
        failed = messages.FailedReply(error.code, error.message, error.fix)
    except Exception as error:  # a user's model may raise anything
        traceback.print_exc()
        failed = messages.FailedReply(type(error).__name__, str(error))
    else:
        messages.send(server, reply)
        return result
    sys.stderr.flush()
    messages.send(server, messages.Message(failed))
    return None


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
