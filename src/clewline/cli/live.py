"""A run while it goes on: a live tree on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    from rich.tree import Tree

    from clewline.flow.run_recorder import RunEvent
    from clewline.store.records import StepRun

    Listener: TypeAlias = Callable[[RunEvent], None]

MARKS = {"running": "…", "done": "✓", "cached": "=", "failed": "✗", "interrupted": "!"}
STYLES = {"running": "yellow", "done": "green", "cached": "cyan", "failed": "red"}


@contextmanager
def lines() -> Iterator[Listener]:
    """A line for each step that ends. What steps print goes to stderr: stdout is the answer's."""
    with redirect_stdout(sys.stderr):
        yield line


def line(event: RunEvent) -> None:
    """Print what happened."""
    if event.kind == "run started":
        print(f"run {event.run.id} {event.run.pipeline}", flush=True)
    elif event.kind == "step ended" and event.step is not None:
        print(f"  {MARKS[event.step.status]} {told(event.step)}", flush=True)


@contextmanager
def tree() -> Iterator[Listener]:
    """A tree that redraws itself; what steps print scrolls above it."""
    from rich.console import Console
    from rich.live import Live
    from rich.tree import Tree

    root = Tree("")
    screen = Console(stderr=True, highlight=False)
    with Live(root, console=screen, refresh_per_second=8):
        yield Branches(root)


class Branches:
    """Keeps a branch for each step up to date."""

    def __init__(self, root: Tree) -> None:
        self._root = root
        self._places: dict[int, Tree] = {}

    def __call__(self, event: RunEvent) -> None:
        """Redraw what happened."""
        from rich.spinner import Spinner
        from rich.text import Text

        if event.step is None:
            self._root.label = Text(f"{event.run.pipeline}  run {event.run.id}", style="bold")
            return
        step = event.step
        style = STYLES.get(step.status, "red")
        label: Any = Text(f"{MARKS[step.status]} {told(step)}", style=style)
        if step.status == "running":
            label = Spinner("dots", text=Text(told(step), style=style))
        if step.index not in self._places:
            self._places[step.index] = self._root.add(label)
        self._places[step.index].label = label


def told(step: StepRun) -> str:
    """One line: name, how it went, how long it took, its metrics."""
    from clewline.flow.step_cache import DECLARED

    words = [step.id.partition("/")[2], step.status]
    if step.status == "cached":
        words.append(f"from {step.cached_from}")
    elif step.wall_s is not None:
        words.append(seconds(step.wall_s))
    declared = step.uncacheable is not None and step.uncacheable.startswith(DECLARED)
    if step.status == "done" and step.uncacheable and not declared:  # what was asked for is no news
        words.append(f"(not remembered: {step.uncacheable})")
    words += [f"{name}={value:.4g}" for name, value in list(step.metrics.items())[:4]]
    return " ".join(words)


def seconds(value: float) -> str:
    """A duration as a person reads it."""
    if value < 0.1:
        return f"{value * 1000:.1f} ms"
    return f"{value:.2f} s" if value < 60 else f"{int(value // 60)} min {value % 60:.0f} s"


def when(stamp: float) -> str:
    """A moment in UTC, to the second."""
    return time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(stamp))
