"""Check keys, packages and the registry's chain, for `clewline doctor`."""

from __future__ import annotations

import shutil
import stat
from collections.abc import Iterator
from pathlib import Path

from clewline.errors import ClewlineError
from clewline.model.package import DRAFT
from clewline.model.registry import UNREGISTERED, Registry
from clewline.model.registry_chain import SEALED, append_link
from clewline.model.seal import Sealer
from clewline.model.sealed_records import SealedRecords
from clewline.model.verify import verify
from clewline.project import Project
from clewline.store.doctor import Finding
from clewline.store.records import ModelVersion
from clewline.store.rows import describe
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
        return [*key_findings(project), *_check_registry(registry, deep), *_check_folders(registry)]


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


def seal_models(project: Project) -> list[str]:
    """
    Seal the records that have no link in the signed chain, such as those of an older clewline.

    Signing is for a person to decide: whoever can write the catalog can add such a record.

    Returns:
        The names of the records.

    Raises:
        NotFound: The private key is missing.
        IntegrityError: The package of a version differs from its record.
    """
    with Store.open(project.store_root) as store, store.catalog.transaction() as transaction:
        registry, records = Registry(project, store), SealedRecords(project, transaction)
        unsealed = records.unsealed()
        for record in unsealed:
            if isinstance(record, ModelVersion):
                registry.read(record)
        if unsealed:
            append_link(transaction, SEALED, {}, registry.sealer(), *unsealed)
        return [describe(record) for record in unsealed]


def key_findings(project: Project) -> Iterator[Finding]:
    """Check the project's private key, which takes no time worth waiting for."""
    path = project.private_key
    if not path.exists():  # a machine that only serves models need not have it
        yield Finding("no_key", {"path": str(path)}, harmless=True)
        return
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
    for record in found.records:
        values = {"message": record.message, "fix": record.fix}
        if record.unsealed:
            yield Finding("unsealed_record", values)
        else:
            yield Finding("changed_record", values)
    for problem in found.problems:
        yield Finding("rewritten_registry", {"problem": f"{problem[0].upper()}{problem[1:]}."})


def _check_folders(registry: Registry) -> Iterator[Finding]:
    project, catalog = registry.project, registry.store.catalog
    try:  # do the heads in Git prove that the catalog is not an older one?
        found = verify(registry, packages=False)
        is_current = found.anchors > 0 and not (found.problems or found.records)
    except ClewlineError:
        is_current = False
    for path in sorted(project.packages.glob("*/*")):
        number = int(path.name) if path.name.isdecimal() else 0
        if not catalog.count(ModelVersion, name=path.parent.name, number=number):
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
