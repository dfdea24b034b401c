"""Ids of predictions and runs."""

from __future__ import annotations

import threading
import time
from uuid import RFC_4122, UUID

import pytest

from clewline.errors import NotFound
from clewline.store import ids


def test_a_prediction_id_is_a_uuid_of_version_7() -> None:
    made = UUID(ids.prediction_id())
    assert (made.version, made.variant) == (7, RFC_4122)


def test_ids_ascend_inside_a_process_however_they_are_made() -> None:
    made = [*ids.prediction_ids(5000), ids.id_bytes(ids.prediction_id()), *ids.prediction_ids(5000)]
    assert made == sorted(set(made))


def test_ids_of_many_threads_are_all_different() -> None:
    made: list[bytes] = []
    work = [
        threading.Thread(target=lambda: made.extend(ids.prediction_ids(2000))) for _ in range(4)
    ]
    for each in work:
        each.start()
    for each in work:
        each.join()
    assert len(set(made)) == 8000


def test_text_and_bytes_say_the_same_id() -> None:
    data = ids.prediction_ids(1)[0]
    assert ids.id_bytes(ids.id_text(data)) == data
    assert ids.id_text(data) == str(UUID(bytes=data))


def test_an_id_tells_when_it_was_made() -> None:
    before = time.time()
    made = ids.prediction_id()
    assert before - 0.01 <= ids.id_time_s(made) <= time.time() + 0.01
    assert ids.id_time_s(made) == ids.id_time_s(ids.id_bytes(made))


def test_an_id_that_is_none_is_refused() -> None:
    with pytest.raises(NotFound, match="income@3"):
        ids.id_bytes("income@3")


def test_no_ids_are_no_ids() -> None:
    assert ids.prediction_ids(0) == []


def test_a_clock_that_goes_back_does_not_take_the_ids_with_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    before = ids.prediction_ids(1)[0]
    monkeypatch.setattr(time, "time_ns", lambda: 1_000_000_000_000_000_000)
    assert ids.prediction_ids(1)[0] > before


def test_a_count_that_runs_out_borrows_from_the_next_millisecond(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(ids, "_last_ms", time.time_ns() // 1_000_000 + 60_000)
    monkeypatch.setattr(ids, "_last_count", (1 << 74) - (1 << 60))
    made = [ids.prediction_ids(1)[0] for _ in range(3)]
    assert made == sorted(set(made))
    assert {UUID(bytes=each).version for each in made} == {7}


def test_a_run_id_is_twelve_hexadecimal_characters() -> None:
    made = {ids.run_id() for _ in range(100)}
    assert len(made) == 100
    assert all(len(each) == 12 and int(each, 16) >= 0 for each in made)
