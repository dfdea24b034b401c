"""
The writer of the prediction log: a frame is on its way before its answers are.

Two ways to hand a frame over, measured on the event loop's thread (2 cores,
ext4, Adult rows, 470 bytes a row with its answer):

- `write_now` packs and writes on the calling thread: 6 µs for a batch of one
  row, 17 µs for one of 16. When it returns True the frame survives kill -9. It
  returns False, at once and without writing, when it might wait: frames are
  waiting for the writer's thread, or the disk was slow a moment ago.
- `append` hands the frame to the writer's thread: 0.5 µs, but then the thread
  needs the interpreter for the same work, and the answer waits for two changes
  of thread: 75 µs when one request is under way, up to the interpreter's switch
  interval (5 ms) when the loop is busy.

So the direct write is the cheaper one, and the thread is for what may wait:

    if durability == "fsync" or not log.write_now(frame):
        log.append(frame, durability, done)
    else:
        answer()

A slow disk stalls the loop for one write, at most once in `SLOW_PAUSE_S`; the
frames in between go through the thread, and their answers wait without it.
"""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import secrets
import threading
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from queue import SimpleQueue
from typing import Literal, NamedTuple

from clewline.errors import Fault, StoreFull, StoreReadOnly
from clewline.serve.log.closing import close_orphans, close_segment
from clewline.serve.log.frame import ID_BYTES, LoggedBatch, LoggedRequest, encode_frame, key_hash
from clewline.serve.log.segment import ENTRY, Segment, hour_folder, hour_of
from clewline.store.disk import sync_folder

__all__ = ["Durability", "LogWriter", "LoggedBatch", "LoggedRequest", "key_hash"]

Durability = Literal["process", "fsync"]
Done = Callable[[BaseException | None], None]

SEGMENT_BYTES = 64 << 20
UNMARKED_BYTES = 256 << 10
"""How far the index of an open segment may lag behind its frames; a reader walks that much."""
SLOW_S = 0.01
SLOW_PAUSE_S = 1.0

_FULL = (errno.ENOSPC, errno.EDQUOT)
_READ_ONLY = (errno.EROFS, errno.EACCES, errno.EPERM)

logger = logging.getLogger(__name__)


class _Waiting(NamedTuple):
    frame: LoggedBatch
    durability: Durability
    done: Done


