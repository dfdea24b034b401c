"""How endpoints, their graphs and what changes are shown to a person."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import msgspec

from clewline.cli.output import console, make_table, print_message
from clewline.formatting import format_list, format_time, short_digest
from clewline.serve import revision as revisions
from clewline.serve.endpoint_list import EndpointRow
from clewline.serve.explain_rules import explain_rules, rule_text
from clewline.serve.graph.problems import Problem
from clewline.serve.graph.tree import Tree, children, of_revision, title
from clewline.serve.lineage_text import limits_text
from clewline.serve.revision import RevisionChange

if TYPE_CHECKING:
    from rich.tree import Tree as Drawing

    from clewline.serve.trial import GraphTrial
    from clewline.store.records import LiveRevision, Revision


class EndpointCheck(msgspec.Struct, frozen=True, kw_only=True):
    """The result of a check of an endpoint's file; with problems there is nothing else."""

    endpoint: str
    problems: list[Problem] = []
    live: str | None = None
    next: str | None = None  # the revision that apply would make, or the live one
    models: dict[str, str] = {}
    graph: dict[str, object] = {}
    changes: list[RevisionChange] = []
    trial: GraphTrial | None = None


COLOURS = {"model": "bold green", "transform": "cyan", "after": "cyan", "shadow": "dim"}


def show_list(listed: Sequence[EndpointRow]) -> None:
    """Print a list of endpoints."""
    if not listed:
        print_message(
            "There are no endpoints. Write endpoints/NAME.yaml, then `clewline endpoints apply`."
        )
        return
    table = make_table("endpoint", "revision", "state", "models", "live since")
    for item in listed:
        name, models = f"[bold]{item.endpoint}[/bold]", format_list(dict.fromkeys(item.models), 4)
        since = format_time(item.since) if item.since else ""
        table.add_row(name, item.revision or "", item.state, models, since)
    console().print(table)


def show_endpoint(live: Revision, state: LiveRevision, history: Sequence[Revision]) -> None:
    """Print an endpoint: its graph with pinned versions, and its revisions."""
    from rich.table import Table
    from rich.text import Text

    out = console()
    timeout = revisions.timeout_ms(live)
    facts = [
        f"{'unloaded' if state.unloaded else 'live'} since {format_time(state.moved)}",
        f"log durability {revisions.durability(live)}",
        *([f"timeout {timeout:g} ms"] if timeout else []),
        *(["pinned in memory"] if revisions.is_pinned(live) else []),
    ]
    out.print(f"[bold]{live.ref}[/bold] is {', '.join(facts)}", highlight=False)
    out.print(draw_graph(of_revision(live)))
    pinned = Table.grid(padding=(0, 2))
    for name, digest in live.packages.items():
        pinned.add_row("", "[dim]package[/dim]", name, short_digest(digest))
    if live.code is not None:
        pinned.add_row("", "[dim]code[/dim]", short_digest(live.code), "")
    for name, limits in live.accepted.get("fields", {}).items():
        pinned.add_row("", "[dim]accepted[/dim]", name, limits_text(limits))
    for rule in explain_rules(live):
        pinned.add_row("", "[dim]explain[/dim]", rule.kind, Text(rule_text(rule)))
    out.print(pinned)
    past = make_table("revision", "applied", "models")
    for item in history:
        models = format_list(dict.fromkeys(item.models.values()), 4)
        past.add_row(item.ref, format_time(item.created), models)
    out.print(past)


def draw_graph(tree: Tree, key: str = "") -> Drawing:
    """Draw a graph as a tree: each node with its name and title."""
    from rich.text import Text
    from rich.tree import Tree as Drawing

    kind, _, name = key.partition(".")
    named = f"{name} (shadow)  " if kind == "shadows" else f"{name}  " if name else ""
    label = Text.assemble((named, "bold"), (title(tree), COLOURS.get(tree["kind"], "yellow")))
    root = Drawing(label, guide_style="dim")
    for child_key, child in children(tree):
        root.add(draw_graph(child, child_key))
    return root


def show_check(found: EndpointCheck) -> None:
    """Print the result of a check."""
    from rich.text import Text

    out = console()
    if found.trial is None:
        out.print(f"[bold]{found.endpoint}[/bold] cannot be applied:")
        for problem in found.problems:
            out.print(Text.assemble(("  ✗ ", "bold red"), problem.message))
            if problem.fix:
                out.print(Text(f"    {problem.fix}", "dim"))
        return
    if found.next == found.live:
        out.print(f"[bold]{found.endpoint}[/bold]: {found.live} is live already")
    else:
        live = f"{found.live} is live now" if found.live else "nothing is live yet"
        out.print(f"[bold]{found.endpoint}[/bold]: apply would create {found.next}; {live}")
        show_changes(found.changes)
    trial = found.trial
    out.print(
        f"  {trial.rows} background rows answered, {trial.flagged_rows} flagged, "
        f"{trial.refused_rows} refused by accepted bounds"
    )
    many = f"{trial.many_row_ms:.3f} ms per row in a batch of {trial.rows}"
    out.print(f"  {trial.row_ms:.2f} ms per single row, {many}")
    if len(trial.nodes) > 1:
        table = make_table("  node", "ms per single row", "ms per row in a batch")
        for column in table.columns[1:]:
            column.justify = "right"
        for node in trial.nodes:
            table.add_row(f"  {node.node}", f"{node.row_ms:.3f}", f"{node.many_row_ms:.3f}")
        out.print(table)


def show_changes(changes: Sequence[RevisionChange]) -> None:
    """Print what differs, one line for each thing."""
    from rich.text import Text

    for change in changes:
        if change.before is None:
            mark, text = ("  + ", "green"), change.after
        elif change.after is None:
            mark, text = ("  - ", "red"), change.before
        else:
            mark, text = ("  ~ ", "yellow"), f"{change.before} → {change.after}"
        console().print(Text.assemble(mark, f"{change.what}: {text}"))


def show_applied(revision: Revision, is_new: bool, changes: Sequence[RevisionChange]) -> None:
    """Print the result of applying one file."""
    models = format_list(dict.fromkeys(revision.models.values()), 4)
    state = "is live" if is_new else "was live already"
    console().print(f"{revision.ref} {state}: {models}")
    show_changes(changes if is_new else ())
