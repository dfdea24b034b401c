"""Model versions: their evaluation, how they are served, what the gate says, and promotion."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from clewline.console.page import PageAnswer, PageRequest, PageRoute, Redirect, View
from clewline.console.rendering import page_address
from clewline.console.table import Column, Table, TableRows, offset_source
from clewline.errors import InvalidInput
from clewline.evaluation.metrics import SMALLER_IS_BETTER
from clewline.formatting import format_count, format_number
from clewline.html.charts import Line, draw_lines
from clewline.html.markup import Content, Markup, element, isolated, join
from clewline.html.model_report import make_sections, show_differences, show_lead
from clewline.html.page import show_badge, show_chart, show_facts
from clewline.model.compile.equivalence import EquivalenceRecord
from clewline.model.promote import judge, promote
from clewline.model.registry import Registry
from clewline.model.registry_chain import PROMOTED
from clewline.model.reported_version import (
    ReportedVersion,
    compare_metrics,
    compare_reported,
    read_version,
)
from clewline.model.verify import verify
from clewline.model.version_differences import compare_versions
from clewline.store import lineage
from clewline.store.records import Alias, ChainEntry, ModelVersion
from clewline.store.ref import RecordRef
from clewline.store.store import Store

CHARTED = 500
"""Versions of a model whose metric is drawn, the newest ones."""
SUGGESTED = 200
"""Versions that a field suggests."""
MOVES_READ = 500
"""Links of the chain that are read for the moves of aliases, the newest ones."""
PARTS = {
    "report": "Evaluation",
    "served": "How it is served",
    "promote": "Gate and aliases",
    "used": "Used by",
}


class ModelsPage:
    """Versions of models."""

    name = "models"
    title = "Models"
    place = 40

    def routes(self) -> Sequence[PageRoute]:
        """Return the addresses of the list, of a comparison, of a model and of a version."""
        return (
            PageRoute("/models", list_models),
            PageRoute("/models/compare", compare),
            PageRoute("/models/{name}", show_model),
            PageRoute("/models/{name}/{number}", show_version),
            PageRoute("/models/{name}/{number}/promote", move_alias, method="POST", role="operate"),
        )


def list_models(request: PageRequest) -> PageAnswer:
    """List versions of all models, newest first, and where the aliases are."""
    begin = request.query.get("name", "").strip()
    prefix = {"name": begin} if begin else None
    catalog = request.store.catalog
    held = _alias_rows(request, prefix)
    versions = _version_table(request, prefix=prefix)
    return View(
        "models.html",
        title="Models",
        values={
            "name": begin,
            "versions": versions,
            "aliases": Table(
                "aliases",
                (
                    Column("alias", "Alias", show=lambda row: _badge(row["alias"])),
                    Column(
                        "model", "Version", link=lambda row: page_address("model", row["model"])
                    ),
                    Column("moved", "Since", kind="time"),
                ),
                offset_source(lambda offset, limit, _: held[offset : offset + limit], len(held)),
                request,
                empty=element(
                    "span",
                    "No version has an alias. Type ",
                    element("code", "clewline models promote NAME@NUMBER champion"),
                    ".",
                ),
                caption="Aliases",
                page_rows=10,
            ),
            "count": format_count(catalog.count(ModelVersion, prefix=prefix), "version"),
        },
    )


def show_model(request: PageRequest) -> PageAnswer:
    """Show the versions of one model, and how its metric went."""
    name = request.path["name"]
    registry = Registry(request.project, request.store)
    newest = registry.list(name, limit=CHARTED)
    champion = request.store.catalog.get(Alias, name, "champion")
    first = f"{name}@{champion.number}" if champion else ""
    if not first or first == newest[0].ref:
        first = newest[1].ref if len(newest) > 1 else newest[0].ref
    return View(
        "models_name.html",
        title=name,
        values={
            "name": name,
            "newest": newest[0],
            "chart": _metric_chart(name, newest),
            "versions": _version_table(request, equal={"name": name}),
            "refs": [each.ref for each in newest[:SUGGESTED]],
            "first": first,
            "second": newest[0].ref,
            "aliases": registry.aliases(name),
        },
    )


def show_version(request: PageRequest) -> PageAnswer:
    """Show one version: its evaluation, how it is served, the gate, and what uses it."""
    registry = Registry(request.project, request.store)
    version = read_version(registry, f"{request.path['name']}@{request.path['number']}")
    part = request.query.get("part", "report")
    if part not in PARTS:
        raise InvalidInput(f"A version has no part {part!r}.", f"Its parts are {', '.join(PARTS)}.")
    show = {
        "report": _report_values,
        "served": _served_values,
        "promote": _gate_values,
        "used": _use_values,
    }[part]
    return View(
        "models_version.html",
        title=version.ref,
        values={
            "version": version,
            "manifest": version.package.manifest,
            "part": part,
            "parts": PARTS,
            "lead": show_lead(version),
            **show(request, registry, version),
        },
    )


def compare(request: PageRequest) -> PageAnswer:
    """Compare two versions: what differs, and how much better one is on the same rows."""
    refs = [request.query.get(key, "").strip() for key in ("first", "second")]
    registry = Registry(request.project, request.store)
    values: dict[str, Any] = {
        "refs": [each.ref for each in registry.list(limit=SUGGESTED)],
        "first": refs[0],
        "second": refs[1],
        "is_asked": request.query.get("ask") == "yes",
        "differences": None,
    }
    if not all(refs):
        return View("models_compare.html", title="Compare versions", values=values)
    first, second = (read_version(registry, ref) for ref in refs)
    if values["is_asked"]:
        differences, unpaired = compare_reported(registry, second, first)
    else:
        differences, unpaired = compare_metrics(second, first), ""
    rows = compare_versions(first.package, second.package, first.run, second.run)
    table = Table(
        "properties",
        (
            Column("property", "Property"),
            Column("left", first.ref),
            Column("right", second.ref),
        ),
        offset_source(lambda offset, limit, _: rows[offset : offset + limit], len(rows)),
        request,
        empty=f"{first.ref} and {second.ref} do not differ.",
        caption="What differs",
    )
    values |= {
        "first": first.ref,
        "second": second.ref,
        "differences": show_differences(second, first, differences, unpaired),
        "has_metrics": bool(differences),
        "table": table,
    }
    return View("models_compare.html", title=f"{first.ref} and {second.ref}", values=values)


def move_alias(request: PageRequest) -> PageAnswer:
    """Move an alias to a version that passes the gate, or whose gate a person overrules."""
    ref = f"{request.path['name']}@{request.path['number']}"
    reason = request.form.get("reason", "").strip()
    if not reason:
        raise InvalidInput(
            f"{ref} was not promoted, because no reason was given.", "Say why, in words."
        )
    with Store.open(request.project.store_root) as store:
        promote(
            Registry(request.project, store),
            ref,
            request.form.get("alias", "").strip(),
            force=reason if request.form.get("overrule") == "yes" else None,
            reason=reason,
            person=request.person.name,
        )
    return Redirect(f"{page_address('model', ref)}?part=promote")


# ---- the parts of a version


def _report_values(
    request: PageRequest, registry: Registry, version: ReportedVersion
) -> dict[str, Any]:
    return {"sections": make_sections(version)}


def _served_values(
    request: PageRequest, registry: Registry, version: ReportedVersion
) -> dict[str, Any]:
    manifest = version.package.manifest
    record = msgspec.convert(manifest.equality or None, EquivalenceRecord | None)
    verification = None
    if request.query.get("verify") == "yes":
        verification = verify(registry, version.ref)
    return {
        "record": record,
        "equality": None if record is None else _equality(record),
        "verification": verification,
        "package": version.package,
    }


def _equality(record: EquivalenceRecord) -> Markup:
    sizes = ", ".join(map(str, record.batch_sizes)) or "none"
    facts: list[tuple[str, Content]] = [
        ("served form", f"{record.executed_by}, {record.form}"),
        ("verified equal", "yes" if record.verified else "no"),
        ("rows of the test table", f"{record.rows:,}"),
        ("synthetic rows", f"{record.synthetic_rows:,}"),
        (
            "split thresholds tried",
            f"{record.split_thresholds_tried:,} of {record.split_thresholds:,}",
        ),
        ("labels that differed", f"{record.flips:,}"),
        ("largest difference", f"{record.max_difference:.3g} (allowed {record.tolerance:.0e})"),
        ("rows with the same bits", f"{record.identical_rows:,}"),
        ("same bits in batches of", sizes),
    ]
    facts += [(f"tried: {each.form}", isolated(each.reason, 400)) for each in record.attempts]
    return show_facts(facts)


def _gate_values(
    request: PageRequest, registry: Registry, version: ReportedVersion
) -> dict[str, Any]:
    verdicts = judge(registry, version.ref)
    name = version.package.manifest.name
    rows = [
        {
            "rule": each.rule,
            "asked": each.asked,
            "found": each.found,
            "passed": each.passed,
            "line": each.line,
        }
        for each in verdicts or ()
    ]
    gate = Table(
        "gate",
        (
            Column("rule", "Rule"),
            Column("passed", "Verdict", show=lambda row: _verdict(row["passed"])),
            Column("asked", "Asked"),
            Column("found", "Found"),
            Column("line", "Line of gate.yaml", kind="number"),
        ),
        offset_source(lambda offset, limit, _: rows[offset : offset + limit], len(rows)),
        request,
        caption="What gate.yaml asks",
        empty=f"gate.yaml asks nothing of {name}: only its seal is checked.",
    )
    moves = _moves(request, name)
    history = Table(
        "moves",
        (
            Column("time", "When", kind="time"),
            Column("alias", "Alias", show=lambda row: _badge(row["alias"])),
            Column("model", "To", link=lambda row: page_address("model", row["model"])),
            Column("before", "From"),
            Column("person", "By"),
            Column("reason", "Why"),
            Column("overruled", "Gate", show=_overruled),
        ),
        offset_source(lambda offset, limit, _: moves[offset : offset + limit], len(moves)),
        request,
        caption=f"Moves of the aliases of {name}",
        empty=f"No alias of {name} was moved.",
        page_rows=10,
    )
    return {
        "gate": gate,
        "history": history,
        "failed": sum(not row["passed"] for row in rows),
        "has_gate": verdicts is not None,
        "may_promote": request.person.may("operate"),
        "known": sorted({"champion", *(each.alias for each in registry.aliases(name))}),
    }


def _moves(request: PageRequest, name: str) -> list[dict[str, Any]]:
    """Return the moves of a model's aliases as the signed chain holds them, newest first."""
    links = request.store.catalog.find(
        ChainEntry, prefix={"kind": PROMOTED}, order="-seq", limit=MOVES_READ
    )
    return [
        {
            "time": link.created,
            "alias": link.body["alias"],
            "model": link.body["model"],
            "before": link.body.get("before"),
            "person": link.body.get("person") or link.body.get("by"),
            "reason": link.body.get("reason") or link.body.get("forced"),
            "overruled": bool(link.body.get("forced")),
        }
        for link in links
        if link.body["model"].rpartition("@")[0] == name
    ]