class LogWriter:
    """
    Writes the prediction log, for one process; several may write side by side.

    Every writer has segments of its own. Any thread may call it. Opening it
    closes what killed writers have left behind.

    Args:
        log: The folder of the log; made when missing.
        segment_bytes: A segment is closed when it is this large, or its hour is over.

    Raises:
        StoreReadOnly: The folder cannot be written.
        StoreFull: The disk is full.
    """

    def __init__(self, log: Path, *, segment_bytes: int = SEGMENT_BYTES) -> None:
        self._log = log
        self._segment_bytes = segment_bytes
        self._segment: _OpenSegment | None = None
        self._retired: deque[_OpenSegment] = deque()
        self._lock = threading.Lock()  # over the open segment
        self._queue: deque[_Waiting] = deque()
        self._signal: SimpleQueue[None] = SimpleQueue()
        self._slow_until = 0.0
        self._closed = False
        _prepare(log)
        _recover(log)
        self._thread = threading.Thread(target=self._run, name="clewline-log", daemon=True)
        self._thread.start()

    def write_now(self, frame: LoggedBatch) -> bool:
        """
        Write a frame on this thread, if that is sure to be quick.

        Returns:
            True: the frame survives kill -9 from now on. False: nothing was
            done; `append` it.

        Raises:
            StoreFull: The disk is full; nothing of the frame is left in the log.
        """
        start = time.monotonic()
        if self._queue or self._closed or start < self._slow_until:
            return False
        if not self._lock.acquire(blocking=False):
            return False
        try:
            self._write(frame)
        finally:
            self._lock.release()
            if (now := time.monotonic()) - start > SLOW_S:
                self._slow_until = now + SLOW_PAUSE_S
        return True

    def append(self, frame: LoggedBatch, durability: Durability, done: Done) -> None:
        """
        Hand a frame to the writer's thread, and return at once.

        What waits is not bounded here: the caller bounds what it leaves unanswered.

        Args:
            frame: What to write.
            durability: "process" survives kill -9 of ours; "fsync" survives the
                machine, by one sync for all that wait.
            done: Called on the writer's thread, in the order of the calls with the
                same durability: with None when the frame is durable, else with
                what went wrong, and then nothing of the frame is left in the log.
                Must return quickly and not raise.
        """
        if self._closed:
            raise Fault("The prediction log is closed.", "Open a new LogWriter.")
        self._queue.append(_Waiting(frame, durability, done))
        self._signal.put(None)

    def close(self) -> None:
        """Write what waits, close the segment, stop the thread."""
        if self._closed:
            return
        self._closed = True
        self._signal.put(None)
        self._thread.join()
        while self._queue:  # handed over by another thread during the close
            _tell(self._queue.popleft().done, Fault("The log was closed.", "Send it again."))

    def __enter__(self) -> LogWriter:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _run(self) -> None:
        while not self._closed or self._queue:
            self._wait()
            try:
                self._write_group([self._queue.popleft() for _ in range(len(self._queue))])
                self._close_retired()
            except Exception:
                logger.exception("the writer of the prediction log met what it does not know")
        with self._lock:
            self._retire()
        self._close_retired()

    def _wait(self) -> None:
        self._signal.get()
        while not self._signal.empty():
            self._signal.get()

    def _write_group(self, group: list[_Waiting]) -> None:
        unsynced: list[tuple[_Waiting, _OpenSegment]] = []
        for item in group:
            failure, segment = self._try_to_write(item.frame)
            if segment is not None and item.durability == "fsync":
                unsynced.append((item, segment))
            else:
                _tell(item.done, failure)
        failures = {segment: self._try_to_sync(segment) for segment in {s for _, s in unsynced}}
        for item, segment in unsynced:
            _tell(item.done, failures[segment])

    def _try_to_write(self, frame: LoggedBatch) -> tuple[BaseException | None, _OpenSegment | None]:
        with self._lock:
            try:
                return None, self._write(frame)
            except BaseException as error:
                return error, None

    def _try_to_sync(self, segment: _OpenSegment) -> BaseException | None:
        try:
            segment.sync()
        except OSError as error:
            with self._lock:
                self._retire()  # after a failed sync the kernel may have dropped its pages
            return _explained(error, segment.paths.frames)
        return None

    def _write(self, frame: LoggedBatch) -> _OpenSegment:
        data = encode_frame(frame)
        path = self._log
        try:
            segment = self._segment_for(hour_of(frame.ids), len(data))
            path = segment.paths.frames
            segment.append(frame, data)
        except OSError as error:
            if self._segment is not None and not self._segment.healthy:
                self._retire()
            raise _explained(error, path) from error
        return segment

    def _segment_for(self, hour: int, size: int) -> _OpenSegment:
        segment = self._segment
        if segment is not None and segment.takes(hour, size, self._segment_bytes):
            return segment
        self._retire()
        self._segment = _OpenSegment(self._log, hour)
        return self._segment

    def _retire(self) -> None:
        if self._segment is not None:
            self._retired.append(self._segment)
            self._segment = None
            self._signal.put(None)

    def _close_retired(self) -> None:
        while self._retired:
            self._retired.popleft().close()


