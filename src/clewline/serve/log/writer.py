"""
The writer of the prediction log: a batch is logged before its answers leave.

There are two ways to log a batch, measured on the event loop's thread (2 cores,
ext4, Adult rows, 470 bytes a row with its answer):

- `write_now` encodes and writes on the calling thread: 6 µs for a batch of one
  row, 17 µs for one of 16. If it returns True the batch survives kill -9. It
  returns False, at once and without writing, if it might have to wait: batches are
  waiting for the writer's thread, or the disk was slow a moment ago.
- `append` passes the batch to the writer's thread: 0.5 µs, but then the thread
  needs the interpreter for the same work, and the answer waits for two changes
  of thread: 75 µs if it is alone, up to the interpreter's switch interval (5 ms)
  if the loop is busy.

So the direct write is the cheaper one, and the thread is for what may wait:

    if durability == "fsync" or not log.write_now(batch):
        log.append(batch, durability, done)
    else:
        answer()

A slow disk stalls the loop for one write, at most once in `SLOW_PAUSE_S`; the
batches in between go through the thread, and their answers wait without it.
"""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import secrets
import threading
import time
import zlib
from collections import deque
from collections.abc import Callable
from pathlib import Path
from queue import SimpleQueue
from typing import Literal, NamedTuple

import msgspec

from clewline.errors import Fault
from clewline.serve.log.frame import COUNTS, HEADER, ID_BYTES, MAGIC, LoggedBatch
from clewline.serve.log.segment import HOUR_MS, Segment, hour_folder, id_entries, key_entries
from clewline.serve.log.segment_index import close_orphans, close_segment
from clewline.store.disk import disk_error, open_error, sync_folder

Durability = Literal["process", "fsync"]
Done = Callable[[BaseException | None], None]

SEGMENT_BYTES = 64 << 20
INDEX_LAG_BYTES = 256 << 10
"""How far the index of an open segment may lag behind its frames; a reader scans that much."""
SLOW_S = 0.01
SLOW_PAUSE_S = 1.0

logger = logging.getLogger(__name__)


class _Waiting(NamedTuple):
    batch: LoggedBatch
    durability: Durability
    done: Done