def _use_values(
    request: PageRequest, registry: Registry, version: ReportedVersion
) -> dict[str, Any]:
    reader = request.store.catalog.reader
    root = lineage.impact(reader, RecordRef("model", version.ref))
    rows = [
        {
            "revision": node.ref,
            "live": node.facts.get("live") == node.ref,
            "created": node.record.created,
            "models": ", ".join(dict.fromkeys(node.record.models.values())),
        }
        for node in root.children
        if node.kind == "revision"
    ]
    rows.reverse()
    return {
        "revisions": Table(
            "revisions",
            (
                Column(
                    "revision",
                    "Revision",
                    link=lambda row: page_address("revision", row["revision"]),
                ),
                Column("live", "State", show=lambda row: _live(row["live"])),
                Column("models", "Models"),
                Column("created", "Applied", kind="time"),
            ),
            offset_source(lambda offset, limit, _: rows[offset : offset + limit], len(rows)),
            request,
            caption=f"Revisions that {version.ref} is in",
            empty=element(
                "span",
                f"No endpoint uses {version.ref}. Name it in endpoints/NAME.yaml and type ",
                element("code", "clewline endpoints apply"),
                ".",
            ),
        )
    }


# ---- parts that several views share


def _version_table(
    request: PageRequest,
    *,
    prefix: dict[str, str] | None = None,
    equal: Mapping[str, Any] | None = None,
) -> Table:
    catalog, where = request.store.catalog, dict(equal or {})

    def rows(offset: int, limit: int, sort: str) -> list[Mapping[str, Any]]:
        found = catalog.find(
            ModelVersion, order=sort, limit=limit, offset=offset, prefix=prefix, **where
        )
        held = {
            name: catalog.find(Alias, name=name, limit=None) for name in {v.name for v in found}
        }
        return [_version_row(each, held[each.name]) for each in found]

    def source(cursor: str | None, limit: int, sort: str) -> TableRows:
        total = catalog.count(ModelVersion, prefix=prefix, **where)
        return offset_source(rows, total)(cursor, limit, sort)

    columns = [
        Column("model", "Version", link=lambda row: page_address("model", row["model"])),
        Column("aliases", "Alias", show=lambda row: _badges(row["aliases"])),
        Column("metric", "Metric"),
        Column("value", "Value", kind="number"),
        Column("task", "Task", sort=True),
        Column("runtime", "Served by", sort=True),
        Column("size_bytes", "Size", kind="size", sort=True),
        Column("created", "Registered", kind="time", sort=True),
        Column("run", "Run", kind="id", link=_run_address),
    ]
    return Table(
        "versions",
        columns,
        source,
        request,
        sort="-created",
        caption="Versions",
        empty=element(
            "span",
            "No version is registered here. Call ",
            element("code", "cl.register(…)"),
            " in a pipeline, then ",
            element("code", "clewline run PIPELINE"),
            ".",
        ),
    )


