"""A run while it goes on: a live tree on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from contextlib import redirect_stdout
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from fairlead.flow.recording import Event
    from fairlead.store.records import StepRun

MARKS = {"running": "…", "done": "✓", "cached": "=", "failed": "✗", "interrupted": "!"}
STYLES = {"running": "yellow", "done": "green", "cached": "cyan", "failed": "red"}


class Lines:
    """A line for each step that ends. What steps print goes to stderr: stdout is the answer's."""

    def __enter__(self) -> Self:
        self._redirect = redirect_stdout(sys.stderr)
        self._redirect.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._redirect.__exit__(kind, error, trace)

    def __call__(self, event: Event) -> None:
        """Print what happened."""
        if event.kind == "run started":
            print(f"run {event.run.id} {event.run.pipeline}", flush=True)
        elif event.kind == "step ended" and event.step is not None:
            print(f"  {MARKS[event.step.status]} {told(event.step)}", flush=True)


class Live:
    """A tree that redraws itself; what steps print scrolls above it."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.live import Live as RichLive
        from rich.tree import Tree

        self._tree = Tree("")
        self._places: dict[int, Any] = {}
        self._live = RichLive(
            self._tree,
            console=Console(stderr=True, highlight=False),
            refresh_per_second=8,
        )

    def __enter__(self) -> Self:
        self._live.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._live.__exit__(kind, error, trace)

    def __call__(self, event: Event) -> None:
        """Redraw what happened."""
        from rich.spinner import Spinner
        from rich.text import Text

        if event.step is None:
            self._tree.label = Text(f"{event.run.pipeline}  run {event.run.id}", style="bold")
            return
        step = event.step
        style = STYLES.get(step.status, "red")
        label: Any = Text(f"{MARKS[step.status]} {told(step)}", style=style)
        if step.status == "running":
            label = Spinner("dots", text=Text(told(step), style=style))
        if step.index not in self._places:
            self._places[step.index] = self._tree.add(label)
        self._places[step.index].label = label


def told(step: StepRun) -> str:
    """One line: name, how it went, how long it took, its metrics."""
    words = [step.id.partition("/")[2], step.status]
    if step.status == "cached":
        words.append(f"from {step.cached_from}")
    elif step.wall_s is not None:
        words.append(seconds(step.wall_s))
    if step.status == "done" and step.uncacheable:
        words.append(f"(not remembered: {step.uncacheable})")
    words += [f"{name}={value:.4g}" for name, value in list(step.metrics.items())[:4]]
    return " ".join(words)


def seconds(value: float) -> str:
    """A duration as a person reads it."""
    if value < 0.1:
        return f"{value * 1000:.1f} ms"
    return f"{value:.2f} s" if value < 60 else f"{int(value // 60)} min {value % 60:.0f} s"


def when(stamp: float) -> str:
    """A moment in local time."""
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(stamp))
