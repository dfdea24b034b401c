"""Endpoints, arms and nodes are counted each, up to a bound, and then together."""

import pytest

from clewline.serve.log.frame import RoutePath
from clewline.serve.metrics.request_statistics import (
    ARMS,
    OTHERS,
    EndpointStatistics,
    RequestStatistics,
)


def test_endpoints_beyond_the_bound_share_their_statistics():
    statistics = RequestStatistics(2)
    first, second, third, fourth = (statistics.for_new_endpoint() for _ in range(4))
    assert first is not second
    assert third is fourth is statistics.others
    third.record_paths(((RoutePath("income@1", (("model", 5.0),)), 3),))
    assert not third.arms


def test_paths_are_counted_by_rows_and_nodes_once_a_batch():
    counted = EndpointStatistics()
    above = ("route", 2.0)
    counted.record_paths(
        (
            (RoutePath("a@1", (above, ("left", 10.0)), "left"), 3),
            (RoutePath("b@2", (above, ("right", 20.0)), "right"), 5),
        )
    )
    assert {key: arm.rows for key, arm in counted.arms.items()} == {
        ("left", "a@1"): 3,
        ("right", "b@2"): 5,
    }
    assert {name: sum(node.counts) for name, node in counted.nodes.items()} == {
        "route": 1,
        "left": 1,
        "right": 1,
    }
    assert counted.arms["right", "b@2"].seconds.total == pytest.approx(22e-6)


def test_arms_and_nodes_beyond_the_bound_are_counted_together():
    counted = EndpointStatistics()
    for number in range(ARMS + 10):
        path = RoutePath(f"m@{number}", ((f"n{number}", 1.0), ("same", 1.0)), f"arm{number}")
        counted.record_paths(((path, 1),))
    assert len(counted.arms) == ARMS + 1
    assert counted.arms[OTHERS, ""].rows == 10
    assert len(counted.nodes) == ARMS + 1
    assert sum(arm.rows for arm in counted.arms.values()) == ARMS + 10
