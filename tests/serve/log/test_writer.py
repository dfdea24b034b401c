"""The promises of the prediction log, on real files."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support import PATIENCE_S, forbidden, no_more_files, start_process, tmpfs

from clewline.errors import Fault, IntegrityError, NotFound, Overloaded, StoreFull, StoreReadOnly
from clewline.serve.log.frame import LoggedBatch, LoggedRequest, key_hash
from clewline.serve.log.reader import (
    find_prediction,
    get_prediction,
    latest_predictions,
    logged_keys,
    read_batch,
)
from clewline.serve.log.segment import HOUR_MS, hours, segments
from clewline.serve.log.segment_index import close_orphans
from clewline.serve.log.writer import LogWriter
from clewline.store.ids import id_text, prediction_id

MakeFrame = Callable[..., LoggedBatch]


def write(log: LogWriter, frame: LoggedBatch, durability: str = "process") -> BaseException | None:
    """Append a frame and wait for what became of it."""
    told = threading.Event()
    outcome: list[BaseException | None] = []
    log.append(frame, durability, lambda failure: (outcome.append(failure), told.set()))  # type: ignore[arg-type,func-returns-value]
    assert told.wait(PATIENCE_S)
    return outcome[0]


def texts(frame: LoggedBatch) -> list[str]:
    return [id_text(frame.ids[i : i + 16]) for i in range(0, len(frame.ids), 16)]


def at_hour(hour: int, count: int) -> bytes:
    """Ids as an hour's clock would make them."""
    return b"".join((hour * HOUR_MS + i).to_bytes(6, "big") + os.urandom(10) for i in range(count))


def only_segment(log: Path) -> Path:
    (found,) = (s.frames for hour in hours(log) for s in segments(log, hour))
    return found


@pytest.mark.parametrize("durability", ["process", "fsync"])
def test_a_reader_finds_what_is_logged_while_the_writer_goes_on(
    tmp_path: Path, frame: MakeFrame, durability: str
) -> None:
    batch = frame(40)
    with LogWriter(tmp_path) as log:
        assert write(log, batch, durability) is None
        for row, identifier in enumerate(texts(batch)):
            found = get_prediction(tmp_path, identifier)
            assert found.batch == batch
            assert (found.row, found.answer) == (row, batch.answers[row])
            assert bytes(found.input) == batch.requests[row].body
            assert found.entity == f"c-{row}"


def test_a_direct_write_is_found_at_once(tmp_path: Path, frame: MakeFrame) -> None:
    with LogWriter(tmp_path) as log:
        batch = frame(3)
        assert log.write_now(batch)
        assert find_prediction(tmp_path, texts(batch)[2]) is not None


def test_an_id_that_was_never_logged_is_not_found(tmp_path: Path, frame: MakeFrame) -> None:
    with LogWriter(tmp_path) as log:
        write(log, frame(2))
        assert find_prediction(tmp_path, prediction_id()) is None
    assert find_prediction(tmp_path, prediction_id()) is None
    with pytest.raises(NotFound):
        get_prediction(tmp_path, prediction_id())
    with pytest.raises(NotFound):
        get_prediction(tmp_path, "not-an-id")


def test_a_missing_log_is_empty(tmp_path: Path) -> None:
    assert find_prediction(tmp_path / "none", prediction_id()) is None
    assert latest_predictions(tmp_path / "none").items == []


def test_every_prediction_is_found_across_many_closed_and_open_segments(
    tmp_path: Path, frame: MakeFrame
) -> None:
    batches = [frame(n % 7 + 1, padding="x" * 500) for n in range(300)]
    with LogWriter(tmp_path, segment_bytes=60_000) as log:
        for batch in batches:
            write(log, batch)
        assert all(find_prediction(tmp_path, i) for batch in batches for i in texts(batch))
    assert all(find_prediction(tmp_path, i) for batch in batches for i in texts(batch))
    found = [s for hour in hours(tmp_path) for s in segments(tmp_path, hour)]
    assert len(found) > 5
    assert all(segment.index for segment in found)


def test_frames_are_found_while_the_index_of_the_open_segment_lags(
    tmp_path: Path, frame: MakeFrame
) -> None:
    batches = [frame(5, padding="x" * 2_000) for _ in range(60)]  # 600 kB: marked in part
    log = LogWriter(tmp_path)
    for batch in batches:
        write(log, batch)
    path = only_segment(tmp_path)
    assert 0 < path.with_suffix(".ids").stat().st_size < 60 * 5 * 24
    assert all(find_prediction(tmp_path, i) for batch in batches for i in texts(batch))
    log.close()


