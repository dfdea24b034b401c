"""Predictions that a rule of their endpoint matches are explained from the log, each once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from explained import answer_rows, classified, fitted, serve_two_rows
from sklearn.tree import DecisionTreeClassifier

from clewline.explain import background
from clewline.explain.background import (
    BackgroundQueue,
    LogFollower,
    failed_explanations,
    first_hour,
)
from clewline.project import Project
from clewline.serve import revision
from clewline.serve.endpoint_file import parse_endpoint
from clewline.serve.log.frame import LoggedBatch, LoggedRequest
from clewline.serve.log.writer import LogWriter
from clewline.store.ids import prediction_ids
from clewline.store.store import Store

OLD = """
endpoint: e
model: m@1
explain: {kind: counterfactuals, count: 1, when: "age > 60"}
"""


def apply(project: Project, text: str) -> None:
    with Store.open(project.store_root) as store:
        revision.apply(project, store, parse_endpoint(text.encode(), Path("endpoints/e.yaml")))


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    train = classified()
    model = fitted(DecisionTreeClassifier(max_depth=3), train)
    found, _ = serve_two_rows(tmp_path_factory.mktemp("background"), model, train)
    assert first_hour(found) is None
    apply(found, OLD)
    return found


def rows(*ages: int) -> list[dict[str, Any]]:
    return [{"age": age, "hours": 40.0, "work": "own"} for age in ages]


def opened(project: Project) -> tuple[BackgroundQueue, LogFollower]:
    queue = BackgroundQueue(project)
    if queue.start is None:
        hour = first_hour(project)
        assert hour is not None
        queue.move_start(hour)
    return queue, LogFollower(project, queue)


def drain(queue: BackgroundQueue) -> list[str]:
    found = []
    while (one := queue.newest()) is not None:
        queue.begin(one)
        queue.finish(one)
        found.append(one.id)
    return found


def test_each_matching_prediction_waits_once_newest_first(project: Project) -> None:
    ids = answer_rows(project, "e", rows(30, 61, 62))
    queue, follower = opened(project)
    try:
        assert follower.look() >= 2  # the revision before it had no rules
        assert queue.waiting == 2
        one = queue.newest()
        assert one is not None
        assert (one.id, one.kind, one.options) == (ids[2], "counterfactuals", {"count": 1})
        assert drain(queue) == [ids[2], ids[1]]
        assert follower.look() == 0
        more = answer_rows(project, "e", rows(63))
        assert follower.look() == 1
        assert drain(queue) == more
    finally:
        queue.close()


def test_nothing_is_lost_and_nothing_comes_twice_over_a_death(project: Project) -> None:
    ids = answer_rows(project, "e", rows(70, 71, 72))
    queue, follower = opened(project)
    follower.look()
    one = queue.newest()
    assert one is not None
    queue.begin(one)
    queue.close()  # in the middle of an explanation
    queue, follower = opened(project)
    try:
        assert follower.look() == 0
        again = queue.newest()
        assert again is not None
        assert (again.id, again.attempts) == (ids[2], 1)
        assert drain(queue) == ids[::-1]
    finally:
        queue.close()


def test_one_process_follows_the_log(project: Project) -> None:
    queue, _ = opened(project)
    try:
        with pytest.raises(BlockingIOError):
            BackgroundQueue(project)
    finally:
        queue.close()
    assert project.explain_queue.stat().st_mode & 0o777 == 0o600


def test_a_failure_keeps_its_reason_until_it_is_explained(project: Project) -> None:
    id_ = answer_rows(project, "e", rows(80))[0]
    queue, follower = opened(project)
    try:
        follower.look()
        one = queue.newest()
        assert one is not None
        queue.finish(one, "it is broken")
        assert queue.newest() is None
        found = failed_explanations(project, id_)
        assert [(each.kind, each.reason) for each in found] == [("counterfactuals", "it is broken")]
        queue.finish(one)
        assert failed_explanations(project, id_) == []
    finally:
        queue.close()


def test_a_frame_that_cannot_be_read_is_passed_over(project: Project) -> None:
    with Store.open(project.store_root) as store:
        number = revision.require_live(store.catalog, "e").number
    ids = prediction_ids(3)
    with LogWriter(project.log) as log:
        for body, count in ((b"[[", 1), (b'[{"age": 90}]', 2)):
            broken = LoggedBatch(
                ids=b"".join(ids.pop() for _ in range(count)),
                endpoint="e",
                revision=number,
                model="m@1",
                package="0" * 64,
                time=0.0,
                requests=[LoggedRequest("json-rows", body, 1)],
                answers=[b"{}"] * count,
                path=[],
            )
            assert log.write_now(broken)
    after = answer_rows(project, "e", rows(77))
    queue, follower = opened(project)
    try:
        assert follower.look() == 3
        assert drain(queue) == after
    finally:
        queue.close()


def test_what_is_too_much_is_skipped_oldest_first_and_counted(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(background, "BACKLOG", 3)
    ids = answer_rows(project, "e", rows(61, 62, 63, 64, 65))
    queue, follower = opened(project)
    try:
        follower.look()
        assert follower.skipped == 2
        assert drain(queue) == ids[:1:-1]
    finally:
        queue.close()


def test_hours_that_are_over_are_not_read_again(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    queue, follower = opened(project)
    try:
        before = queue.start
        assert before is not None
        now = background.time.time()
        monkeypatch.setattr(background.time, "time", lambda: now + 5 * 3600)
        follower.look()
        assert queue.start == int((now + 5 * 3600) // 3600) - 1
        assert queue._connection.execute("SELECT count(*) FROM segment").fetchone()[0] == 0
    finally:
        queue.close()
