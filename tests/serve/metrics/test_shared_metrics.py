"""Metrics of workers are one: sums that never go back, and gauges by their sense."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clewline.serve.metrics.metric_families import MetricFamily, MetricSample, merge_families
from clewline.serve.metrics.shared_metrics import MetricsSnapshot, SharedMetrics


def counter(value: float) -> MetricFamily:
    return MetricFamily(
        "asked_total", "counter", "Asked.", [MetricSample((("code", "200"),), [value])]
    )


def gauge(name: str, value: float) -> MetricFamily:
    return MetricFamily(name, "gauge", "Now.", [MetricSample((), [value])])


def value(families: list[MetricFamily], name: str) -> float | None:
    found = [s.values[0] for family in families for s in family.samples if family.name == name]
    assert len(found) <= 1
    return found[0] if found else None


@pytest.fixture
def shared() -> Iterator[SharedMetrics]:
    shared = SharedMetrics.create(2)
    yield shared
    for file in shared.files:
        os.close(file)


def test_an_ended_worker_leaves_its_counts_and_not_its_gauges(shared: SharedMetrics) -> None:
    shared.write(0, MetricsSnapshot(1, [counter(3), gauge("waiting", 2)]))
    shared.write(1, MetricsSnapshot(2, [counter(4), gauge("waiting", 5)]))
    shared.fold(0, [])
    assert value(merge_families(shared.all()), "asked_total") == 7
    assert value(merge_families(shared.all()), "waiting") == 5
    shared.write(0, MetricsSnapshot(3, [counter(1)]))
    assert value(merge_families(shared.all()), "asked_total") == 8


def test_a_process_that_is_folded_but_not_yet_cleared_is_counted_once(
    shared: SharedMetrics, monkeypatch: pytest.MonkeyPatch
) -> None:
    shared.write(0, MetricsSnapshot(1, [counter(3)]))
    left = shared.read(0)
    shared.fold(0, [])
    shared.write(0, left)  # as a reader meets it between the two writes
    assert value(merge_families(shared.all()), "asked_total") == 3


def test_an_interrupted_write_leaves_the_previous_state(shared: SharedMetrics) -> None:
    shared.write(0, MetricsSnapshot(1, [counter(3)]))
    shared.write(0, MetricsSnapshot(1, [counter(4)]))
    for file in shared.files[:1]:
        for half in (0, 1 << 32):
            if os.pread(file, 1, half) == b"\x02":  # the second write, half of it lost
                os.pwrite(file, bytes(40), half + 16)
    assert value(merge_families(shared.all()), "asked_total") == 3


@given(st.lists(st.tuples(st.integers(0, 1), st.integers(0, 5), st.booleans()), max_size=30))
def test_a_sum_never_decreases_whichever_process_ends(steps: list[tuple[int, int, bool]]) -> None:
    shared = SharedMetrics.create(2)
    counts, generations, shown = [0, 0], [1, 2], 0.0
    for slot, more, dies in steps:
        if dies:
            shared.fold(slot, [])
            counts[slot], generations[slot] = 0, max(generations) + 1
        counts[slot] += more
        shared.write(slot, MetricsSnapshot(generations[slot], [counter(counts[slot])]))
        now = value(merge_families(shared.all()), "asked_total")
        assert now is not None
        assert now >= shown
        shown = now
    assert shown == sum(more for _, more, _ in steps)
    for file in shared.files:
        os.close(file)
