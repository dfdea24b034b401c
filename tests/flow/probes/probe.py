"""
A probe: a small project, a change, and what the run after the change must do.

- `new`: the result after the change is another one, and the second run has it;
- `same`: the change has no effect on the result, and every step is taken from the cache;
- `never`: the result depends on something that no key can hold, so no step is cached.

For each kind the steps are executed a last time without the cache, which tells the truth.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from textwrap import dedent
from typing import Any, Literal

HEADER = "import clewline as cl\nfrom pathlib import Path\n"
PIPELINE = "\n@cl.pipeline\ndef main():\n    work()\n"

Action = Callable[[Path], Any]
Expected = Literal["new", "same", "never"]


@dataclass(frozen=True)
class Change:
    """What happens to the world between two runs."""

    act: Action | None = None  # on the project's folder
    environ: Mapping[str, str | None] = field(default_factory=dict)
    params: Mapping[str, Any] = field(default_factory=dict)
    needs_process: bool = False  # of its own, since it uses libraries that do not survive a fork
    in_process: bool = False  # between two runs of one process, as in a notebook


@dataclass(frozen=True, kw_only=True)
class Probe:
    """One row of the corpus."""

    name: str
    expected: Expected
    files: Mapping[str, str]
    change: Change
    setup: Action | None = None  # makes files that are not text
    environ: Mapping[str, str] = field(default_factory=dict)  # of every run
    params: Mapping[str, Any] = field(default_factory=dict)
    needs: tuple[str, ...] = ()  # requirements, such as "pandas>=3"
    script: bool = False  # imported by the user's program, not by `clewline run`


def probe(
    expected: Expected,
    name: str,
    pipelines: str,
    change: Change,
    files: Mapping[str, str] | None = None,
    **options: Any,
) -> Probe:
    """Return a probe of a `pipelines.py`, which gets the usual imports and a pipeline."""
    text = HEADER + dedent(pipelines)
    if "cl.pipeline" not in text:
        text += PIPELINE
    written = {path: dedent(each).lstrip("\n") for path, each in (files or {}).items()}
    every = {"pipelines.py": text, **written}
    return Probe(name=name, expected=expected, files=every, change=change, **options)


# Changes


def nothing() -> Change:
    """Run again, with nothing changed."""
    return Change()


def edit(old: str, new: str, file: str = "pipelines.py") -> Change:
    """Replace a text that a file has once."""

    def act(root: Path) -> None:
        text = (root / file).read_text()
        assert text.count(old) == 1, (file, old)
        (root / file).write_text(text.replace(old, new))

    return Change(act)


def write(file: str, text: str) -> Change:
    """Write a file, which may be new."""

    def act(root: Path) -> None:
        path = root / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)  # as editors do; the link itself, if it is one
        path.write_text(dedent(text).lstrip("\n"))

    return Change(act)


def remove(file: str) -> Change:
    """Delete a file."""
    return Change(lambda root: (root / file).unlink())


def do(act: Action) -> Change:
    """Change the project's folder by a function."""
    return Change(act, needs_process=True)


def environ(**values: str | None) -> Change:
    """Set environment variables, or unset those that are None."""
    return Change(environ=values)


def given(**values: Any) -> Change:
    """Give the pipeline other parameters."""
    return Change(params=values)


def in_process(act: Action) -> Change:
    """Change the living process, as a notebook does between two runs."""
    return Change(act, in_process=True)