def _version_row(version: ModelVersion, held: Sequence[Alias]) -> Mapping[str, Any]:
    metric = next(iter(version.metrics.items()), (None, None))
    return {
        "model": version.ref,
        "aliases": " ".join(each.alias for each in held if each.number == version.number),
        "metric": metric[0],
        "value": metric[1],
        "task": version.task,
        "runtime": version.runtime,
        "size_bytes": version.size_bytes,
        "created": version.created,
        "run": version.run,
    }


def _alias_rows(request: PageRequest, prefix: dict[str, str] | None) -> list[dict[str, Any]]:
    held = request.store.catalog.find(Alias, order="-moved", limit=CHARTED, prefix=prefix)
    return [
        {"alias": each.alias, "model": f"{each.name}@{each.number}", "moved": each.moved}
        for each in held
    ]


def _metric_chart(name: str, newest: Sequence[ModelVersion]) -> Markup | None:
    """Draw the first metric of the newest version over all versions that have it."""
    metric = next((each for each in newest[0].metrics), None)
    points = [
        (float(each.number), each.metrics[metric])
        for each in reversed(newest)
        if metric is not None and metric in each.metrics
    ]
    if metric is None or len(points) < 2:
        return None
    pick = min if metric in SMALLER_IS_BETTER else max
    number, best = pick(points, key=lambda point: point[1])
    sentence = (
        f"{metric} of {format_count(len(points), 'version')}: best {format_number(best)} of "
        f"{name}@{number:.0f}, newest {format_number(points[-1][1])}."
    )
    chart = draw_lines(
        f"{metric} by version",
        sentence,
        [Line(metric, points, dots=True)],
        x="version",
        y=metric,
        height=200,
    )
    return show_chart(chart)


def _run_address(row: Mapping[str, Any]) -> str | None:
    return page_address("run", row["run"]) if row["run"] else None


def _badge(text: str) -> Markup:
    return show_badge("model", text)


def _badges(aliases: str) -> Markup:
    return join([[_badge(each), " "] for each in aliases.split()])


def _verdict(passed: bool) -> Markup:
    return show_badge("good" if passed else "bad", "passes" if passed else "fails")


def _overruled(row: Mapping[str, Any]) -> Content:
    return show_badge("other", "overruled") if row["overruled"] else "passed"


def _live(is_live: bool) -> Content:
    return show_badge("good", "live") if is_live else element("span", "earlier", class_="muted")
