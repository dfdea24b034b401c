"""How endpoints, their graphs and what changes are shown to a person."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from clewline.cli.output import console, message
from clewline.formatting import format_list, format_time, short_digest
from clewline.serve import revision as revisions
from clewline.serve.graph.difference import RevisionChange
from clewline.serve.graph.problems import Problem
from clewline.serve.graph.tree import Tree, below, of_revision, title

if TYPE_CHECKING:
    from rich.table import Table
    from rich.tree import Tree as Drawing

    from clewline.serve.trial import GraphTrial, NodeTime
    from clewline.store.records import LiveRevision, Revision


class Listed(msgspec.Struct, frozen=True):
    """An endpoint in a list."""

    endpoint: str
    revision: str | None  # the live one
    models: list[str]
    file: bool  # whether endpoints/NAME.yaml is there
    state: str
    since: float | None


class Checked(msgspec.Struct, frozen=True, kw_only=True):
    """What a check of an endpoint's file came to; with problems there is nothing else."""

    endpoint: str
    problems: list[Problem] = []
    live: str | None = None
    next: str | None = None  # the revision that apply would make, or the live one
    models: dict[str, str] = {}
    graph: dict[str, object] = {}
    changes: list[RevisionChange] = []
    trial: GraphTrial | None = None


COLOURS = {"model": "bold green", "transform": "cyan", "after": "cyan", "shadow": "dim"}


def listing(listed: Sequence[Listed]) -> None:
    """Print a list of endpoints."""
    if not listed:
        message(
            "There are no endpoints. Write endpoints/NAME.yaml, then `clewline endpoints apply`."
        )
        return
    table = _table("endpoint", "revision", "state", "models", "live since")
    for item in listed:
        table.add_row(
            f"[bold]{item.endpoint}[/bold]",
            item.revision or "",
            item.state,
            format_list(dict.fromkeys(item.models), 4),
            format_time(item.since) if item.since else "",
        )
    console().print(table)


def endpoint(live: Revision, state: LiveRevision, history: Sequence[Revision]) -> None:
    """Print an endpoint: its graph with pinned versions, and the revisions before."""
    out = console()
    timeout = revisions.timeout_ms(live)
    said = [
        "unloaded" if state.unloaded else "live",
        f"since {format_time(state.moved)},",
        f"logged by {revisions.durability(live)}",
        *([f"within {timeout:g} ms"] if timeout else []),
        *(["pinned in memory"] if revisions.is_pinned(live) else []),
    ]
    out.print(f"[bold]{live.ref}[/bold] is {' '.join(said)}", highlight=False)
    out.print(drawing(of_revision(live)))
    out.print(_pinned(live))
    past = _table("revision", "applied", "models")
    for item in history:
        models = format_list(dict.fromkeys(item.models.values()), 4)
        past.add_row(item.ref, format_time(item.created), models)
    out.print(past)


def drawing(tree: Tree, key: str = "") -> Drawing:
    """Draw a graph: one node a branch, with its name and what it is."""
    from rich.text import Text
    from rich.tree import Tree as Drawing

    kind, _, name = key.partition(".")
    named = f"{name} (shadow)  " if kind == "shadows" else f"{name}  " if name else ""
    label = Text.assemble((named, "bold"), (title(tree), COLOURS.get(tree["kind"], "yellow")))
    root = Drawing(label, guide_style="dim")
    for child_key, child in below(tree):
        root.add(drawing(child, child_key))
    return root


def checked(found: Checked) -> None:
    """Print what a check came to."""
    out = console()
    if found.problems:
        problems(found.endpoint, found.problems)
        return
    assert found.trial is not None
    if found.next == found.live:
        out.print(f"[bold]{found.endpoint}[/bold]: {found.live} is live already")
    else:
        live = f"{found.live} is live now" if found.live else "nothing is live yet"
        out.print(f"[bold]{found.endpoint}[/bold]: apply makes {found.next}; {live}")
        changes(found.changes)
    _tried(found.trial)


def _tried(trial: GraphTrial) -> None:
    out = console()
    out.print(
        f"  {trial.rows} background rows answered, {trial.flagged_rows} flagged, "
        f"{trial.refused_rows} refused by accepted bounds"
    )
    out.print(f"  {trial.row_ms:.2f} ms a row alone, {trial.many_row_ms:.3f} ms among {trial.rows}")
    if len(trial.nodes) > 1:
        out.print(_times(trial.nodes))


def _times(nodes: Sequence[NodeTime]) -> Table:
    table = _table("  node", "ms a row alone", "among many")
    for column in table.columns[1:]:
        column.justify = "right"
    for node in nodes:
        table.add_row(f"  {node.node}", f"{node.row_ms:.3f}", f"{node.many_row_ms:.3f}")
    return table


def problems(name: str, found: Sequence[Problem]) -> None:
    """Print what is wrong with a file."""
    from rich.text import Text

    out = console()
    out.print(f"[bold]{name}[/bold] cannot be applied:")
    for problem in found:
        out.print(Text.assemble(("  ✗ ", "bold red"), problem.message))
        if problem.fix:
            out.print(Text(f"    {problem.fix}", "dim"))


def changes(found: Sequence[RevisionChange]) -> None:
    """Print a difference, one line a thing."""
    from rich.text import Text

    out = console()
    for change in found:
        if change.before is None:
            out.print(Text.assemble(("  + ", "green"), f"{change.what}: {change.after}"))
        elif change.after is None:
            out.print(Text.assemble(("  - ", "red"), f"{change.what}: {change.before}"))
        else:
            said = f"{change.what}: {change.before} → {change.after}"
            out.print(Text.assemble(("  ~ ", "yellow"), said))


def applied(
    revision: Revision, is_new: bool, found: Sequence[RevisionChange], was: str | None
) -> None:
    """Print what came of applying one file."""
    ref, out = revision.ref, console()
    models = format_list(dict.fromkeys(revision.models.values()), 4)
    if not is_new:
        out.print(f"{ref} was live already: {models}")
        return
    out.print(f"{ref} is live: {models}")
    if was is not None:
        changes(found)


def _pinned(live: Revision) -> Table:
    from rich.table import Table

    table = Table.grid(padding=(0, 2))
    for name, digest in live.packages.items():
        table.add_row("", "[dim]package[/dim]", name, short_digest(digest))
    if live.code is not None:
        table.add_row("", "[dim]code[/dim]", short_digest(live.code), "")
    if live.accepted.get("fields"):
        table.add_row("", "[dim]accepted[/dim]", ", ".join(live.accepted["fields"]), "")
    return table


def _table(*columns: Any) -> Table:
    from rich.table import Table

    return Table(*columns, box=None, pad_edge=False, header_style="dim", padding=(0, 2, 0, 0))
