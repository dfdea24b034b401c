"""`fairlead init`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fairlead.cli.output import emit


def init(path: Path = Path("."), /, *, template: str = "tumours", name: str | None = None) -> None:
    """
    Make a project that runs: pipeline, endpoint, gate, tests, CI file, sealing key.

    Parameters
    ----------
    path
        The folder; made if it does not exist.
    template
        `tumours`, a pipeline that runs, or `empty`.
    name
        The project's name; the folder's by default.
    """
    from fairlead.scaffold import create

    made = create(path, name=name, template=template)
    pipelines = sorted(path.stem for path in (made.root / "pipelines").glob("*.py"))
    emit({"project": made.name, "root": str(made.root), "pipelines": pipelines}, show)


def show(data: dict[str, Any]) -> None:
    """Say what was made and what comes next."""
    root = Path(data["root"])
    print(f"Made the project {data['project']} in {root}")
    if root != Path.cwd():
        print(f"  cd {short(root)}")
    for name in data["pipelines"]:
        print(f"  fairlead run {name}")
    if not data["pipelines"]:
        print("  Write a pipeline into pipelines/NAME.py, then: fairlead run NAME")


def short(root: Path) -> Path:
    """A folder as a person would type it from here."""
    here = Path.cwd()
    return root.relative_to(here) if root.is_relative_to(here) else root
