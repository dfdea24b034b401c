"""How model versions are printed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import msgspec
from rich.markup import escape
from rich.table import Table

from clewline.cli.output import console, make_table, print_message
from clewline.formatting import (
    format_count,
    format_list,
    format_number,
    format_size,
    format_time,
    short_digest,
)
from clewline.store.records import ModelVersion, Run

if TYPE_CHECKING:
    from clewline.model.gate import GateVerdict
    from clewline.model.package import Package
    from clewline.model.paired_comparison import PairedComparison
    from clewline.model.promote import Promotion
    from clewline.model.reported_version import PairedDifference, ReportedVersion
    from clewline.model.verify import Verification
    from clewline.signature.field import Output


FOLD = 34  # columns of text, so that two of them fit beside a rule in 100


def print_versions(
    found: Sequence[ModelVersion], aliases: dict[str, list[str]], limit: int, offset: int
) -> None:
    """Print a list of versions."""
    if not found and offset:
        print_message(f"There are no more than {offset}.")
        return
    if not found:
        print_message("No model is registered yet. Call `cl.register(…)` in a pipeline.")
        return
    table = make_table("model", "alias", "task", "metric", "served by", "size", "registered", "run")
    for version in found:
        metric = next(iter(version.metrics.items()), None)
        table.add_row(
            f"[bold]{version.ref}[/bold]",
            " ".join(aliases.get(version.ref, [])),
            version.task,
            f"{metric[0]} {format_number(metric[1])}" if metric else "",
            version.runtime,
            format_size(version.size_bytes),
            datetime.fromtimestamp(version.created, UTC).strftime("%Y-%m-%d %H:%M"),
            version.run or "",
        )
    console().print(table)
    if len(found) == limit:
        print_message(f"{limit} are shown; --offset {offset + limit} shows older ones.")


def print_version(package: Package, aliases: list[str], run: Run | None) -> None:
    """Print the facts, metrics and fields of a version."""
    out, report = console(), package.manifest.report
    named = f"  ({', '.join(aliases)})" if aliases else ""
    out.print(f"[bold]{package.manifest.ref}[/bold]{named}", highlight=False)
    facts = Table.grid(padding=(0, 2))
    for name, text in _facts(package, run):
        facts.add_row(f"[dim]{name}[/dim]", escape(text))
    out.print(facts)
    if report:
        out.print(_metrics(report))
        _print_sections(package)
    fields = make_table("field", "kind", "null", "bounds or levels")
    for field in package.signature.fields:
        limits = " to ".join(field.bound_texts()) or format_list(field.levels or ())
        if field.shape is not None:
            limits = f"{field.dtype} of shape {list(field.shape)}"
        fields.add_row(field.name, field.kind, "yes" if field.nullable else "", escape(limits))
    out.print(fields)


def _print_sections(package: Package) -> None:
    from clewline.cli.evaluation_text import evaluation_lines
    from clewline.model.evaluation_record import read_evaluation

    evaluation = read_evaluation(package)
    if evaluation is None:
        print_message("Its metrics are all that is known: it was registered without a record.")
        return
    lines = Table.grid(padding=(0, 2))
    for name, text in evaluation_lines(evaluation):
        lines.add_row(f"[dim]{escape(name)}[/dim]", escape(text))
    if lines.row_count:
        console().print(lines)


def _facts(package: Package, run: Run | None) -> Iterator[tuple[str, str]]:
    from clewline.model.compile.equivalence import EquivalenceRecord

    manifest, code = package.manifest, package.manifest.code
    yield "answers", _describe_output(package.signature.output)
    yield "served by", f"{manifest.runtime}, {format_size(package.size_bytes)}"
    equality = msgspec.convert(manifest.equality or None, EquivalenceRecord | None)
    yield "equality", equality.sentence if equality else "not recorded"
    params = "".join(f" {name}={value}" for name, value in run.params.items()) if run else ""
    yield "run", f"{run.id} {run.pipeline}{params}" if run else manifest.run or "none"
    changed = code.get("changed") or []
    files = f"changed: {format_list(changed, 5)}" if changed else "no changed files"
    yield "code", f"commit {short_digest(str(code.get('commit') or 'none'))}, {files}"
    if "class" in (encoding := manifest.encoding):
        parts = [f"{encoding['class']} of {encoding.get('module')}, takes {encoding.get('frame')}"]
        if names := ", ".join(encoding.get("files", ())):
            parts.append(f"files {names}")
        if needs := " ".join(f"{n}=={at}" for n, at in encoding.get("requirements", {}).items()):
            parts.append(f"needs {needs}")
        yield "class", "; ".join(parts)
    for name, table in manifest.data.items():
        yield f"{name} data", f"{table['rows']:,} rows, {short_digest(str(table['artifact']))}"
    yield "registered", format_time(manifest.created)
    yield "package", f"{short_digest(package.digest)}, seal and every byte verified"


def _describe_output(output: Output) -> str:
    if output.fields is not None:
        return f"fields: {format_list(field.name for field in output.fields)}"
    if output.labels is not None:
        alone = "" if output.has_probabilities else " (without probabilities)"
        return f"{output.name}: {', '.join(map(str, output.labels))}{alone}"
    if output.shape is not None:
        return f"{output.name}, {output.dtype} of shape {list(output.shape)}"
    return f"{output.name}, a number"


def _metrics(report: dict[str, Any]) -> Table:
    from clewline.model.promote import report_metrics

    baseline = report.get("baseline") or {}
    rule = report_metrics(baseline)
    table = make_table("metric", "value", "interval", "baseline")
    for name, score in report_metrics(report).items():
        interval = escape(f"[{score.low:.4g}, {score.high:.4g}]")
        plain = format_number(rule[name].value) if name in rule else ""
        table.add_row(name, format_number(score.value), interval, plain)
    table.caption = f"baseline: {baseline.get('rule', 'none')}"
    table.caption_justify = "left"
    return table


def print_report(
    version: ReportedVersion, other: ReportedVersion | None, differences: Sequence[PairedDifference]
) -> None:
    """Print the verdict and the metrics, or the differences from another version."""
    out, report = console(), version.report
    if report is None:
        print_message(f"{version.ref} was not evaluated. Register it with test=.")
    else:
        out.print(escape(str(report)))
    if other is not None:
        table = make_table("metric", version.ref, other.ref, "difference")
        for each in differences:
            found = format_number(each.ours - each.theirs)
            if each.difference is not None:
                found = escape(str(each.difference))
            table.add_row(each.metric, format_number(each.ours), format_number(each.theirs), found)
        out.print(table)
    elif report is not None:
        out.print(_metrics(msgspec.to_builtins(report)))


def print_differences(left: str, right: str, found: Sequence[dict[str, str]]) -> None:
    """Print what differs between two versions."""
    if not found:
        print_message(f"{left} and {right} do not differ.")
        return
    table = make_table("", left, right)
    for item in found:
        table.add_row(*(escape(text) for text in item.values()))
    console().print(table)


def print_paired(found: PairedComparison) -> None:
    """Print two versions on the same test rows."""
    rows = f"the same {format_count(found.rows, 'row')}"
    grouped = f" (drawn by {found.group})" if found.group else ""
    table = make_table(f"on {rows}", found.left, found.right, "difference", "better")
    names = {"left": found.left, "right": found.right, None: ""}
    for name, metric in found.metrics.items():
        figures = (format_number(metric.left.value), format_number(metric.right.value))
        table.add_row(name, *figures, escape(str(metric.difference)), names[metric.better])
    console().print(table)
    same = f"{found.same_answers:,} of {found.rows:,} rows have the same answer{grouped}"
    if found.only_left_right is not None and found.only_right_right is not None:
        same += (
            f"; only {found.left} is right on {found.only_left_right:,}, only {found.right} on "
            f"{found.only_right_right:,}"
        )
    print_message(f"{same}.")


def print_verification(found: Verification) -> None:
    """Print which packages are sound, and what is wrong with the chain."""
    out = console()
    for check in found.versions:
        mark, text = _mark(check.problem is None), escape(check.problem or "sound")
        out.print(f"{mark} {check.model}  {text}")
    links = format_count(found.links, "link") if found.links else "no links"
    heads = format_count(found.anchors, "head") if found.anchors else "no heads"
    problems = [*found.problems, *(record.message for record in found.records)]
    sound = "" if problems else "  sound"
    out.print(f"{_mark(not problems)} chain of {links}, {heads} in Git{sound}")
    for problem in problems:
        out.print(f"    {escape(problem)}")


def print_promotion(done: Promotion) -> None:
    """Print the result of a promotion."""
    out = console()
    if done.verdicts:
        print_gate(done.verdicts, "")
    before = f", before {done.before}" if done.before and done.moved else ""
    verb = "is" if done.moved else "was already"
    out.print(f"[bold]{done.model}[/bold] {verb} [bold]{done.alias}[/bold]{before}")
    if done.forced:
        out.print(f"The gate was overruled; the chain records why: {escape(done.forced)}")
    if done.verdicts is None:
        print_message("gate.yaml has no rule for this model, so only its seal was checked.")
    if done.anchored:
        print_message(
            f"The registry's head is in Git. Copy it to a remote: git push origin {done.anchored}"
        )
    else:
        print_message("This is not a Git repository: only the catalog has the registry's head.")


def print_gate(verdicts: Sequence[GateVerdict], title: str) -> None:
    """Print every rule of the gate with its verdict."""
    out = console()
    if title:
        out.print(f"[bold]{escape(title)}[/bold]")
    table = make_table("", "gate.yaml", "asked", "found")
    for column in table.columns[2:]:
        column.max_width = FOLD
    for verdict in verdicts:
        line = f"line {verdict.line}  " if verdict.line else ""
        table.add_row(
            _mark(verdict.passed),
            f"{line}{verdict.rule}",
            escape(verdict.asked),
            escape(verdict.found),
        )
    out.print(table)


def _mark(good: bool) -> str:
    return "[green]✓[/green]" if good else "[red]✗[/red]"
