"""What `clewline doctor` says of keys, packages and the registry's chain."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

from clewline.errors import ClewlineError
from clewline.model.package import DRAFT
from clewline.model.registry import UNREGISTERED, Registry
from clewline.model.seal import Sealer
from clewline.model.verify import verify
from clewline.project import Project
from clewline.store.doctor import Finding
from clewline.store.records import ModelVersion
from clewline.store.store import Store


def model_findings(project: Project, *, deep: bool = True) -> list[Finding]:
    """
    Check the project's key, every byte of every package, and the registry's chain.

    Reads only.

    Args:
        project: Whose.
        deep: Read the packages; their places and the chain alone if not.
    """
    with Store.open(project.store_root, write=False) as store:
        registry = Registry(project, store)
        return [*_key(project), *_registered(registry, deep), *_left(registry)]


def _key(project: Project) -> Iterator[Finding]:
    path = project.private_key
    if not path.exists():
        return  # where models are only served, the private key need not be
    mode = stat.S_IMODE(path.stat().st_mode)
    if mode & 0o077:
        yield Finding("exposed_key", {"path": str(path), "mode": f"{mode:o}"})
    try:
        public = Sealer.read(path).public
    except ClewlineError as error:
        yield Finding("unreadable_key", {"message": error.message, "fix": error.fix or ""})
        return
    if public != project.public_key:
        yield Finding("wrong_key", {"path": str(path)})


def _registered(registry: Registry, deep: bool) -> Iterator[Finding]:
    try:
        found = verify(registry, packages=deep)
    except ClewlineError as error:
        yield Finding("unverifiable_registry", {"message": error.message, "fix": error.fix or ""})
        return
    for check in found.versions:
        if check.problem:
            yield Finding("damaged_package", {"model": check.model, "problem": check.problem})
    for problem in found.problems:
        yield Finding("rewritten_registry", {"problem": f"{problem[0].upper()}{problem[1:]}."})


def _left(registry: Registry) -> Iterator[Finding]:
    project = registry.project
    for path in sorted(project.packages.glob("*/*")):
        if not _is_registered(registry, path):
            yield Finding("unregistered_package", {"path": str(path)})
    for path in sorted((project.store_root / "tmp").glob("*")):
        if path.name.startswith(UNREGISTERED):
            yield Finding("unregistered_package", {"path": str(path)})
        elif path.name.startswith(DRAFT) and not _is_alive(path):
            yield Finding("unfinished_package", {"path": str(path)})


def _is_registered(registry: Registry, path: Path) -> bool:
    if not path.name.isdecimal():
        return False
    found = registry.store.catalog.get(ModelVersion, path.parent.name, int(path.name))
    return found is not None


def _is_alive(draft: Path) -> bool:
    pid = draft.name.removeprefix(DRAFT).partition("-")[0]
    try:
        os.kill(int(pid), 0)
    except (ProcessLookupError, ValueError, OverflowError):
        return False
    except PermissionError:  # somebody else's process
        return True
    return True