class _OpenSegment:
    """The segment that is being written. Held by `flock`, so that others know it is alive."""

    def __init__(self, log: Path, hour: int) -> None:
        folder = hour_folder(log, hour)
        folder.mkdir(parents=True, exist_ok=True)
        stem = f"{time.time_ns() // 1_000_000:012x}-{secrets.token_hex(4)}"
        self.paths = Segment(folder / f"{stem}.frames", None, 0, 0)
        self.hour = hour
        self.size = 0
        self.healthy = True
        self._marked_to = 0
        self._marks: list[bytes] = []
        self._keys: list[bytes] = []
        self._synced_folder = False
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC
        self._file = os.open(self.paths.frames, flags, 0o644)
        fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def takes(self, hour: int, size: int, most: int) -> bool:
        """Tell whether a frame of that hour and size belongs here."""
        # One of the hour before does: a batch that took long must not close the
        # segment of the new hour. Readers look one hour to either side.
        fits = self.size == 0 or self.size + size <= most
        return fits and self.hour - 1 <= hour <= self.hour

    def append(self, frame: LoggedBatch, data: bytearray) -> None:
        """Write a frame whole, or leave nothing of it."""
        try:
            written = os.write(self._file, data)
            while written < len(data):  # a signal, or the last bytes of a disk
                written += os.write(self._file, memoryview(data)[written:])
        except OSError as error:
            self._take_back(error)
            raise
        self._marks += _id_marks(frame.ids, self.size)
        self._keys += _key_marks(frame, self.size)
        self.size += len(data)
        if self.size - self._marked_to > UNMARKED_BYTES:
            self._mark()

    def sync(self) -> None:
        """Carry everything written so far to the disk, and the names of its files."""
        os.fdatasync(self._file)
        if not self._synced_folder:
            sync_folder(self.paths.frames.parent)
            sync_folder(self.paths.frames.parent.parent)
            self._synced_folder = True

    def close(self) -> None:
        """Write its sorted index and let go of it."""
        self._mark()
        try:
            close_segment(self.paths)
        except OSError as error:
            logger.warning("%s stays unclosed until the next start: %s", self.paths.frames, error)
        os.close(self._file)

    def _mark(self) -> None:
        """Bring the indexes beside the frames up to date; keys first, as the ids say how far."""
        try:
            _add(self.paths.keys, b"".join(self._keys))
            _add(self.paths.ids, b"".join(self._marks))
        except OSError as error:
            # The frames are safe, and readers walk them where the index is silent.
            logger.warning("%s lags behind: %s", self.paths.ids, error)
        else:
            self._keys, self._marks = [], []
        self._marked_to = self.size

    def _take_back(self, error: OSError) -> None:
        self.healthy = error.errno in _FULL
        try:
            os.ftruncate(self._file, self.size)
        except OSError:
            # The torn tail stays: readers skip it, and the next frame goes elsewhere.
            self.healthy = False


def _id_marks(ids: bytes, offset: int) -> list[bytes]:
    rows = range(len(ids) // ID_BYTES)
    return [ENTRY.pack(ids[r * ID_BYTES : (r + 1) * ID_BYTES], offset, r) for r in rows]


def _key_marks(frame: LoggedBatch, offset: int) -> list[bytes]:
    return [
        ENTRY.pack(key_hash(frame.endpoint, part.idempotency_key), offset, index)
        for index, part in enumerate(frame.parts)
        if part.idempotency_key is not None
    ]


def _add(path: Path, data: bytes) -> None:
    """Append to an index; a failure leaves it as it was, or with a tail that readers ignore."""
    if not data:
        return
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
    try:
        size = os.fstat(file).st_size
        if os.write(file, data) != len(data):
            os.ftruncate(file, size)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    finally:
        os.close(file)


def _tell(done: Done, failure: BaseException | None) -> None:
    try:
        done(failure)
    except Exception:
        logger.exception("what waited for a frame failed when it was told")


def _prepare(log: Path) -> None:
    try:
        log.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _explained(error, log) from error
    if not os.access(log, os.W_OK | os.X_OK):
        raise _explained(OSError(errno.EROFS, os.strerror(errno.EROFS)), log)


def _recover(log: Path) -> None:
    try:
        close_orphans(log)
    except OSError as error:
        raise _explained(error, log) from error


def _explained(error: OSError, path: Path) -> Exception:
    if error.errno in _FULL:
        return StoreFull(
            f"The disk under the prediction log is full ({path}).",
            "Free some space: nothing was answered that is not in the log, "
            "and answers go on as soon as it can be written.",
        )
    if error.errno in _READ_ONLY:
        return StoreReadOnly(
            f"The prediction log {path} cannot be written ({error.strerror}).",
            "Mount it writable, or give this user the right to write there.",
        )
    return Fault(f"The prediction log {path} cannot be written: {error}.", "Check the disk.")
