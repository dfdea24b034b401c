"""
The digests of the log's closed files in the signed chain.

A server seals its segments when it has closed them, and `clewline predictions compact` the Parquet
files that it has written. A frame's checksum can be computed again by anyone; the digest in the
chain cannot be replaced without the private key.
"""

from __future__ import annotations

import time
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path

from clewline.errors import ClewlineError, IntegrityError, InvalidConfig
from clewline.model.registry_chain import LOG_CLOSED, LOG_REMOVED, append_link
from clewline.model.seal import Sealer
from clewline.model.sealed_records import SealedRecords
from clewline.project import Project
from clewline.serve.log.compact import parquet_files
from clewline.serve.log.segment import all_segments
from clewline.store.digest import Digest, digest_file
from clewline.store.disk import disk_errors
from clewline.store.doctor import Finding
from clewline.store.store import Store

REMOVED = Digest("removed")
"""Stands in the chain for the digest of a file that was removed on purpose."""
YOUNG_S = 60.0
"""A file that was closed less than this ago may still be sealed by its server."""


def seal_files(project: Project, paths: Collection[Path], *, again: bool = False) -> None:
    """
    Add the digests of closed files to the signed chain, in one link, if the private key is here.

    Args:
        project: The project with the log.
        paths: The files.
        again: Also seal those that have a link, because they were just written. Otherwise such
            a file keeps it: whatever is there now, it was sealed as it was then.

    Raises:
        StoreFull, StoreReadOnly: The catalog cannot be written.
        IntegrityError: The signed chain is damaged at its end.
    """
    if not paths or not project.private_key.exists():
        return
    with Store.open(project.store_root) as store, disk_errors(project.store_root):
        known = {} if again else SealedRecords(project, store.catalog).file_digests()
        digests: dict[str, Digest] = {}
        for path in paths:
            name = str(path.relative_to(project.store_root))
            if name not in known and path.exists():
                digests[name] = digest_file(path)
        if digests:
            sealer = Sealer.of(project)
            with store.catalog.transaction() as transaction:
                append_link(transaction, LOG_CLOSED, {}, sealer, files=digests)


def fix_seals(project: Project) -> None:
    """Seal the closed files that killed processes left without a link."""
    with suppress(IntegrityError, InvalidConfig):  # of key and chain, which are findings
        seal_files(project, closed_files(project))


def seal_removals(project: Project) -> list[str]:
    """
    Seal that files of the log are gone, because a person has removed them on purpose.

    Returns:
        Their paths in the store.

    Raises:
        NotFound: The private key is missing.
    """
    with Store.open(project.store_root) as store, store.catalog.transaction() as transaction:
        sealed = SealedRecords(project, transaction).file_digests()
        gone = [
            name
            for name, digest in sealed.items()
            if digest != REMOVED and not (project.store_root / name).exists()
        ]
        if gone:
            files = dict.fromkeys(gone, REMOVED)
            append_link(transaction, LOG_REMOVED, {}, Sealer.of(project), files=files)
        return gone


def closed_files(project: Project) -> list[Path]:
    """List the closed segments of the prediction log and of shadows, and the Parquet files."""
    logs = (project.log, project.shadow)
    segments = [each for log in logs for each in all_segments(log) if each.index is not None]
    return [*(segment.frames for segment in segments), *parquet_files(project.log)]


def check_seals(project: Project, *, deep: bool = True) -> list[Finding]:
    """
    Compare the closed files of the log with the signed chain. Reads only.

    Args:
        project: The project with the log.
        deep: Digest every file.
    """
    with Store.open(project.store_root, write=False) as store:
        try:
            sealed = SealedRecords(project, store.catalog).file_digests()
        except ClewlineError as error:  # `model_findings` has it as well
            values = {"message": error.message, "fix": error.fix or ""}
            return [Finding("unverifiable_registry", values)]
    found = []
    for name, digest in sealed.items():
        path = project.store_root / name
        if digest == REMOVED and not path.exists():
            continue
        if not path.exists():
            found.append(Finding("removed_log_file", {"path": str(path)}))
        elif deep and digest_file(path) != digest:
            found.append(Finding("changed_log_file", {"path": str(path)}))
    before = time.time() - YOUNG_S
    left = [
        str(path)
        for path in closed_files(project)
        if str(path.relative_to(project.store_root)) not in sealed
        and path.parent.stat().st_mtime < before
    ]
    if left and project.private_key.exists():
        found.append(Finding("unsealed_log_files", {"paths": left}, fixable=True))
    elif left:
        found.append(Finding("unsealed_log_files", {"paths": left}, harmless=True))
    return found
