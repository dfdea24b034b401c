"""One run of the process that an isolated model lives in."""

from __future__ import annotations

import io
import os
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

from clewline.flow.code.origin import CLEWLINE, of_file
from clewline.flow.environment import THREAD_VARIABLES
from clewline.model.isolation import messages
from clewline.model.isolation.output_log import OutputLog
from clewline.model.runtime.private_folder import PrivateFolder

KEPT_VARIABLES = ("PATH", "LD_LIBRARY_PATH", "TZ", *THREAD_VARIABLES)
"""Variables of the server that a model sees; it sees no others, so none of its secrets."""

ANSWER_BYTES = 1 << 30
"""Longest answer that the server takes from a model."""

_START = (
    "import sys; sys.path += [p for p in sys.argv[4:] if p not in sys.path]; "
    "channel, lifeline, memory = map(int, sys.argv[1:4]); "
    "from clewline.model.isolation.subreaper import fork_below; fork_below(lifeline); "
    "from clewline.model.isolation.child import main; main(channel, memory)"
)


class ModelProcess:
    """
    A process that loads one model and answers; not for several threads at once.

    Args:
        ref: `name@number`, for the log.
        memory_bytes: Limit on its memory; 0 for none.
    """

    def __init__(self, ref: str, memory_bytes: int = 0) -> None:
        self._number = 0  # of the last question
        self._folder = PrivateFolder()
        ours, theirs = socket.socketpair()
        self._channel = messages.Channel(ours, most_bytes=ANSWER_BYTES, checks_sender=True)
        lifeline, held = os.pipe()
        self._lifeline = io.FileIO(held, "w")
        try:
            self._subreaper = _start_python(
                [theirs.fileno(), lifeline], memory_bytes, self._folder.path
            )
        except BaseException:
            self._let_go()
            raise
        finally:
            theirs.close()
            os.close(lifeline)
        assert self._subreaper.stdout is not None
        self._output = OutputLog(ref, self._subreaper.stdout)
        self._reader = threading.Thread(target=self._output.run, name=f"log of {ref}", daemon=True)
        self._reader.start()

    @property
    def pid(self) -> int | None:
        """Id of the model's process; None until it has answered once."""
        return self._channel.sender

    @property
    def last_lines(self) -> list[str]:
        """The last lines that it printed."""
        return list(self._output.last_lines)

    @property
    def rss_bytes(self) -> int:
        """Memory that the process holds; 0 where the system does not say."""
        try:
            pages = Path(f"/proc/{self.pid}/statm").read_text().split()[1]
        except (OSError, IndexError):
            return 0
        return int(pages) * os.sysconf("SC_PAGE_SIZE")

    def ask(self, question: messages.Message, until: float) -> messages.Message:
        """
        Send a message and wait for its answer.

        Raises:
            ProcessGone: The process ended.
            WrongMessage: What came is not the answer of this process to this question.
            TimeoutError: It did not answer by `until`, of `time.monotonic`.
        """
        self._number += 1
        self._channel.send(question, self._number, until=until)
        number, answer = self._channel.receive(until=until)
        if number != self._number:
            raise messages.WrongMessage(f"question {number} was answered, not {self._number}")
        return answer

    def kill(self) -> None:
        """End the process and all that it started now, from any thread."""
        self._lifeline.close()  # which the subreaper notices

    def end(self) -> str:
        """
        End the process and forget all of it; return how it had ended.

        Returns:
            The name of a signal (`SIGSEGV`), or `exited with status 1`.
        """
        self._channel.close()
        try:
            status = self._subreaper.wait(timeout=1.0)  # it ends by itself when nobody is there
        except subprocess.TimeoutExpired:
            self.kill()
            try:
                status = self._subreaper.wait(timeout=10.0)
            except subprocess.TimeoutExpired:  # it was stopped
                self._subreaper.kill()
                status = self._subreaper.wait()
        self._reader.join(timeout=1.0)
        self._let_go()
        return signal.Signals(-status).name if status < 0 else f"exited with status {status}"

    def _let_go(self) -> None:
        self._channel.close()
        self._lifeline.close()
        self._folder.close()


def _start_python(
    descriptors: list[int], memory_bytes: int, folder: Path
) -> subprocess.Popen[bytes]:
    """Start Python without the server's environment, folder, path or other descriptors."""
    home = str(folder)
    kept = {name: os.environ[name] for name in KEPT_VARIABLES if name in os.environ}
    numbers = map(str, [*descriptors, memory_bytes])
    return subprocess.Popen(
        [sys.executable, "-I", "-u", "-c", _START, *numbers, *library_folders()],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        pass_fds=descriptors,
        cwd=folder,
        env=kept | {"HOME": home, "TMPDIR": home, "LANG": "C.UTF-8"},
        start_new_session=True,  # a Ctrl-C at the server's terminal is the server's
    )


def library_folders() -> list[str]:
    """Return the folders of installed libraries on this process's path, and that of clewline."""
    installed = [
        folder
        for folder in filter(os.path.isdir, filter(None, sys.path))
        if of_file(os.path.join(folder, "x.py")) in ("package", "python")
    ]
    return [*installed, str(Path(CLEWLINE).parent)]
