"""Read what a person types to find runs: times, conditions, the sort."""

from __future__ import annotations

import time
from collections.abc import Sequence

from clewline.errors import UsageError
from clewline.formatting import parse_moment
from clewline.store.run_search import RunFilter, RunOrder, ValueKind, parse_condition

PARAM, METRIC = "param.", "metric."
"""Begin the name of a parameter and of a metric, where both may stand."""


def read_filter(
    *,
    pipeline: str | None = None,
    status: str | None = None,
    since: str | None = None,
    until: str | None = None,
    metrics: Sequence[str] = (),
    params: Sequence[str] = (),
) -> RunFilter:
    """
    Read which runs are wanted; what is empty asks for nothing.

    Args:
        since: A date, a date with a time, or a span before now, such as `24h`.
        until: The same; runs that started before it.
        metrics: Conditions such as `accuracy > 0.9`.
        params: Conditions such as `model = forest`.

    Raises:
        UsageError: A time or a condition cannot be read.
    """
    return RunFilter(
        pipeline=pipeline or None,
        status=status or None,
        since=_moment(since),
        until=_moment(until),
        conditions=(
            *(parse_condition("metric", text) for text in metrics if text.strip()),
            *(parse_condition("param", text) for text in params if text.strip()),
        ),
    )


def read_order(text: str | None) -> RunOrder:
    """
    Read a sort: `started`, `accuracy` for a metric, `param.trees` for a parameter; `-` descends.

    >>> read_order("-param.trees")
    RunOrder(by=('param', 'trees'), descending=True)
    """
    if not text:
        return RunOrder()
    name, descending = text.removeprefix("-"), text.startswith("-")
    if name == "started":
        return RunOrder(descending=descending)
    return RunOrder(read_value_name(name), descending)


def read_value_name(text: str) -> tuple[ValueKind, str]:
    """
    Read the name of a value: `accuracy` or `metric.accuracy`, and `param.trees`.

    >>> read_value_name("metric.param.odd"), read_value_name("param.trees")
    (('metric', 'param.odd'), ('param', 'trees'))
    """
    if text.startswith(PARAM):
        return "param", text.removeprefix(PARAM)
    return "metric", text.removeprefix(METRIC)


def _moment(text: str | None) -> float | None:
    if not text:
        return None
    moment = parse_moment(text, time.time())
    if moment is None:
        raise UsageError(
            f"{text!r} is not a time.", "Write 2026-11-30, 2026-11-30T12:00Z, or 24h for a day ago."
        )
    return moment
