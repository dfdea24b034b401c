"""`fairlead why` and `fairlead impact`: the line back and the line forward."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from fairlead import project
from fairlead.cli.output import console, emit
from fairlead.store import lineage, reader
from fairlead.store.lineage import Node

if TYPE_CHECKING:
    from rich.text import Text
    from rich.tree import Tree

_PREDICTION = re.compile(r"[0-9a-fA-F]{8}-?([0-9a-fA-F]{4}-?){3}[0-9a-fA-F]{12}")

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


def why(thing: str, *, full: Annotated[bool, Parameter(negative="")] = False) -> None:
    """
    Follow the line back: what made this?

    Parameters
    ----------
    thing
        A prediction, run, step run, model version (`income@3`, `income@champion`),
        endpoint revision (`income#12`), artifact digest, name or input path.
    full
        Show every step, not code and data alone.
    """
    here = project.find()
    if _PREDICTION.fullmatch(thing):
        from fairlead.serve import line

        emit(line.why(here, thing, full=full), show)
        return
    catalog = _catalog(here)
    emit(lineage.why(catalog, lineage.resolve(catalog, thing), full=full), show)


def impact(thing: str, *, full: Annotated[bool, Parameter(negative="")] = False) -> None:
    """
    Follow the line forward: what came of this?

    Parameters
    ----------
    thing
        A prediction, run, step run, model version (`income@3`, `income@champion`), endpoint
        revision (`income#12`), artifact digest, name or input path.
    full
        Show every step and every run.
    """
    here = project.find()
    if _PREDICTION.fullmatch(thing):
        from fairlead.serve import line, log_reader

        emit(line.prediction_node(log_reader.get(here.log, thing)), show)
        return
    catalog = _catalog(here)
    found = lineage.resolve(catalog, thing, prefer="model")
    emit(lineage.impact(catalog, found, full=full), show)


def show(node: Node) -> None:
    """Print a line as a tree."""
    console().print(tree(node))


def tree(node: Node) -> Tree:
    """Draw a line: one node a branch, its facts beneath its title, of any depth."""
    from rich.tree import Tree

    root = Tree(_label(node), guide_style="dim")
    waiting = [(root, node)]
    while waiting:
        branch, each = waiting.pop()
        waiting.extend((branch.add(_label(child)), child) for child in each.children)
    return root


def _label(node: Node) -> Text:
    from rich.text import Text

    colour = _COLOURS.get(node.kind, "dim")
    label = Text.assemble(
        (f"{node.kind} " if node.kind else "", "dim"), (_tidy(node.title), colour)
    )
    width = max((len(name) for name, _ in node.facts), default=0)
    for name, value in node.facts:
        label.append(f"\n  {name.ljust(width)}  " if name else "\n  ", "dim")
        label.append(_tidy(value))
    return label


def _tidy(title: str) -> str:
    """Paths below the current directory as relative ones."""
    return title.replace(f"{Path.cwd()}/", "")


def _catalog(here: project.Project) -> reader.CatalogReader:
    return reader.CatalogReader(here.store_root / reader.FILE)