def test_frames_whose_ids_do_not_ascend_are_found_after_closing(
    tmp_path: Path, frame: MakeFrame
) -> None:
    batches = [frame(4) for _ in range(50)]
    with LogWriter(tmp_path) as log:
        for batch in reversed(batches):
            write(log, batch)
    assert all(find_prediction(tmp_path, i) for batch in batches for i in texts(batch))


def test_ids_are_found_when_the_clock_steps_forward_and_back(
    tmp_path: Path, frame: MakeFrame
) -> None:
    hour = 490_000
    steps = [hour, hour + 1, hour, hour - 5, hour + 3, hour + 2, hour, hour - 2]
    batches = [frame(3, ids=at_hour(step, 3)) for step in steps]
    straddling = frame(2, ids=at_hour(hour + 7, 1) + at_hour(hour + 8, 1))
    with LogWriter(tmp_path) as log:
        for batch in [*batches, straddling]:
            write(log, batch)
    assert all(
        find_prediction(tmp_path, i) for batch in [*batches, straddling] for i in texts(batch)
    )


def test_two_writers_side_by_side_lose_nothing(tmp_path: Path, frame: MakeFrame) -> None:
    batches: list[LoggedBatch] = []

    def work() -> None:
        with LogWriter(tmp_path, segment_bytes=50_000) as log:
            mine = [frame(3, padding="x" * 300) for _ in range(100)]
            assert [write(log, batch) for batch in mine] == [None] * 100
            batches.extend(mine)

    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(find_prediction(tmp_path, i) for batch in batches for i in texts(batch))


