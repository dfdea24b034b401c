"""`clewline why` and `clewline impact`: the line back and the line forward."""

from __future__ import annotations

import re
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from clewline import project
from clewline.cli.output import console, emit
from clewline.store import lineage, reader
from clewline.store.lineage import Node
from clewline.store.ref import resolve

if TYPE_CHECKING:
    from rich.text import Text
    from rich.tree import Tree

_PREDICTION = re.compile(r"[0-9a-fA-F]{8}-?([0-9a-fA-F]{4}-?){3}[0-9a-fA-F]{12}")

GUIDE = 4  # columns of a tree's guide
NARROWEST = 30  # columns of text; deeper in, the terminal folds

_COLOURS = {
    "prediction": "bold magenta",
    "revision": "bold blue",
    "model": "bold green",
    "run": "bold yellow",
    "step": "yellow",
    "code": "bold cyan",
    "data": "bold cyan",
    "artifact": "cyan",
}


def why(thing: str, /, *, full: Annotated[bool, Parameter(negative="")] = False) -> None:
    """
    Follow the line back: what made this?

    Parameters
    ----------
    thing
        A prediction, run, step, version (`income@3`), revision (`income#12`), digest, name, path.
    full
        Show every step, not code and data alone.
    """
    here = project.find()
    if _PREDICTION.fullmatch(thing):
        from clewline.serve import line

        emit(line.why(here, thing, full=full), show)
        return
    catalog = _catalog(here)
    emit(lineage.why(catalog, resolve(catalog, thing), full=full), show)


def impact(thing: str, /, *, full: Annotated[bool, Parameter(negative="")] = False) -> None:
    """
    Follow the line forward: what came of this?

    Parameters
    ----------
    thing
        A prediction, run, step, version (`income@3`), revision (`income#12`), digest, name, path.
    full
        Show every step and every run.
    """
    here = project.find()
    if _PREDICTION.fullmatch(thing):
        from clewline.serve import line
        from clewline.serve.log import reader as log_reader

        emit(line.prediction_node(log_reader.get_prediction(here.log, thing)), show)
        return
    catalog = _catalog(here)
    found = resolve(catalog, thing, prefer="model")
    emit(lineage.impact(catalog, found, full=full), show)


def show(node: Node) -> None:
    """Print a line as a tree; on a terminal, a long fact goes on beneath where it began."""
    out = console()
    out.print(tree(node, out.width if out.is_terminal else None))


def tree(node: Node, width: int | None = None) -> Tree:
    """Draw a line: one node a branch, its facts beneath its title, of any depth."""
    from rich.tree import Tree

    root = Tree(_label(node, width), guide_style="dim")
    waiting = [(root, node, width)]
    while waiting:
        branch, each, room = waiting.pop()
        less = room and room - GUIDE
        waiting.extend((branch.add(_label(child, less)), child, less) for child in each.children)
    return root


def _label(node: Node, room: int | None) -> Text:
    from rich.text import Text

    colour = _COLOURS.get(node.kind, "dim")
    label = Text.assemble(
        (f"{node.kind} " if node.kind else "", "dim"), (_tidy(node.title), colour)
    )
    width = max((len(name) for name, _ in node.facts), default=0)
    for name, value in node.facts:
        head = f"  {name.ljust(width)}  " if name else "  "
        label.append(f"\n{head}", "dim")
        label.append(f"\n{' ' * len(head)}".join(_folded(_tidy(value), room, len(head))))
    return label


def _folded(text: str, room: int | None, used: int) -> list[str]:
    """A text in lines that fit, where it is known how much room there is."""
    if room is None:
        return [text]
    fits = max(room - used, NARROWEST)
    return textwrap.wrap(text, fits, break_long_words=False, break_on_hyphens=False) or [""]


def _tidy(title: str) -> str:
    """Paths below the current directory as relative ones."""
    return title.replace(f"{Path.cwd()}/", "")


def _catalog(here: project.Project) -> reader.CatalogReader:
    return reader.CatalogReader(here.store_root / reader.FILE)
