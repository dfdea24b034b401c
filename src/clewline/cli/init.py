"""`clewline init`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from clewline.cli.output import emit


def init(
    path: Path = Path("."),
    /,
    *,
    template: str = "tumours",
    name: str | None = None,
    new_key: Annotated[bool, Parameter(negative="")] = False,
) -> None:
    """
    Make a project that runs, or give a clone its store.

    It holds a pipeline, an endpoint, a gate, tests, a CI file and the key that seals models.

    Parameters
    ----------
    path
        The folder; made if it does not exist.
    template
        `tumours`, a pipeline that runs, or `empty`.
    name
        The project's name; the folder's by default.
    new_key
        In a clone without the private key: seal with a key of its own (CI does).
    """
    from clewline.scaffold import create

    made = create(path, name=name, template=template, new_key=new_key)
    pipelines = sorted(path.stem for path in (made.root / "pipelines").glob("*.py"))
    facts = {"project": made.name, "root": str(made.root), "pipelines": pipelines}
    emit(facts | {"can_seal": made.private_key.exists()}, show)


def show(data: dict[str, Any]) -> None:
    """Say what was made and what comes next."""
    root = Path(data["root"])
    print(f"The project {data['project']} is ready in {root}")
    if not data["can_seal"]:
        print("  Nothing can be registered here without its private key: copy it into")
        print("  .clewline/keys/seal.key, or make a new one with `clewline init --new-key`.")
    if root != Path.cwd():
        print(f"  cd {short(root)}")
    for name in data["pipelines"]:
        print(f"  clewline run {name}")
    if not data["pipelines"]:
        print("  Write a pipeline into pipelines/NAME.py, then: clewline run NAME")


def short(root: Path) -> Path:
    """A folder as a person would type it from here."""
    here = Path.cwd()
    return root.relative_to(here) if root.is_relative_to(here) else root
