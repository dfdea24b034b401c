"""
A model in a process of its own, so that its crash or hang is not the server's.

The process is started anew (exec, never fork) with a clean environment in an empty
folder. It is fed the verified bytes of the package; what it prints goes to the
server's log under the model's name.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from clewline.errors import (
    ClewlineError,
    IntegrityError,
    InvalidInput,
    ModelFailed,
    NotFound,
    NotSupported,
)
from clewline.formatting import format_size
from clewline.model.isolation import messages
from clewline.model.isolation.process import ModelProcess
from clewline.model.runtime.outputs import Outputs
from clewline.signature.columns import Columns
from clewline.signature.field import Signature

logger = logging.getLogger(__name__)

TIMEOUT_S = 30.0
"""How long a call may take if the endpoint states no limit."""

LOAD_S = 100.0
"""How long loading may take; less than the 120 s after which a server is taken to hang."""

MAX_CRASHES = 3
"""Crashes in a row after which the model stays failed until it is loaded again."""

MORE_TIME = " `isolate: {timeout: …}` in the endpoint's file allows more time."

BACKOFF_S = (0.0, 0.5)
"""Seconds that a start waits after the first and the second crash in a row."""

Files = Callable[[], Mapping[str, bytes]]


@dataclass(frozen=True, slots=True)
class IsolationLimits:
    """The limits of an isolated model's process."""

    timeout_s: float = TIMEOUT_S  # of a call; one that takes longer is ended with its process
    memory_bytes: int | None = None  # as RLIMIT_DATA counts, see getrlimit(2)


DEFAULT_LIMITS = IsolationLimits()


def load_isolated(
    ref: str,
    runtime: str,
    signature: Signature,
    files: Files,
    limits: IsolationLimits = DEFAULT_LIMITS,
) -> IsolatedPredictor | IsolatedTransformer:
    """
    Load a model into a process of its own.

    Args:
        ref: `name@number`, for messages and the log.
        runtime: Name of the runtime that loads it there.
        signature: Of its package.
        files: Gives the verified bytes of its package, here and after each crash, so
            that they need not stay in memory meanwhile.
        limits: Of its process.

    Returns:
        A predictor, or a transformer where the signature's task is "transform".

    Raises:
        ClewlineError: What the runtime raises when it loads the model.
        ModelFailed: The process ended, or took longer than `LOAD_S`.
    """
    kind = IsolatedTransformer if signature.output.task == "transform" else IsolatedPredictor
    return kind(messages.LoadRequest(ref, runtime, signature, []), files, limits)


