"""How model versions are shown to a person."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from clewline.cli.output import console, print_message
from clewline.formatting import format_number, format_size, format_time
from clewline.store.records import ModelVersion, Run

if TYPE_CHECKING:
    from rich.table import Table

    from clewline.model.compare import VersionDifference
    from clewline.model.gate import GateVerdict
    from clewline.model.package import Package
    from clewline.model.promote import Promotion
    from clewline.model.verify import Verification
    from clewline.signature.field import Output


FOLD = 34  # columns of text, so that two of them stand beside a rule in 100


def versions(
    found: Sequence[ModelVersion], aliases: dict[str, list[str]], limit: int, offset: int
) -> None:
    """Print a list of versions."""
    if not found and offset:
        print_message(f"There are no more than {offset}.")
        return
    if not found:
        print_message("No model is registered yet: `cl.register(…)` in a pipeline does it.")
        return
    table = _table("model", "alias", "task", "metric", "served by", "size", "registered", "run")
    for version in found:
        ref = version.ref
        table.add_row(
            f"[bold]{ref}[/bold]",
            " ".join(aliases.get(ref, [])),
            version.task,
            " ".join(
                f"{name} {format_number(value)}"
                for name, value in list(version.metrics.items())[:1]
            ),
            version.runtime,
            format_size(version.size_bytes),
            _day(version.created),
            version.run or "",
        )
    console().print(table)
    if len(found) == limit:
        print_message(f"{limit} are shown; --offset {offset + limit} shows those before.")


def version(package: Package, aliases: list[str], run: Run | None) -> None:
    """Print what a version is."""
    manifest, out = package.manifest, console()
    named = f"  ({', '.join(aliases)})" if aliases else ""
    out.print(f"[bold]{manifest.ref}[/bold]{named}", highlight=False)
    facts = _facts(*_about(package, run))
    out.print(facts)
    if manifest.report:
        out.print(_metrics(manifest.report))
    out.print(_fields(package))


def _about(package: Package, run: Run | None) -> list[tuple[str, str]]:
    manifest = package.manifest
    code = manifest.code
    changed = code.get("changed") or []
    told = [
        ("answers", _answers(package)),
        ("served by", f"{manifest.runtime}, {format_size(package.size_bytes)}"),
        ("equality", str(manifest.equality.get("sentence", "not recorded"))),
        ("run", _ran(run) if run else manifest.run or "none"),
        ("code", f"commit {str(code.get('commit') or 'none')[:12]}, {_changed(changed)}"),
    ]
    if manifest.runtime == "python":
        told.append(("class", _class(manifest.encoding)))
    for name, table in manifest.data.items():
        told.append((f"{name} data", f"{table['rows']:,} rows, {str(table['artifact'])[:12]}"))
    told.append(("registered", format_time(manifest.created)))
    told.append(("package", f"{package.digest[:12]}, sealed, every byte checked just now"))
    return told


def _class(said: dict[str, Any]) -> str:
    """Say what a Python model is made of."""
    needs = " ".join(f"{name}=={at}" for name, at in said.get("requirements", {}).items())
    files = ", ".join(said.get("files", ()))
    parts = [f"{said.get('class')} of {said.get('module')}, given {said.get('frame')}"]
    parts += [f"files {files}"] if files else []
    return "; ".join([*parts, *([f"needs {needs}"] if needs else [])])


def _answers(package: Package) -> str:
    output = package.signature.output
    if output.fields is not None:
        names = [field.name for field in output.fields]
        more = f" … {len(names)} in all" if len(names) > 6 else ""
        return f"fields: {', '.join(names[:6])}{more}"
    if output.labels is None:
        return f"{output.name}, {_numbers(output)}"
    alone = "" if output.has_probabilities else " (without probabilities)"
    return f"{output.name}: {', '.join(map(str, output.labels))}{alone}"


def _numbers(output: Output) -> str:
    if output.shape is None:
        return "a number"
    return f"{output.dtype} of shape {list(output.shape)}"


def _ran(run: Run) -> str:
    params = " ".join(f"{name}={value}" for name, value in run.params.items())
    return f"{run.id} {run.pipeline} {params}".rstrip()


def _changed(changed: list[str]) -> str:
    if not changed:
        return "no changed files"
    more = f" and {len(changed) - 5} more" if len(changed) > 5 else ""
    return f"changed: {', '.join(changed[:5])}{more}"


def _metrics(report: dict[str, Any]) -> Table:
    from clewline.model.promote import report_metrics

    baseline = report.get("baseline") or {}
    rule = _scores(baseline)
    table = _table("metric", "value", "interval", "plain rule")
    for name, score in report_metrics(report).items():
        interval = f"[{score.low:.4g}, {score.high:.4g}]"
        table.add_row(name, f"{score.value:.4g}", interval.replace("[", r"\["), rule.get(name, ""))
    table.caption = f"plain rule: {baseline.get('rule', 'none')}"
    table.caption_justify = "left"
    return table


def _scores(baseline: dict[str, Any]) -> dict[str, str]:
    from clewline.model.promote import report_metrics

    return {name: f"{score.value:.4g}" for name, score in report_metrics(baseline).items()}


def _fields(package: Package) -> Table:
    table = _table("field", "kind", "null", "bounds or levels")
    for field in package.signature.fields:
        limits = " to ".join(field.bound_texts())
        if field.shape is not None:
            limits = f"{field.dtype} of shape {list(field.shape)}"
        if field.levels:
            more = f" … {len(field.levels)} in all" if len(field.levels) > 6 else ""
            limits = ", ".join(field.levels[:6]) + more
        table.add_row(field.name, field.kind, "yes" if field.nullable else "", limits)
    return table


def difference(left: str, right: str, found: Sequence[VersionDifference]) -> None:
    """Print what differs between two versions."""
    if not found:
        print_message(f"{left} and {right} differ in nothing.")
        return
    table = _table("", left, right)
    for item in found:
        table.add_row(item.property, *(_plain(text) for text in (item.left, item.right)))
    console().print(table)


def verification(found: Verification) -> None:
    """Print what is sound and what is not."""
    out = console()
    for check in found.versions:
        out.print(
            f"{_mark(check.problem is None)} {check.model}  {_plain(check.problem or 'sound')}"
        )
    chain = f"chain of {_count(found.links, 'link')}, {_count(found.anchors, 'head')} in Git"
    out.print(f"{_mark(not found.problems)} {chain}{'' if found.problems else '  sound'}")
    for problem in found.problems:
        out.print(f"    {_plain(problem)}")


def promotion(done: Promotion) -> None:
    """Print what came of a promotion."""
    out = console()
    if done.verdicts:
        gate(done.verdicts, "")
    before = f", before {done.before}" if done.before and done.moved else ""
    now = "is" if done.moved else "was already"
    out.print(f"[bold]{done.model}[/bold] {now} [bold]{done.alias}[/bold]{before}")
    if done.forced:
        out.print(f"The gate was overruled, and the chain says why: {_plain(done.forced)}")
    if done.verdicts is None:
        print_message(
            "No gate.yaml asks anything of this model, so nothing was checked but its seal."
        )
    if done.anchored:
        print_message(
            f"The registry's head is in Git; keep it elsewhere: git push origin {done.anchored}"
        )
    else:
        print_message("Not in a Git repository: the registry's head is kept nowhere else.")


def gate(verdicts: Sequence[GateVerdict], title: str) -> None:
    """Print every line of the gate, judged."""
    out = console()
    if title:
        out.print(f"[bold]{_plain(title)}[/bold]")
    table = _table("", "gate.yaml", "asked", "found")
    for column in table.columns[2:]:
        column.max_width = FOLD
    for verdict in verdicts:
        line = f"line {verdict.line}  " if verdict.line else ""
        table.add_row(
            _mark(verdict.passed),
            f"{line}{verdict.rule}",
            _plain(verdict.asked),
            _plain(verdict.found),
        )
    out.print(table)


def _facts(*pairs: tuple[str, str]) -> Table:
    from rich.table import Table

    table = Table.grid(padding=(0, 2))
    for name, text in pairs:
        table.add_row(f"[dim]{name}[/dim]", _plain(text))
    return table


def _table(*columns: str) -> Table:
    from rich.table import Table

    return Table(*columns, box=None, pad_edge=False, header_style="dim", padding=(0, 2, 0, 0))


def _count(number: int, what: str) -> str:
    return f"{number or 'no'} {what}{'' if number == 1 else 's'}"


def _plain(text: str) -> str:
    from rich.markup import escape

    return escape(text)


def _mark(good: bool) -> str:
    return "[green]✓[/green]" if good else "[red]✗[/red]"


def _day(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M")
