"""The progress of a run: a live tree on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from typing import TYPE_CHECKING, Any, TypeAlias

from clewline.formatting import format_duration

if TYPE_CHECKING:
    from rich.tree import Tree

    from clewline.flow.run_recorder import RunEvent
    from clewline.store.records import StepRun

    Listener: TypeAlias = Callable[[RunEvent], None]

MARKS = {"running": "…", "done": "✓", "cached": "=", "failed": "✗", "interrupted": "!"}
STYLES = {"running": "yellow", "done": "green", "cached": "cyan", "failed": "red"}


@contextmanager
def lines() -> Iterator[Listener]:
    """Print a line for each step that ends. Steps print to stderr: stdout is for the answer."""
    with redirect_stdout(sys.stderr):
        yield _print_line


def _print_line(event: RunEvent) -> None:
    if event.kind == "run started":
        print(f"run {event.run.id} {event.run.pipeline}", flush=True)
    elif event.kind == "step ended" and event.step is not None:
        print(f"  {MARKS[event.step.status]} {step_line(event.step)}", flush=True)


@contextmanager
def tree() -> Iterator[Listener]:
    """Show a tree that is redrawn as steps proceed; printed output scrolls above it."""
    from rich.console import Console
    from rich.live import Live
    from rich.spinner import Spinner
    from rich.text import Text
    from rich.tree import Tree

    root = Tree("")
    branches: dict[int, Tree] = {}

    def redraw(event: RunEvent) -> None:
        if event.step is None:
            root.label = Text(f"{event.run.pipeline}  run {event.run.id}", style="bold")
            return
        step, style = event.step, STYLES.get(event.step.status, "red")
        label: Any = Text(f"{MARKS[step.status]} {step_line(step)}", style=style)
        if step.status == "running":
            label = Spinner("dots", text=Text(step_line(step), style=style))
        if step.index not in branches:
            branches[step.index] = root.add(label)
        branches[step.index].label = label

    with Live(root, console=Console(stderr=True, highlight=False), refresh_per_second=8):
        yield redraw


def step_line(step: StepRun) -> str:
    """Return a step in one line: name, status, duration, metrics."""
    from clewline.flow.step_cache import DECLARED

    words = [step.label, step.status]
    if step.status == "cached":
        words.append(f"from {step.cached_from}")
    elif step.wall_s is not None:
        words.append(format_duration(step.wall_s))
    if step.status == "done" and step.uncacheable and step.uncacheable not in DECLARED:
        words.append(f"(not cached: {step.uncacheable})")
    words += [f"{name}={value:.4g}" for name, value in list(step.metrics.items())[:4]]
    return " ".join(words)
