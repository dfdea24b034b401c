"""`clewline why` and `clewline impact`: the lineage back and the lineage forward."""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from clewline import project
from clewline.cli.output import console, emit
from clewline.formatting import format_count
from clewline.serve.lineage_text import node_text
from clewline.store.lineage import LineageNode
from clewline.store.store import Store

if TYPE_CHECKING:
    from rich.text import Text
    from rich.tree import Tree

GUIDE = 4  # columns of a tree's guide
NARROWEST = 30  # columns of text; deeper in, the terminal folds

_COLOURS = {
    "explanation": "bold magenta",
    "prediction": "bold magenta",
    "revision": "bold blue",
    "model": "bold green",
    "run": "bold yellow",
    "step": "yellow",
    "code": "bold cyan",
    "data": "bold cyan",
    "artifact": "cyan",
}


def why(ref: str, /, *, full: Annotated[bool, Parameter(negative="")] = False) -> None:
    """
    Follow the lineage back: what made this?

    Parameters
    ----------
    ref
        Prediction, explanation, run, step, version (income@3), revision (income#12), digest,
        name or path.
    full
        Show every step, not only runs, code and data.
    """
    _follow(ref, forward=False, full=full)


def impact(ref: str, /, *, full: Annotated[bool, Parameter(negative="")] = False) -> None:
    """
    Follow the lineage forward: what came of this?

    Parameters
    ----------
    ref
        Prediction, explanation, run, step, version (income@3), revision (income#12), digest,
        name or path.
    full
        Show every step and every run.
    """
    _follow(ref, forward=True, full=full)


def _follow(ref: str, *, forward: bool, full: bool) -> None:
    from clewline.serve.prediction_lineage import follow_line

    here = project.find()
    catalog = Store.open(here.store_root, write=False).catalog.reader
    node = follow_line(here, catalog, ref, forward=forward, full=full)
    emit(node, lambda node: show(node, forward=forward, full=full))


def show(node: LineageNode, *, forward: bool = False, full: bool = False) -> None:
    """Print a lineage as a tree; on a terminal, a long fact goes on beneath where it began."""
    out = console()
    width = out.width if out.is_terminal else None
    out.print(lineage_tree(node, width, forward=forward, full=full))


def lineage_tree(
    node: LineageNode, width: int | None = None, *, forward: bool = False, full: bool = False
) -> Tree:
    """Draw a lineage: one node a branch, its facts beneath its title, of any depth."""
    from rich.text import Text
    from rich.tree import Tree

    root = Tree("", guide_style="dim")
    waiting = [(root, node, width)]
    while waiting:
        branch, each, room = waiting.pop()
        branch.label = _label(each, room, forward=forward, full=full)
        less = room and room - GUIDE
        waiting.extend((branch.add(""), child, less) for child in each.children)
        if each.omitted:
            branch.add(Text(f"{format_count(each.omitted, 'more run')}; --full shows all", "dim"))
    return root


def _label(node: LineageNode, room: int | None, *, forward: bool, full: bool) -> Text:
    from rich.text import Text

    title, facts = node_text(node, forward=forward, full=full)
    label = Text.assemble((f"{node.kind} ", "dim"), (_relative(title), _COLOURS[node.kind]))
    width = max((len(name) for name, _ in facts), default=0)
    for name, value in facts:
        head = f"  {name.ljust(width)}  " if name else "  "
        lines = [_relative(value)]
        if room is not None:
            fits = max(room - len(head), NARROWEST)
            lines = textwrap.wrap(
                lines[0], fits, break_long_words=False, break_on_hyphens=False
            ) or [""]
        label.append(f"\n{head}", "dim")
        label.append(f"\n{' ' * len(head)}".join(lines))
    return label


def _relative(text: str) -> str:
    """Shorten paths below the current directory."""
    return text.replace(f"{Path.cwd()}/", "")