class LogWriter:
    """
    Writes the prediction log, for one process; several may write side by side.

    Every writer has segments of its own. Any thread may call it. Opening it
    closes the segments that killed writers have left.

    Args:
        log: The folder of the log; created if missing.
        segment_bytes: A segment is closed when it is this large, or its hour is over.
        closed: Takes the frames of each segment that is closed, those of killed writers too.

    Raises:
        StoreReadOnly: The folder cannot be written.
        StoreFull: The disk is full.
        Overloaded: Too many files are open.
    """

    def __init__(
        self,
        log: Path,
        *,
        segment_bytes: int = SEGMENT_BYTES,
        closed: deque[Path] | None = None,
    ) -> None:
        self._log = log
        self._closed_files = deque[Path]() if closed is None else closed
        self._segment_bytes = segment_bytes
        self._segment: _OpenSegment | None = None
        self._retired: deque[_OpenSegment] = deque()
        self._lock = threading.Lock()  # over the open segment
        self._queue: deque[_Waiting] = deque()
        self._signal: SimpleQueue[None] = SimpleQueue()
        self._slow_until = 0.0
        self._closed = False
        try:
            log.mkdir(0o700, parents=True, exist_ok=True)
            if not os.access(log, os.W_OK | os.X_OK):
                raise open_error(log)
            self._closed_files += close_orphans(log)
        except OSError as error:
            raise disk_error(error, log) from error
        self._thread = threading.Thread(target=self._run, name="clewline-log", daemon=True)
        self._thread.start()

    def write_now(self, batch: LoggedBatch) -> bool:
        """
        Write a batch on this thread, if that is sure to be quick.

        Returns:
            True: the batch survives kill -9 from now on. False: nothing was
            done; `append` it.

        Raises:
            StoreFull: The disk is full; nothing of the batch is left in the log.
        """
        start = time.monotonic()
        if self._queue or self._closed or start < self._slow_until:
            return False
        if not self._lock.acquire(blocking=False):
            return False
        try:
            self._write(batch)
        finally:
            self._lock.release()
            if (now := time.monotonic()) - start > SLOW_S:
                self._slow_until = now + SLOW_PAUSE_S
        return True

    def append(self, batch: LoggedBatch, durability: Durability, done: Done) -> None:
        """
        Pass a batch to the writer's thread, and return at once.

        The queue has no bound here: the caller bounds its unanswered requests.

        Args:
            batch: The batch to write.
            durability: "process" survives kill -9; "fsync" survives a power failure,
                by one sync for all batches that wait.
            done: Called on the writer's thread, in the order of the calls with the
                same durability: with None when the batch is durable, else with
                the error, and then nothing of the batch is left in the log.
                Must return quickly and not raise.
        """
        if self._closed:
            raise Fault("The prediction log is closed.", "Open a new LogWriter.")
        self._queue.append(_Waiting(batch, durability, done))
        self._signal.put(None)

    def close(self) -> None:
        """Write what waits, close the segment, stop the thread."""
        if self._closed:
            return
        self._closed = True
        self._signal.put(None)
        self._thread.join()
        while self._queue:  # appended by another thread during the close
            _call(self._queue.popleft().done, Fault("The log was closed.", "Send it again."))

    def __enter__(self) -> LogWriter:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _run(self) -> None:
        while not self._closed or self._queue:
            self._signal.get()
            while not self._signal.empty():
                self._signal.get()
            try:
                self._write_group([self._queue.popleft() for _ in range(len(self._queue))])
                self._close_retired()
            except Exception:
                logger.exception("the writer of the prediction log failed unexpectedly")
        with self._lock:
            self._retire()
        self._close_retired()

    def _write_group(self, group: list[_Waiting]) -> None:
        unsynced: list[tuple[_Waiting, _OpenSegment]] = []
        for item in group:
            failure, segment = None, None
            try:
                with self._lock:
                    segment = self._write(item.batch)
            except BaseException as error:
                failure = error
            if segment is not None and item.durability == "fsync":
                unsynced.append((item, segment))
            else:
                _call(item.done, failure)
        failures: dict[_OpenSegment, BaseException] = {}
        for segment in {segment for _, segment in unsynced}:
            try:
                segment.sync()
            except OSError as error:
                with self._lock:
                    self._retire()  # after a failed sync the kernel may have dropped its pages
                failures[segment] = disk_error(error, segment.paths.frames)
        for item, segment in unsynced:
            _call(item.done, failures.get(segment))

    def _write(self, batch: LoggedBatch) -> _OpenSegment:
        data = encode_frame(batch)
        hour = int.from_bytes(batch.ids[:6], "big") // HOUR_MS
        try:
            segment = self._segment
            if segment is None or not segment.takes(hour, len(data), self._segment_bytes):
                self._retire()
                segment = self._segment = _OpenSegment(self._log, hour)
            segment.append(batch, data)
        except OSError as error:
            if self._segment is not None and not self._segment.healthy:
                self._retire()
            raise disk_error(error, self._log) from error
        return segment

    def _retire(self) -> None:
        if self._segment is not None:
            self._retired.append(self._segment)
            self._segment = None
            self._signal.put(None)

    def _close_retired(self) -> None:
        while self._retired:
            segment = self._retired.popleft()
            if segment.close():
                self._closed_files.append(segment.paths.frames)