def test_pages_return_every_prediction_once_newest_first(tmp_path: Path, frame: MakeFrame) -> None:
    hour = 490_000
    batches = [frame(3, ids=at_hour(hour + n // 20, 3), endpoint="ab"[n % 2]) for n in range(100)]
    with LogWriter(tmp_path, segment_bytes=3_000) as log:
        for batch in batches:
            write(log, batch)
    expected = sorted((i for batch in batches for i in texts(batch)), reverse=True)
    assert list(paged(tmp_path, 17)) == expected
    mine = {i for batch in batches if batch.endpoint == "a" for i in texts(batch)}
    assert list(paged(tmp_path, 7, endpoint="a")) == [i for i in expected if i in mine]


def paged(log: Path, limit: int, endpoint: str | None = None) -> Iterator[str]:
    before = None
    while True:
        page = latest_predictions(log, limit=limit, before=before, endpoint=endpoint, look_at=50)
        yield from (item.id for item in page.items)
        before = page.next
        if before is None:
            return


def test_a_torn_tail_hides_nothing_before_it(tmp_path: Path, frame: MakeFrame) -> None:
    batches = [frame(2) for _ in range(5)]
    with LogWriter(tmp_path) as log:
        for batch in batches:
            write(log, batch)
    path = only_segment(tmp_path)
    next(path.parent.glob("*.index")).unlink()
    whole = path.read_bytes()
    for cut in range(1, len(whole) // 5, 17):
        path.write_bytes(whole[:-cut])
        assert all(find_prediction(tmp_path, i) for batch in batches[:-1] for i in texts(batch))
        assert find_prediction(tmp_path, texts(batches[-1])[0]) is None
    close_orphans(tmp_path)
    assert all(find_prediction(tmp_path, i) for batch in batches[:-1] for i in texts(batch))


@pytest.mark.parametrize("is_closed", [True, False])
def test_a_flipped_byte_is_noticed_and_the_other_frames_are_found(
    tmp_path: Path, frame: MakeFrame, is_closed: bool
) -> None:
    batches = [frame(2) for _ in range(3)]
    with LogWriter(tmp_path) as log:
        for batch in batches:
            write(log, batch)
    path = only_segment(tmp_path)
    if not is_closed:
        next(path.parent.glob("*.index")).unlink()
    good = path.read_bytes()
    size = len(good) // 3
    for at in range(size, 2 * size, 29):
        path.write_bytes(good[:at] + bytes([good[at] ^ 0x10]) + good[at + 1 :])
        for batch in (batches[0], batches[2]):
            assert get_prediction(tmp_path, texts(batch)[1]).batch == batch
        if is_closed:
            with pytest.raises(IntegrityError, match="checksum"):
                find_prediction(tmp_path, texts(batches[1])[0])
        else:
            assert find_prediction(tmp_path, texts(batches[1])[0]) is None


def test_predictions_are_found_in_the_frames_if_the_index_is_damaged(
    tmp_path: Path, frame: MakeFrame
) -> None:
    batch = frame(30)
    with LogWriter(tmp_path) as log:
        write(log, batch)
    index = next(only_segment(tmp_path).parent.glob("*.index"))
    good = index.read_bytes()
    for at in range(0, len(good), 13):
        index.write_bytes(good[:at] + bytes([good[at] ^ 0x40]) + good[at + 1 :])
        assert all(find_prediction(tmp_path, i) for i in texts(batch)), at
    index.write_bytes(b"")
    assert all(find_prediction(tmp_path, i) for i in texts(batch))


def test_a_closed_log_refuses_batches(tmp_path: Path, frame: MakeFrame) -> None:
    log = LogWriter(tmp_path)
    log.close()
    log.close()
    assert log.write_now(frame()) is False
    with pytest.raises(Fault):
        log.append(frame(), "process", lambda _: None)


def test_a_callback_that_fails_does_not_stop_the_log(
    tmp_path: Path, frame: MakeFrame, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(_: BaseException | None) -> None:
        raise ValueError("mine")

    with LogWriter(tmp_path) as log:
        log.append(frame(), "process", broken)
        assert write(log, frame()) is None
    assert "the callback of a logged batch failed" in caplog.text


def test_keys_of_requests_are_found_after_a_restart(tmp_path: Path, frame: MakeFrame) -> None:
    log = LogWriter(tmp_path)
    plain, keyed = frame(300, padding="x" * 1000), frame(2, key="retry-1")
    for batch in (keyed, plain, frame(1, key="retry-2")):
        write(log, batch)
    since = time.time() - 60
    before = logged_keys(tmp_path, since)
    log.close()
    assert logged_keys(tmp_path, since) == before
    assert set(before) == {key_hash("income", "retry-1"), key_hash("income", "retry-2")}
    place = before[key_hash("income", "retry-1")]
    assert (read_batch(place), place.position) == (keyed, 0)
    assert logged_keys(tmp_path, since + 3 * 3600) == {}


def test_each_row_of_a_request_is_found_by_its_id(tmp_path: Path, frame: MakeFrame) -> None:
    parts = [
        LoggedRequest(
            "json", b'{"rows": [{"a": 1}, {"a": 2}], "entities": ["p", "q"]}', 2, ["p", "q"]
        ),
        LoggedRequest("json", b'{"a": 3}', 1),
        LoggedRequest("json-rows", b'[{"a": 4}, {"a": 5}]', 2),
    ]
    batch = frame(5, parts=parts)
    with LogWriter(tmp_path) as log:
        write(log, batch)
    found = [get_prediction(tmp_path, identifier) for identifier in texts(batch)]
    assert [bytes(item.input) for item in found] == [b'{"a": %d}' % n for n in range(1, 6)]
    assert [item.entity for item in found] == ["p", "q", None, None, None]


KILLED = """
import sys, threading
from pathlib import Path
sys.path.insert(0, {tests!r})
from clewline.serve.log.frame import LoggedBatch, LoggedRequest
from clewline.serve.log.writer import LogWriter
from clewline.store.ids import id_text, prediction_ids
log = LogWriter(Path({log!r}), segment_bytes=200_000)
def tell(ids):
    sys.stdout.write("".join(id_text(i) + chr(10) for i in ids)); sys.stdout.flush()
for n in range(1_000_000):
    ids = prediction_ids(3)
    parts = [LoggedRequest("json", b"{{}}" + b" " * (n % 900), 1)] * 3
    frame = LoggedBatch(ids=b"".join(ids), endpoint="e", revision=1, model="m@1", package="",
                        time=0.0, requests=parts, answers=[b"1"] * 3, path=[])
    if n % 3 == 0 and log.write_now(frame):
        tell(ids)
    else:
        log.append(frame, "process", lambda failure, ids=ids: tell(ids))
"""


def test_nothing_that_was_answered_is_lost_to_kill_9(tmp_path: Path) -> None:
    told: list[str] = []
    for _ in range(3):
        program = KILLED.format(tests=str(Path(__file__).parent), log=str(tmp_path))
        command = [sys.executable, "-c", program]
        child = start_process(command, stdout=subprocess.PIPE, text=True)
        assert child.stdout is not None
        mine = [child.stdout.readline() for _ in range(3000)]
        child.kill()
        mine += child.stdout.readlines()
        child.wait()
        child.stdout.close()
        told += [line.strip() for line in mine if len(line) == 37]
        assert all(
            find_prediction(tmp_path, identifier)
            for identifier in told[:: max(1, len(told) // 500)]
        )
    LogWriter(tmp_path).close()
    assert all(s.index for hour in hours(tmp_path) for s in segments(tmp_path, hour))
    assert all(find_prediction(tmp_path, identifier) for identifier in told)


def test_the_segment_of_a_living_writer_is_not_closed(tmp_path: Path, frame: MakeFrame) -> None:
    with LogWriter(tmp_path) as log:
        write(log, frame())
        close_orphans(tmp_path)
        LogWriter(tmp_path).close()
        assert not list(tmp_path.glob("*/*.index"))
        assert only_segment(tmp_path).with_suffix(".frames").exists()
        batch = frame()
        assert write(log, batch) is None
    assert find_prediction(tmp_path, texts(batch)[0])


def test_only_this_user_may_read_or_lock_the_log(tmp_path: Path, frame: MakeFrame) -> None:
    before = os.umask(0)
    try:
        with LogWriter(tmp_path / "log") as log:
            assert log.write_now(frame(key="k"))
    finally:
        os.umask(before)
    modes = {path.stat().st_mode & 0o777 for path in (tmp_path / "log").rglob("*")}
    assert (tmp_path / "log").stat().st_mode & 0o777 == 0o700
    assert modes == {0o700, 0o600}


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    (tmp_path / "disk").mkdir()
    with tmpfs(tmp_path / "disk", "size=512k") as path:
        yield path


@pytest.fixture
def read_only_disk(tmp_path: Path) -> Iterator[Path]:
    (tmp_path / "disk").mkdir()
    with tmpfs(tmp_path / "disk", "size=512k,ro") as path:
        yield path


def test_on_a_full_disk_a_batch_is_logged_whole_or_refused_until_there_is_room(
    small_disk: Path, frame: MakeFrame
) -> None:
    ballast = small_disk / "ballast"
    ballast.write_bytes(bytes(200_000))
    logged, refused = [], []
    with LogWriter(small_disk / "log") as log:
        for _ in range(300):
            batch = frame(2, padding="x" * 1500)
            outcome = write(log, batch)
            (refused if isinstance(outcome, StoreFull) else logged).append(batch)
        assert logged
        assert refused
        with pytest.raises(StoreFull, match="full"):
            log.write_now(frame(2, padding="x" * 5000))
        assert all(find_prediction(small_disk / "log", i) for batch in logged for i in texts(batch))
        assert not any(
            find_prediction(small_disk / "log", i) for batch in refused for i in texts(batch)
        )
        ballast.unlink()
        after = frame(2)
        assert write(log, after) is None
    assert all(
        find_prediction(small_disk / "log", i) for batch in [*logged, after] for i in texts(batch)
    )


def test_a_full_disk_is_reported_if_the_segment_of_a_killed_writer_cannot_be_closed(
    small_disk: Path, frame: MakeFrame
) -> None:
    log = small_disk / "log"
    with LogWriter(log) as writer:
        for _ in range(40):
            assert write(writer, frame(100)) is None
    segment = only_segment(log)
    for index in segment.parent.glob("*.index"):
        index.unlink()
    with pytest.raises(OSError, match="No space"):
        (small_disk / "ballast").write_bytes(bytes(1 << 20))
    with pytest.raises(StoreFull, match="full"):
        LogWriter(log)


def test_a_read_only_log_is_refused_when_it_is_opened(read_only_disk: Path) -> None:
    with pytest.raises(StoreReadOnly, match="cannot be written"):
        LogWriter(read_only_disk)
    with pytest.raises(StoreReadOnly):
        LogWriter(read_only_disk / "log")


@pytest.mark.parametrize("is_limit", [True, False])
def test_a_segment_that_is_not_opened_is_reported_as_what_the_system_says(
    tmp_path: Path, frame: MakeFrame, is_limit: bool
) -> None:
    folder = tmp_path / "log"
    kind, says = (Overloaded, "Too many") if is_limit else (StoreReadOnly, "ermission denied")
    with LogWriter(folder) as first:  # what is imported late is there then
        assert write(first, frame(1)) is None
        known = frame(1)
        assert write(first, known) is None
    log = LogWriter(folder)
    with no_more_files() if is_limit else forbidden(tmp_path):
        with pytest.raises(kind, match=says):
            log.write_now(frame(1))
        assert isinstance(write(log, frame(1)), kind)
        with pytest.raises(kind, match=says):
            LogWriter(folder)
        with pytest.raises(kind, match=says):
            find_prediction(folder, texts(known)[0])
    assert write(log, frame(1)) is None
    log.close()
