"""`clewline init`."""

from __future__ import annotations

import ast
import shlex
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
    Create a project that runs, or complete a clone with its store.

    The project has a pipeline, an endpoint, a gate, tests, a CI file and a key to seal models.

    Parameters
    ----------
    path
        Folder of the project; created if it does not exist.
    template
        Template to copy: `tumours`, a pipeline that runs, or `empty`.
    name
        Name of the project; the name of the folder by default.
    new_key
        Create a new sealing key in a clone without the private key, as CI does.
    """
    from clewline.scaffold import create

    project = create(path, name=name, template=template, new_key=new_key)
    pipelines = sorted(path.stem for path in (project.root / "pipelines").glob("*.py"))
    facts = {"project": project.name, "root": str(project.root), "pipelines": pipelines}
    emit(facts | {"can_seal": project.private_key.exists()}, _show)


def _show(data: dict[str, Any]) -> None:
    root, here = Path(data["root"]), Path.cwd()
    print(f"The project {data['project']} is ready in {root}")
    if not data["can_seal"]:
        print("  Models cannot be registered here without the private key. Copy it to")
        print("  .clewline/keys/seal.key, or create a new one with `clewline init --new-key`.")
    if root != here:
        folder = root.relative_to(here) if root.is_relative_to(here) else root
        print(f"  cd {shlex.quote(str(folder))}")
    for name in data["pipelines"]:
        values = _needed(root / "pipelines" / f"{name}.py")
        print(" ".join(["  clewline run", name, *values]))
    if not data["pipelines"]:
        print("  Write a pipeline in pipelines/NAME.py, then: clewline run NAME")


def _needed(path: Path) -> list[str]:
    """Return `name=NAME` for each parameter of a file's pipelines that has no default."""
    needed: list[ast.arg] = []
    for node in ast.parse(path.read_bytes()).body:
        decorators = getattr(node, "decorator_list", ())
        if isinstance(node, ast.FunctionDef) and any(
            "pipeline" in ast.unparse(d) for d in decorators
        ):
            args = node.args
            named = [*args.posonlyargs, *args.args]
            needed += named[: len(named) - len(args.defaults)]
            pairs = zip(args.kwonlyargs, args.kw_defaults, strict=True)
            needed += [arg for arg, default in pairs if default is None]
    return [f"{arg.arg}={arg.arg.upper()}" for arg in needed]
