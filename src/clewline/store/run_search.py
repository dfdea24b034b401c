"""Search runs by what they are, by when, and by conditions on their parameters and metrics."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Literal, cast, get_args

from clewline.errors import UsageError
from clewline.store.locks import process_state
from clewline.store.reader import RecordQueries
from clewline.store.records import Run, RunStatus
from clewline.store.run_values import TEXT_LENGTH

ValueKind = Literal["metric", "param"]
Comparison = Literal["<", "<=", "=", "!=", ">=", ">"]

STATUSES: tuple[str, ...] = get_args(RunStatus)
CONDITIONS_MOST = 20
"""Conditions of one search."""

# Rows of runs are large: SQLite would read some of each, where this index has all that is asked.
_RUNS = "run AS r INDEXED BY ix_run_started_pipeline_status"
_CONDITION = re.compile(r"\s*(.+?)\s*(<=|>=|!=|==|=|<|>)\s*(.*?)\s*", re.DOTALL)


@dataclass(frozen=True, slots=True)
class RunCondition:
    """What a parameter or a metric must be. A run without it does not match."""

    kind: ValueKind
    name: str
    comparison: Comparison
    value: str

    def __str__(self) -> str:
        return f"{self.name} {self.comparison} {self.value}"


@dataclass(frozen=True, slots=True)
class RunFilter:
    """Which runs match: all that is given must hold. Times are seconds since the epoch, UTC."""

    pipeline: str | None = None
    status: str | None = None
    since: float | None = None
    until: float | None = None
    conditions: tuple[RunCondition, ...] = ()


@dataclass(frozen=True, slots=True)
class RunOrder:
    """By what runs are sorted: by a value of theirs, or by their start; newest first if neither."""

    by: tuple[ValueKind, str] | None = None
    descending: bool = True


def parse_condition(kind: ValueKind, text: str) -> RunCondition:
    """
    Read a condition such as `accuracy > 0.9` or `model = forest`.

    Raises:
        UsageError: It is none, or orders what is no number.

    >>> str(parse_condition("metric", "accuracy>=0.9"))
    'accuracy >= 0.9'
    """
    found = _CONDITION.fullmatch(text)
    if found is None:
        raise UsageError(
            f"{text!r} is not a condition on a {kind}.",
            "Write a name, one of < <= = != >= >, and a value, such as 'accuracy > 0.9'.",
        )
    name, comparison, value = found.groups()
    written = cast(Comparison, "=" if comparison == "==" else comparison)
    condition = RunCondition(kind, name, written, value)
    if condition.comparison not in ("=", "!=") and _number(value) is None:
        raise UsageError(
            f"The condition {text!r} orders by {value!r}, which is not a number.",
            "Compare texts with = or !=.",
        )
    return condition


def search_runs(
    queries: RecordQueries, where: RunFilter, order: RunOrder, *, limit: int, offset: int = 0
) -> list[str]:
    """
    List the ids of runs that match, sorted; those without the value that sorts come last.

    Raises:
        UsageError: There is no such status, or there are more than 20 conditions.
    """
    source, values = _source(queries, where)
    way = "DESC" if order.descending else "ASC"
    terms = f"r.started {way}, r.id"
    if order.by is not None:
        source = (
            f"{_RUNS} LEFT JOIN run_value AS s ON s.kind = ? AND s.name = ? AND s.run = r.id"
            + source.removeprefix(_RUNS)
        )
        values = [*order.by, *values]
        terms = (
            f"s.number IS NULL, s.number {way}, s.text IS NULL, s.text {way}, r.started DESC, r.id"
        )
    query = f"SELECT r.id FROM {source} ORDER BY {terms} LIMIT ? OFFSET ?"
    return [row[0] for row in queries.rows(query, [*values, limit, offset])]


def count_runs(queries: RecordQueries, where: RunFilter) -> int:
    """Count the runs that match."""
    source, values = _source(queries, where)
    return int(queries.rows(f"SELECT count(*) FROM {source}", values)[0][0])


def value_series(
    queries: RecordQueries, where: RunFilter, of: tuple[ValueKind, str]
) -> list[tuple[float, float]]:
    """List the starts of the runs that match and have a number there, and that number."""
    source, values = _source(queries, where)
    joined = source.removeprefix(_RUNS)
    query = (
        f"SELECT r.started, s.number FROM {_RUNS} JOIN run_value AS s ON s.kind = ? AND s.name = ? "
        f"AND s.run = r.id AND abs(s.number) < 1e308 {joined} ORDER BY r.started"
    )
    return [(row[0], row[1]) for row in queries.rows(query, [*of, *values])]


def pipelines_run(queries: RecordQueries) -> list[str]:
    """List the pipelines of which there are runs, by name."""
    return _distinct(queries, "run", "pipeline")


def value_names(queries: RecordQueries, kind: ValueKind) -> list[str]:
    """List the names of all parameters or metrics that any run has."""
    return _distinct(queries, "run_value", "name", kind)


def _distinct(
    queries: RecordQueries, table: str, column: str, kind: str | None = None
) -> list[str]:
    # SQLite reads every row for DISTINCT; from one name to the next it is a step in the index.
    within, values = ("kind = ?", [kind]) if kind is not None else ("TRUE", [])
    query = (
        f"WITH RECURSIVE named(n) AS (SELECT min({column}) FROM {table} WHERE {within} UNION ALL "
        f"SELECT (SELECT min({column}) FROM {table} WHERE {within} AND {column} > n) FROM named "
        "WHERE n IS NOT NULL) SELECT n FROM named WHERE n IS NOT NULL"
    )
    return [row[0] for row in queries.rows(query, values * 2)]


def _source(queries: RecordQueries, where: RunFilter) -> tuple[str, list[Any]]:
    """Write what follows FROM, up to the order, and the values that it binds."""
    if len(where.conditions) > CONDITIONS_MOST:
        raise UsageError(
            f"A search has at most {CONDITIONS_MOST} conditions (got {len(where.conditions)}).",
            "Leave some out.",
        )
    tests: list[str] = []
    values: list[Any] = []

    def require(test: str, *bound: Any) -> None:
        tests.append(test)
        values.extend(bound)

    if where.pipeline is not None:
        require("r.pipeline = ?", where.pipeline)
    if where.since is not None:
        require("r.started >= ?", where.since)
    if where.until is not None:
        require("r.started < ?", where.until)
    if where.status is not None:
        require(*_status_test(queries, where.status))
    for condition in where.conditions:
        test, bound = _value_test(condition)
        require(
            f"r.id IN (SELECT run FROM run_value WHERE kind = ? AND name = ? AND {test})",
            *(condition.kind, condition.name, *bound),
        )
    return _RUNS + (f" WHERE {' AND '.join(tests)}" if tests else ""), values


def _status_test(queries: RecordQueries, status: str) -> tuple[str, ...]:
    if status not in STATUSES:
        raise UsageError(f"A run is never {status!r}.", f"It is {', '.join(STATUSES)}.")
    if status not in ("running", "interrupted"):
        return "r.status = ?", status
    # Recorded as running is also the run whose process was killed.
    running = queries.find(Run, status="running", limit=None)
    dead = [run.id for run in running if process_state(run.process) == "dead"]
    marks = ", ".join("?" * len(dead))
    if status == "running":
        return f"r.status = ? AND r.id NOT IN ({marks})", status, *dead
    return f"(r.status = ? OR r.id IN ({marks}))", status, *dead


def _value_test(condition: RunCondition) -> tuple[str, list[Any]]:
    number, text = _number(condition.value), condition.value[:TEXT_LENGTH]
    if condition.comparison == "=":
        return "(number = ? OR text = ?)", [number, text]
    if condition.comparison == "!=":
        return "NOT (ifnull(number = ?, 0) OR ifnull(text = ?, 0))", [number, text]
    return f"number {condition.comparison} ?", [number]


def _number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if value == value else None
