"""Check keys, packages and the registry's chain, for `clewline doctor`."""

from __future__ import annotations

import shutil
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
    Check the project's key, the packages, and the registry's chain. Reads only.

    Args:
        project: What to check.
        deep: Whether to read every byte of the packages.
    """
    with Store.open(project.store_root, write=False) as store:
        registry = Registry(project, store)
        return [*_check_key(project), *_check_registry(registry, deep), *_check_folders(registry)]


def fix_models(project: Project) -> None:
    """
    Remove what killed registrations and imports left behind.

    A package without a record is removed only where Git proves that the catalog is not an
    older one, whose newer versions would be lost.

    Raises:
        StoreReadOnly: The store cannot be written.
    """
    # A registration publishes its package inside a transaction.
    with Store.open(project.store_root) as store, store.catalog.transaction():
        for finding in _check_folders(Registry(project, store)):
            if finding.fixable:
                shutil.rmtree(finding.values["path"])


def _check_key(project: Project) -> Iterator[Finding]:
    path = project.private_key
    if not path.exists():
        return  # a machine that only serves models need not have it
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


def _check_registry(registry: Registry, deep: bool) -> Iterator[Finding]:
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


def _check_folders(registry: Registry) -> Iterator[Finding]:
    project, catalog = registry.project, registry.store.catalog
    try:  # do the heads in Git prove that the catalog is not an older one?
        found = verify(registry, packages=False)
        is_current = found.anchors > 0 and not found.problems
    except ClewlineError:
        is_current = False
    for path in sorted(project.packages.glob("*/*")):
        number = int(path.name) if path.name.isdecimal() else 0
        if catalog.get(ModelVersion, path.parent.name, number) is None:
            yield Finding("unregistered_package", {"path": str(path)}, fixable=is_current)
    for path in sorted((project.store_root / "tmp").glob("*")):
        if path.name.startswith(UNREGISTERED):
            yield Finding("unregistered_package", {"path": str(path)}, fixable=is_current)
        elif path.name.startswith(DRAFT) and not _writer_lives(path):
            yield Finding("unfinished_package", {"path": str(path)}, fixable=True)


def _writer_lives(draft: Path) -> bool:
    import psutil

    pid = draft.name.removeprefix(DRAFT).partition("-")[0]
    return pid.isdecimal() and len(pid) < 10 and psutil.pid_exists(int(pid))
