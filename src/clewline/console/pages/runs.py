"""Runs: found by what they were given and what they gave, and compared with each other."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from itertools import islice
from typing import Any
from urllib.parse import quote, urlencode

from clewline.console.page import PageAnswer, PageRequest, PageRoute, Redirect, View
from clewline.console.table import Column, Table, TableRows, offset_source, short_id
from clewline.flow.code_difference import code_differences
from clewline.flow.run_comparison import RUNS_COMPARED, ComparedValue, compare_values
from clewline.flow.run_query import METRIC, PARAM, read_filter, read_order, read_value_name
from clewline.flow.runs import compare_runs, find_run, list_runs, snapshot_of
from clewline.formatting import format_count
from clewline.html.charts import Line, draw_lines
from clewline.html.decimation import decimate, say_count
from clewline.html.markup import Content, Markup, element, isolated, join
from clewline.html.page import show_chart
from clewline.html.parallel_coordinates import AXES_DRAWN, ParallelLine, draw_parallel
from clewline.store.records import Run
from clewline.store.run_search import (
    STATUSES,
    RunFilter,
    count_runs,
    pipelines_run,
    value_names,
    value_series,
)
from clewline.store.run_values import flat_params

NAMES_OFFERED = 1_000
"""Names of parameters and metrics that a field offers."""
COLUMNS_CHOSEN = 40
COMPARED_ROWS = 40
FILES_SHOWN = 50
OTHERS_SHOWN = 200
DIGEST_LENGTH = 64
TONES = {"done": "good", "failed": "bad", "interrupted": "other", "running": "model"}


class RunsPage:
    """Runs of pipelines: listed, compared."""

    name = "runs"
    title = "Runs"
    place = 50

    def routes(self) -> Sequence[PageRoute]:
        """Return its addresses."""
        return (PageRoute("/runs", show_runs), PageRoute("/runs/compare", compare))


# The list


def show_runs(request: PageRequest) -> PageAnswer:
    """List the runs that match, with the values that were chosen as columns."""
    catalog = request.store.catalog
    where = _filter(request)
    count = count_runs(catalog, where)
    names = {
        "metric": value_names(catalog, "metric"),
        "param": value_names(catalog, "param"),
    }
    chosen = _chosen_columns(request, where)
    table = Table(
        "runs",
        (
            Column("id", "Run", "id", link=lambda row: run_address(row["id"])),
            Column("compare", "Compare", show=_compare_box),
            Column("pipeline", "Pipeline"),
            Column("status", "Status", show=lambda row: status_badge(row["status"])),
            Column("started", "Started", "time", sort=True),
            Column("wall_s", "Took", "duration"),
            *(_value_column(name) for name in chosen),
        ),
        _runs_source(request, where, count),
        request,
        empty=_no_runs(where),
        caption="Runs that match",
        sort="-started",
    )
    return View(
        "runs.html",
        title="Runs",
        values={
            "table": table,
            "where": where,
            "conditions": {
                "metric": [*request.lists.get("metric", ()), ""],
                "param": [*request.lists.get("param", ()), ""],
            },
            "pipelines": pipelines_run(catalog),
            "statuses": STATUSES,
            "count": format_count(count, "run"),
            "chosen": chosen,
            "names": [
                *(METRIC + name for name in names["metric"][:NAMES_OFFERED]),
                *(PARAM + name for name in names["param"][:NAMES_OFFERED]),
            ],
            "name_counts": {kind: len(found) for kind, found in names.items()},
            "trend": _trend(request, where, chosen),
        },
    )


def _filter(request: PageRequest) -> RunFilter:
    asked = {
        name: request.query.get(name, "").strip()
        for name in ("pipeline", "status", "since", "until")
    }
    return read_filter(
        **asked, metrics=request.lists.get("metric", ()), params=request.lists.get("param", ())
    )


def _runs_source(request: PageRequest, where: RunFilter, count: int) -> Any:
    def rows(offset: int, limit: int, sort: str) -> list[Mapping[str, Any]]:
        order = read_order(sort or None)
        found = list_runs(request.store, where, order=order, limit=limit, offset=offset)
        return [_run_row(run) for run in found]

    return offset_source(rows, count)


def _run_row(run: Run) -> Mapping[str, Any]:
    params = {"seed": run.seed, **flat_params(run.params)}
    return {
        "id": run.id,
        "compare": None,
        "pipeline": run.pipeline,
        "status": run.status,
        "started": run.started,
        "wall_s": run.ended - run.started if run.ended is not None else None,
        **{PARAM + name: value for name, value in params.items()},
        **{METRIC + name: value for name, value in run.metrics.items()},
    }


def _value_column(name: str) -> Column:
    kind, shown = read_value_name(name)
    return Column(name, shown, "number" if kind == "metric" else "text", sort=True)


def _chosen_columns(request: PageRequest, where: RunFilter) -> list[str]:
    """Return the columns in the address; by default the first values of the newest run."""
    asked = [name.strip() for name in request.lists.get("column", ()) if name.strip()]
    sort = request.query.get("runs-sort", "").removeprefix("-")
    sorts = [sort] if sort.startswith((METRIC, PARAM)) else []
    if asked:
        asked = [*asked, *sorts]
        kinds = (read_value_name(name) for name in asked[:COLUMNS_CHOSEN])
        return list(dict.fromkeys(f"{kind}.{name}" for kind, name in kinds))
    newest = list_runs(request.store, where, limit=1)
    if not newest:
        return []
    params = [PARAM + name for name in flat_params(newest[0].params)]
    metrics = [METRIC + name for name in newest[0].metrics]
    return list(dict.fromkeys([*sorts, *metrics[:4], *params[:2]]))


def _compare_box(row: Mapping[str, Any]) -> Content:
    return element(
        "input",
        type="checkbox",
        name="run",
        value=row["id"],
        form="compare",
        aria_label=f"Compare run {row['id']}",
    )


def _no_runs(where: RunFilter) -> Content:
    if where != RunFilter():
        return ["No run matches. ", element("a", "Show all runs", href="/runs")]
    return ["No runs yet. Start one with ", element("code", "clewline run PIPELINE"), "."]


def _trend(request: PageRequest, where: RunFilter, chosen: Sequence[str]) -> Markup | None:
    """Draw the metric that sorts, or the first one chosen, over the time of the runs."""
    sort = request.query.get("runs-sort", "").removeprefix("-")
    candidates = [name for name in (sort, *chosen) if name.startswith((METRIC, PARAM))]
    if not candidates:
        return None
    kind, name = read_value_name(candidates[0])
    points = value_series(request.store.catalog, where, (kind, name))
    if len(points) < 2:
        return None
    drawn = decimate(points)
    first, last = points[0][0], points[-1][0]
    ticks = [
        (first + share * (last - first), _day(first + share * (last - first)))
        for share in (0.12, 0.5, 0.88)
    ]
    lowest, highest = min(y for _, y in points), max(y for _, y in points)
    chart = draw_lines(
        f"{name} over time",
        f"{name} of {format_count(len(points), 'run')} in the order of their start lies between "
        f"{lowest:.6g} and {highest:.6g}. {say_count(len(drawn), len(points))}",
        [Line(name, drawn, dots=len(drawn) <= 100)],
        x="started, seconds since 1970",
        y=name,
        height=140,
        x_ticks=ticks if last > first else None,
    )
    return show_chart(chart)


def _day(time_s: float) -> str:
    return f"{datetime.fromtimestamp(time_s, UTC):%m-%d %H:%M}"


# The comparison


def compare(request: PageRequest) -> PageAnswer:
    """Put runs side by side: what differs first, as a table and as parallel coordinates."""
    asked = list(dict.fromkeys(text.strip() for text in request.lists.get("run", ()) if text))
    if not asked:
        return Redirect("/runs")
    runs = [find_run(request.store, text) for text in asked[: RUNS_COMPARED + 1]]
    found = compare_values(runs)
    differing = [each for each in found if each.differs]
    shown = found if request.query.get("show") == "all" else differing
    rows = [_compared_row(each, runs) for each in shown]
    table = Table(
        "values",
        (
            Column("name", "Value"),
            Column("kind", "Kind"),
            *(_run_column(run) for run in runs),
        ),
        lambda cursor, limit, sort: _slice(rows, cursor, limit),
        request,
        empty="These runs have the same parameters and metrics.",
        caption="Parameters and metrics of the runs, a column for each run",
        page_rows=COMPARED_ROWS,
    )
    axes = _axes(request, differing)
    return View(
        "runs_compare.html",
        title=f"{format_count(len(runs), 'run')} compared",
        values={
            "table": table,
            "runs": runs,
            "differing": len(differing),
            "same": len(found) - len(differing),
            "show_all": shown is found,
            "chart": _parallel(runs, axes) if len(runs) > 1 and axes else None,
            "axes": [f"{each.kind}.{each.name}" for each in axes],
            "axis_names": [f"{each.kind}.{each.name}" for each in differing[:NAMES_OFFERED]],
            "address_of": run_address,
            **_two(request, runs),
        },
    )


def _two(request: PageRequest, runs: Sequence[Run]) -> dict[str, Any]:
    """Return what differs besides values between two runs: files of code, and all else."""
    if len(runs) != 2:
        return {"code": None, "others": ()}
    first, second = runs
    difference = compare_runs(request.store, first, second)
    before, after = snapshot_of(request.store, first), snapshot_of(request.store, second)
    code = islice(code_differences(before, after, request.store.blobs), FILES_SHOWN)
    others = [*difference.inputs, *difference.environment, *difference.steps]
    return {
        "code": [(each, _diff_lines(each.lines)) for each in code],
        "code_count": len(difference.code),
        "others": [
            (each.name, f"{each.part} {each.kind}", _side(each.old), _side(each.new))
            for each in others[:OTHERS_SHOWN]
        ],
        "others_count": len(others),
    }


def _side(value: Any) -> Content:
    """Write one side of a difference; a digest shortened."""
    if isinstance(value, list):
        return join(*([_side(each), " "] for each in value)) if value else "nothing"
    if isinstance(value, str) and len(value) == DIGEST_LENGTH:
        return short_id(value)
    return _written(value)


def _diff_lines(lines: Sequence[str]) -> Markup:
    """Write lines as `diff -u` does; those that were added and removed have classes."""
    kinds = {"+": "added", "-": "removed", "@": "place"}
    return join(*([element("span", line, class_=kinds.get(line[:1])), "\n"] for line in lines))


def _slice(rows: Sequence[Mapping[str, Any]], cursor: str | None, limit: int) -> TableRows:
    def page(offset: int, most: int, sort: str) -> Sequence[Mapping[str, Any]]:
        return rows[offset : offset + most]

    return offset_source(page, len(rows))(cursor, limit, "")


def _run_column(run: Run) -> Column:
    return Column(run.id, run.id, show=lambda row: _written(row[run.id]))


def _written(value: Any) -> Content:
    if value is None:
        return element("span", "–", class_="muted")
    if isinstance(value, float):
        return f"{value:,.6g}"
    return isolated(value, 80)


def _compared_row(each: ComparedValue, runs: Sequence[Run]) -> Mapping[str, Any]:
    by_run = {run.id: value for run, value in zip(runs, each.values, strict=True)}
    return {"name": each.name, "kind": each.kind, **by_run}


def _axes(request: PageRequest, differing: Sequence[ComparedValue]) -> list[ComparedValue]:
    """Return the axes in the address; by default up to four parameters and four metrics."""
    asked = [name for name in request.lists.get("axis", ()) if name.strip()]
    if asked:
        wanted = [read_value_name(name) for name in asked[:AXES_DRAWN]]
        by_name = {(each.kind, each.name): each for each in differing}
        return [by_name[name] for name in wanted if name in by_name]
    params = [each for each in differing if each.kind == "param" and each.name != "pipeline"]
    metrics = [each for each in differing if each.kind == "metric"]
    return [*params[:4], *metrics[:4]]


def _parallel(runs: Sequence[Run], axes: Sequence[ComparedValue]) -> Markup:
    lines = [
        ParallelLine(
            f"run {run.id} of {run.pipeline}",
            [_drawable(axis.values[place]) for axis in axes],
            run_address(run.id),
        )
        for place, run in enumerate(runs)
    ]
    chart = draw_parallel(
        "Parallel coordinates",
        f"Each line is one of {format_count(len(runs), 'run')}; each axis is a parameter or a "
        "metric that differs, from its smallest value below to its largest above.",
        [axis.name for axis in axes],
        lines,
    )
    return show_chart(chart)


def _drawable(value: Any) -> float | str | None:
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return None
    if isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    return str(value)


# What several pages write


def run_address(run_id: str) -> str:
    """Return the address of a run."""
    return f"/runs/{quote(run_id, safe='')}"


def comparison_address(run_ids: Sequence[str]) -> str:
    """Return the address that compares runs."""
    return f"/runs/compare?{urlencode([('run', each) for each in run_ids])}"


def status_badge(status: str) -> Markup:
    """Write the status of a run or a step."""
    return element("span", status, class_=f"badge tone-{TONES.get(status, 'plain')}")