class _OpenSegment:
    """The segment that is being written. It is locked, so that others know it is alive."""

    def __init__(self, log: Path, hour: int) -> None:
        folder = hour_folder(log, hour)
        folder.mkdir(0o700, parents=True, exist_ok=True)
        stem = f"{time.time_ns() // 1_000_000:012x}-{secrets.token_hex(4)}"
        self.paths = Segment(folder / f"{stem}.frames")
        self.hour = hour
        self.size = 0
        self.healthy = True
        self._indexed_to = 0
        self._unindexed: list[tuple[LoggedBatch, int]] = []  # with their offsets
        self._synced_folder = False
        # Locked before it has its name: a writer that starts now must not take it for an orphan.
        unnamed = self.paths.frames.with_suffix(".new")
        self._file = _open_to_append(unnamed, os.O_EXCL)
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            unnamed.rename(self.paths.frames)
        except OSError:
            os.close(self._file)
            raise

    def takes(self, hour: int, size: int, most: int) -> bool:
        """Return whether a frame of that hour and size belongs here."""
        # One of the hour before does: a batch that took long must not close the
        # segment of the new hour. Readers look one hour to either side.
        fits = self.size == 0 or self.size + size <= most
        return fits and self.hour - 1 <= hour <= self.hour

    def append(self, batch: LoggedBatch, data: bytearray) -> None:
        """Write a frame whole, or leave nothing of it."""
        try:
            written = os.write(self._file, data)
            while written < len(data):  # a signal, or the last bytes of a disk
                written += os.write(self._file, memoryview(data)[written:])
        except OSError as error:
            self.healthy = error.errno in (errno.ENOSPC, errno.EDQUOT)
            try:
                os.ftruncate(self._file, self.size)
            except OSError:
                # The torn tail stays: readers skip it, and the next frame goes elsewhere.
                self.healthy = False
            raise
        self._unindexed.append((batch, self.size))
        self.size += len(data)
        if self.size - self._indexed_to > INDEX_LAG_BYTES:
            self._write_entries()

    def sync(self) -> None:
        """Make everything written so far durable, and the names of its files."""
        os.fdatasync(self._file)
        if not self._synced_folder:
            sync_folder(self.paths.frames.parent)
            sync_folder(self.paths.frames.parent.parent)
            self._synced_folder = True

    def close(self) -> bool:
        """Write its sorted index, and unlock it; False if that must wait for the next start."""
        self._write_entries()
        try:
            close_segment(self.paths)
        except OSError as error:
            logger.warning("%s stays unclosed until the next start: %s", self.paths.frames, error)
            return False
        finally:
            os.close(self._file)
        return True

    def _write_entries(self) -> None:
        """Bring the files beside the frames up to date: keys first, as the ids say how far."""
        ids = [entry for batch, at in self._unindexed for entry in id_entries(batch.ids, at)]
        keys = [entry for batch, at in self._unindexed for entry in key_entries(batch, at)]
        try:
            _append(self.paths.keys, b"".join(keys))
            _append(self.paths.ids, b"".join(ids))
        except OSError as error:
            # The frames are safe, and readers scan them for the rest.
            logger.warning("%s lags behind: %s", self.paths.ids, error)
        else:
            self._unindexed.clear()
        self._indexed_to = self.size


def _append(path: Path, data: bytes) -> None:
    """Append to a file of entries; a failure leaves it as it was, or with a part of an entry."""
    if not data:
        return
    file = _open_to_append(path)
    try:
        size = os.fstat(file).st_size
        if os.write(file, data) != len(data):
            os.ftruncate(file, size)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    finally:
        os.close(file)


def _open_to_append(path: Path, flags: int = 0) -> int:
    return os.open(path, flags | os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)


def _call(done: Done, failure: BaseException | None) -> None:
    try:
        done(failure)
    except Exception:
        logger.exception("the callback of a logged batch failed")


_encoder = msgspec.msgpack.Encoder()


def encode_frame(batch: LoggedBatch) -> bytearray:
    """Encode a batch with its header, ready to be appended to a segment."""
    count = len(batch.answers)
    assert len(batch.ids) == ID_BYTES * count, "one id and one answer a row"
    # Without a graph, the fields that only graphs have take no byte.
    graph = batch.packages, batch.paths, batch.path_of_row, batch.checksums
    plain = batch.ids, batch.endpoint, batch.revision, batch.model, batch.package, batch.time
    fields = (*plain, batch.requests, batch.answers, batch.path)
    data = bytearray(HEADER.size)
    _encoder.encode_into((*fields, *graph) if batch.paths else fields, data, HEADER.size)
    length = len(data) - HEADER.size
    keyed = sum([request.idempotency_key is not None for request in batch.requests])
    with memoryview(data) as view:
        checksum = zlib.crc32(view[HEADER.size :], zlib.crc32(COUNTS.pack(length, count, keyed)))
    HEADER.pack_into(data, 0, MAGIC, length, count, keyed, checksum)
    return data