class IsolatedModel:
    """Keeps the process of a model running. Any thread may call it; calls queue."""

    def __init__(self, load: messages.LoadRequest, files: Files, limits: IsolationLimits) -> None:
        self.ref = load.ref
        self.restarts = 0  # how often the process was started again
        self.failure: str | None = None
        """Why the model stays failed, with the last lines that it printed; None while it runs."""
        self.error: ModelFailed | None = None
        """What each call gets while the model stays failed; None while it runs."""
        self._load, self._files, self._limits = load, files, limits
        self._lock = threading.Lock()
        self._closed = threading.Event()
        self._crashes = 0
        self._process: ModelProcess | None = None
        self._start()

    @property
    def pid(self) -> int | None:
        """Id of the process; None while none runs."""
        return self._process.pid if self._process else None

    @property
    def rss_bytes(self) -> int:
        """Memory that the process holds; 0 while none runs."""
        return self._process.rss_bytes if self._process else 0

    def ask(self, question: messages.Message) -> messages.Message:
        """
        Send a message and wait for its answer.

        Raises:
            InvalidInput: The model refuses a row.
            ModelFailed: The model raised, its process ended, or it took too long.
        """
        with self._lock:
            if self._closed.is_set():
                raise RuntimeError("The predictor was closed.")
            if self.error is not None:
                raise ModelFailed(self.error.message, self.error.fix)
            if self._process is None:
                self._closed.wait(BACKOFF_S[min(self._crashes, len(BACKOFF_S)) - 1])
                self._start()
                self.restarts += 1
                logger.warning("%s: its process was started again", self.ref)
            seconds = self._limits.timeout_s
            answer = self._ask(question, seconds, f"gave no answer within {seconds:g} s")
            self._crashes = 0
        if isinstance(answer.head, messages.FailedReply):
            raise self._raised(answer.head)
        return answer

    def close(self) -> None:
        """End the process."""
        self._closed.set()
        process = self._process
        if process is not None:
            process.kill()  # a call that hangs in it ends, so that the lock is free
        with self._lock:
            if self._process is not None:
                self._process.end()
            self._process = None

    def _start(self) -> None:
        """Start a process and load the model in it."""
        files = self._files()
        head = messages.LoadRequest(self.ref, self._load.runtime, self._load.signature, list(files))
        arrays = [np.frombuffer(data, dtype=np.uint8) for data in files.values()]  # not copied
        self._process = ModelProcess(self.ref, self._limits.memory_bytes or 0)
        if self._closed.is_set():
            self._process.kill()  # `close` may have looked for it too early
        late = f"was not loaded within {LOAD_S:g} s"
        answer = self._ask(messages.Message(head, arrays), LOAD_S, late)
        if isinstance(answer.head, messages.FailedReply):
            self._process.end()
            self._process = None
            raise self._raised(answer.head)

    def _ask(self, question: messages.Message, seconds: float, late: str) -> messages.Message:
        """Ask the process; end it if it gives no answer."""
        process = self._process
        assert process is not None
        try:
            return process.ask(question, time.monotonic() + seconds)
        except TimeoutError:
            raise self._crashed(process, late, MORE_TIME) from None
        except messages.WrongMessage as error:
            what = "wrote what is no answer to its call; it must not fork and go on in both"
            raise self._crashed(process, f"{what} ({error})") from error
        except messages.ProcessGone as error:
            raise self._crashed(process) from error
        except BaseException:
            process.kill()
            process.end()
            self._process = None
            raise

    def _crashed(
        self, process: ModelProcess, what: str | None = None, more: str = ""
    ) -> ModelFailed:
        """End a process; return the error for the rows that it had."""
        if what is not None:
            process.kill()
        ended = process.end()
        happened = what or (f"was ended by {ended}" if ended.startswith("SIG") else ended)
        self._process = None
        self._crashes += 1
        printed = "\n".join(process.last_lines)
        logger.error("%s: its process %s. It printed last:\n%s", self.ref, happened, printed)
        if self._crashes < MAX_CRASHES:
            return ModelFailed(
                f"The process of {self.ref} {happened}.",
                "The next call starts it again; the server's log has what it printed."
                f"{more}{self._hint}",
            )
        reason = f"{MAX_CRASHES} crashes in a row, the last: it {happened}."
        self.failure = f"{reason} It printed last:\n{printed}" if printed else reason
        self.error = ModelFailed(
            f"{self.ref} stays failed after {reason}",
            "Fix the model and register it again, or unload the endpoint and load it; the "
            f"server's log has what the model printed.{more}{self._hint}",
        )
        return self.error

    def _raised(self, failed: messages.FailedReply) -> ClewlineError:
        """Make the error again that the model raised in its process."""
        kind: Any = _KNOWN.get(failed.code)
        if kind is not None:
            made: ClewlineError = kind(failed.message, failed.fix)
            return made
        if failed.code == MemoryError.__name__ and self._limits.memory_bytes:
            return ModelFailed(
                f"{self.ref} needs more memory than its limit, {self._memory}.",
                "Send fewer rows in a request, or raise `isolate: {memory: …}` in the endpoint's "
                "file.",
            )
        return ModelFailed(
            f"{self.ref} raised {failed.code}.", f"The server's log has the reason.{self._hint}"
        )

    @property
    def _memory(self) -> str:
        return format_size(self._limits.memory_bytes or 0)

    @property
    def _hint(self) -> str:
        """A process that gets no more memory may end in any way."""
        return f" Its limit on memory is {self._memory}." if self._limits.memory_bytes else ""


class IsolatedPredictor(IsolatedModel):
    """A model in a process of its own, behind the contract of `Predictor`."""

    def predict(self, columns: Columns) -> Outputs:
        """
        Answer rows.

        Raises:
            InvalidInput: The model refuses a row.
            ModelFailed: The model raised, its process ended, or it took too long.
        """
        return messages.read_outputs(self.ask(messages.rows_message(columns)))


class IsolatedTransformer(IsolatedModel):
    """Preprocessing in a process of its own, behind the contract of `Transformer`."""

    def transform(self, columns: Columns) -> Columns:
        """Transform rows; errors as those of `IsolatedPredictor.predict`."""
        return messages.read_columns(self.ask(messages.rows_message(columns)))


_KNOWN: dict[str, type[ClewlineError]] = {
    kind.code: kind for kind in (InvalidInput, IntegrityError, NotFound, NotSupported, ModelFailed)
}
