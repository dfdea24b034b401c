"""
Long work that a person starts from a page: it goes on when the page is left, and is found again.

A job is a function on a thread of the console, or a command in a process of its own. It lives as
long as the console runs; what it makes (a run, an explanation) is in the store.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections import deque
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from importlib.metadata import entry_points
from typing import Any, Literal

import msgspec

from clewline import errors
from clewline.errors import ClewlineError, Fault, NotFound, Overloaded
from clewline.project import Project

AT_ONCE = 4
"""Number of jobs that work at the same time; the others wait."""
WAITING = 100
"""Number of jobs that may wait or work."""
KEPT = 500
"""Number of finished jobs that can be found again."""
LINES = 1_000
"""Number of lines of progress that a job keeps, the latest ones."""
LINE_CHARACTERS = 2_000

JobStatus = Literal["waiting", "working", "done", "failed"]


@dataclass(frozen=True, slots=True)
class JobResult:
    """What a job has made: a sentence, and the address of the page that shows it."""

    message: str
    address: str | None = None
    value: Any = None  # for that page


@dataclass(eq=False, slots=True)
class Job:
    """Long work, as far as it is. Any thread may read it."""

    id: str
    title: str
    person: str  # who started it
    key: str | None
    created: float  # seconds since the epoch
    status: JobStatus = "waiting"
    ended: float | None = None
    fraction: float | None = None  # of the work that is done; None while that is not known
    lines: deque[str] = field(default_factory=lambda: deque(maxlen=LINES))
    line_count: int = 0  # of all, those that are no longer kept too
    result: JobResult | None = None
    error: ClewlineError | None = None

    @property
    def address(self) -> str:
        """Where its page is."""
        return f"/jobs/{self.id}"

    @property
    def is_over(self) -> bool:
        """Whether it is done or has failed."""
        return self.status in ("done", "failed")


class JobProgress:
    """How a job says how far it is."""

    def __init__(self, job: Job, children: set[subprocess.Popen[bytes]]) -> None:
        self._job = job
        self.children = children  # processes that end with the console

    def line(self, text: str) -> None:
        """Add a line to the progress."""
        self._job.lines.append(text[:LINE_CHARACTERS])
        self._job.line_count += 1

    def fraction(self, done: float) -> None:
        """Say which share of the work is done, from 0 to 1."""
        self._job.fraction = min(max(done, 0.0), 1.0)


JobWork = Callable[[JobProgress], JobResult]


class Jobs:
    """The jobs of a console. Any thread may use them."""

    def __init__(self) -> None:
        self._jobs: dict[str, Job] = {}  # the oldest first
        self._lock = threading.Lock()
        self._places = threading.BoundedSemaphore(AT_ONCE)
        self._children: set[subprocess.Popen[bytes]] = set()

    def start(self, title: str, work: JobWork, *, person: str, key: str | None = None) -> Job:
        """
        Start a job, and return at once.

        Args:
            title: What is done, such as “Replay prediction 0199…”.
            work: Called on a thread of its own.
            person: The name of who starts it.
            key: While a job with the same key works, that one is returned: two clicks are one.

        Raises:
            Overloaded: Too many jobs wait.
        """
        with self._lock:
            alive = [job for job in self._jobs.values() if not job.is_over]
            for job in alive:
                if key is not None and job.key == key:
                    return job
            if len(alive) >= WAITING:
                raise Overloaded(
                    f"{len(alive)} jobs wait already.", "Try again when some are done."
                )
            over = [job for job in self._jobs.values() if job.is_over]
            for job in over[: max(0, len(over) - KEPT)]:
                del self._jobs[job.id]
            job = Job(uuid.uuid4().hex[:12], title, person, key, time.time())
            self._jobs[job.id] = job
        threading.Thread(target=self._run, args=(job, work), name="job", daemon=True).start()
        return job

    def get(self, identifier: str) -> Job:
        """
        Return a job by its id.

        Raises:
            NotFound: There is none; the console may have started anew.
        """
        with self._lock:
            job = self._jobs.get(identifier)
        if job is None:
            raise NotFound(
                f"There is no job {identifier!r}.",
                "Jobs are forgotten when the console starts anew; what they made is in the store.",
            )
        return job

    def all(self) -> list[Job]:
        """Return all jobs, the newest first."""
        with self._lock:
            return list(reversed(self._jobs.values()))

    def close(self) -> None:
        """End the processes of jobs."""
        for child in list(self._children):
            with suppress(ProcessLookupError):
                child.send_signal(
                    signal.SIGINT
                )  # as Ctrl-C, so that a run is recorded as interrupted

    def _run(self, job: Job, work: JobWork) -> None:
        with self._places:
            job.status = "working"
            try:
                job.result = work(JobProgress(job, self._children))
            except ClewlineError as error:
                job.error = error
            except Exception as error:
                job.error = Fault(
                    f"{type(error).__name__}: {error}", "This is a fault of clewline; report it."
                )
            job.ended = time.time()
            job.status = "done" if job.error is None else "failed"


def command_work(
    project: Project,
    words: Sequence[str],
    result: Callable[[bytes], JobResult],
    *,
    answers: Collection[int] = (0,),
) -> JobWork:
    """
    Make the work that calls a command of clewline in a process of its own.

    What it prints for people is the progress; its JSON gives the result.

    Args:
        project: The project that the command is called in.
        words: Such as `["run", "tumours", "trees=200"]`.
        result: Makes the result of the JSON that the command prints.
        answers: Exit statuses with which it has answered; 1 says no, as a replay that differs.
    """

    def work(progress: JobProgress) -> JobResult:
        (script,) = entry_points(group="console_scripts", name="clewline")
        # -P: a module in the project's folder must not be imported in place of ours.
        command = [sys.executable, "-P", "-m", script.module, "--json", *words]
        with (
            tempfile.TemporaryFile() as printed,
            subprocess.Popen(
                command,
                cwd=project.root,
                env={**os.environ, "CLEWLINE_PROJECT": str(project.root)},
                stdin=subprocess.DEVNULL,
                stdout=printed,
                stderr=subprocess.PIPE,
                process_group=0,
            ) as process,
        ):
            progress.children.add(process)
            try:
                last = ""
                for line in process.stderr or ():
                    last = line.decode("utf-8", "replace").rstrip("\n")
                    if not last.startswith('{"error":'):  # shown as the job's error
                        progress.line(last)
                status = process.wait()
            finally:
                progress.children.discard(process)
            if status not in answers:
                raise _command_error(last, status)
            printed.seek(0)
            return result(printed.read())

    return work


def _command_error(last: str, status: int) -> ClewlineError:
    """Return the error that a command has printed as its last line."""
    try:
        said = msgspec.json.decode(last, type=dict[str, dict[str, object]])["error"]
        message, code, fix = str(said["message"]), str(said["code"]), said.get("fix")
    except (msgspec.MsgspecError, KeyError):
        how = f"was ended by signal {-status}" if status < 0 else f"ended with status {status}"
        return Fault(f"The command {how}. {last}".strip(), "Call it on the command line.")
    kinds = [each for each in vars(errors).values() if isinstance(each, type)]
    kind = next(
        (each for each in kinds if issubclass(each, ClewlineError) and each.code == code),
        ClewlineError,
    )
    try:
        return kind(message, None if fix is None else str(fix))
    except TypeError:  # it takes more than a message
        return ClewlineError(message, None if fix is None else str(fix))
