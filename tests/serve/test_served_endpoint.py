"""An endpoint whose revision cannot be loaded is tried again, ever more rarely."""

from __future__ import annotations

import pytest

from clewline.errors import Fault
from clewline.serve import served_endpoint
from clewline.serve.metrics.request_statistics import RequestStatistics
from clewline.serve.served_endpoint import ServedEndpoint

ERROR = Fault("It cannot be loaded.", "Mend it.")


class Clock:
    """Takes the place of the module `time`."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(served_endpoint, "time", clock)
    return clock


@pytest.fixture
def endpoint() -> ServedEndpoint:
    return ServedEndpoint("income", RequestStatistics())


def pause(endpoint: ServedEndpoint, clock: Clock) -> float:
    """Let a load fail; give the seconds until the next may be tried, and let them pass."""
    endpoint.fail(ERROR)
    start = clock.now
    while not endpoint.may_retry:
        assert endpoint.refusal is ERROR
        clock.now += 0.25
    assert endpoint.refusal is None
    return clock.now - start


def test_the_pause_doubles_with_each_failure_in_a_row_up_to_a_minute(endpoint, clock):
    pauses = [pause(endpoint, clock) for _ in range(9)]
    assert pauses == [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 60.0, 60.0, 60.0]


def test_after_any_number_of_failures_the_pause_is_a_minute(endpoint, clock):
    for _ in range(3000):
        endpoint.fail(ERROR)
    assert pause(endpoint, clock) == 60.0


@pytest.mark.parametrize("begin_anew", [ServedEndpoint.succeed, lambda one: one.want(2)])
def test_a_load_or_another_revision_begins_anew(endpoint, clock, begin_anew):
    pause(endpoint, clock)
    pause(endpoint, clock)
    begin_anew(endpoint)
    assert endpoint.may_retry
    assert pause(endpoint, clock) == 1.0


def test_an_operator_does_not_wait(endpoint, clock):
    endpoint.fail(ERROR)
    assert not endpoint.may_retry
    endpoint.retry_now()
    assert endpoint.may_retry


def test_what_is_given_up_is_not_tried_again_until_another_revision_is_live(endpoint, clock):
    endpoint.fail(ERROR, for_good=True)
    clock.now += 1e6
    endpoint.retry_now()
    assert endpoint.refusal is ERROR
    endpoint.want(2)
    assert endpoint.refusal is None
