"""One run of the process that an isolated model lives in."""

from __future__ import annotations

import logging
import os
import signal
import socket
import subprocess
import sys
import threading
from collections import deque
from pathlib import Path
from typing import IO

from clewline.flow.code.origin import CLEWLINE, of_file
from clewline.flow.environment import THREAD_VARIABLES
from clewline.model.isolation import messages
from clewline.model.runtime.private_folder import PrivateFolder

logger = logging.getLogger(__name__)

KEPT_VARIABLES = ("PATH", "LD_LIBRARY_PATH", "TZ", *THREAD_VARIABLES)
"""Variables of the server that a model sees; it sees no others, so none of its secrets."""

LAST_LINES = 20
LONGEST_LINE = 2000  # bytes

_START = (
    "import sys; sys.path += [p for p in sys.argv[3:] if p not in sys.path]; "
    "from clewline.model.isolation.child import main; main(int(sys.argv[1]), int(sys.argv[2]))"
)


class ModelProcess:
    """A process that loads one model and answers; not for several threads at once."""

    def __init__(self, ref: str) -> None:
        self.last_lines: deque[str] = deque(maxlen=LAST_LINES)
        self._ref = ref
        self._folder = PrivateFolder()
        self._channel, theirs = socket.socketpair()
        lifeline, self._lifeline = os.pipe()
        try:
            self._popen = _start_python(theirs.fileno(), lifeline, self._folder.path)
        except BaseException:
            self._let_go()
            raise
        finally:
            theirs.close()
            os.close(lifeline)
        self._printed = threading.Thread(target=self._log, name=f"log of {ref}", daemon=True)
        self._printed.start()

    @property
    def pid(self) -> int:
        """Id of the process."""
        return self._popen.pid

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
            TimeoutError: It did not answer by `until`, of `time.monotonic`.
        """
        messages.send(self._channel, question, until=until)
        return messages.receive(self._channel, until=until)

    def kill(self) -> None:
        """End the process now, from any thread."""
        self._popen.kill()

    def end(self) -> str:
        """
        End the process and forget all of it; says how it had ended.

        Returns:
            The name of a signal (`SIGSEGV`), or `exited with status 1`.
        """
        self._channel.close()
        try:
            status = self._popen.wait(timeout=1.0)  # it ends by itself when nobody is there
        except subprocess.TimeoutExpired:
            self._popen.kill()
            status = self._popen.wait()
        self._printed.join(timeout=1.0)
        self._let_go()
        return signal.Signals(-status).name if status < 0 else f"exited with status {status}"

    def _let_go(self) -> None:
        self._channel.close()
        os.close(self._lifeline)
        self._folder.close()

    def _log(self) -> None:
        """Write what the process prints to the server's log."""
        printed: IO[bytes] | None = self._popen.stdout
        assert printed is not None
        with printed:
            while line := printed.readline(LONGEST_LINE):
                text = line.decode(errors="replace").rstrip()
                self.last_lines.append(text)
                logger.warning("%s: %s", self._ref, text)


def _start_python(channel: int, lifeline: int, folder: Path) -> subprocess.Popen[bytes]:
    """Start Python without the server's environment, folder, path or descriptors."""
    home = str(folder)
    kept = {name: os.environ[name] for name in KEPT_VARIABLES if name in os.environ}
    return subprocess.Popen(
        [sys.executable, "-I", "-u", "-c", _START, str(channel), str(lifeline), *library_folders()],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        pass_fds=(channel, lifeline),
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
