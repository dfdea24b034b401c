"""Searching the log reads no more than it must, and finds the same in every frame."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from clewline.serve.log.frame import LoggedBatch
from clewline.serve.log.writer import LogWriter
from clewline.serve.prediction_search import read_prediction_filter, search_predictions

HOUR_MS = 3_600_000
FIRST_HOUR = 490_000


@pytest.fixture
def log(tmp_path: Path, frame: Callable[..., LoggedBatch]) -> Path:
    """Four hours with five predictions each, of the endpoints a and b in turn."""
    with LogWriter(tmp_path) as log:
        for hour in range(4):
            ids = b"".join(
                ((FIRST_HOUR + hour) * HOUR_MS + row).to_bytes(6, "big") + bytes([hour, row] * 5)
                for row in range(5)
            )
            log.append(frame(5, ids=ids, endpoint="ab"[hour % 2]), "process", lambda _: None)
    return tmp_path


def test_a_time_range_reads_nothing_older_than_it(log: Path) -> None:
    wanted = read_prediction_filter(
        {"since": "2025-11-24T17:00Z", "until": "2025-11-24T18:00Z", "where": "age >= 0"}
    )
    assert wanted.since == (FIRST_HOUR + 1) * 3600.0
    page = search_predictions(log, wanted)
    assert (len(page.items), page.looked_at, page.next) == (5, 5, None)


def test_frames_of_another_endpoint_are_passed_over_and_counted(log: Path) -> None:
    page = search_predictions(log, read_prediction_filter({"endpoint": "a"}))
    assert {item.batch.endpoint for item in page.items} == {"a"}
    assert (len(page.items), page.looked_at) == (10, 20)


def test_a_search_that_stopped_goes_on_where_it_stopped(log: Path) -> None:
    wanted = read_prediction_filter({"where": "age == 0"})
    found, before, pages = 0, None, 0
    while pages == 0 or before is not None:
        page = search_predictions(log, wanted, before=before, look_at=3)
        assert page.looked_at <= 3
        found, before, pages = found + len(page.items), page.next, pages + 1
    assert (found, pages) == (4, 7)
