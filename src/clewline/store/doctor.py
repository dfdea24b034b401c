"""
Checking a store: what is missing, damaged, left over or half done, and fixing what can be fixed.

`check_store` reads only. What other processes are writing meanwhile is left out.
"""

from __future__ import annotations

import re
import sqlite3
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import msgspec

from clewline.errors import BlobCorrupt, BlobMissing
from clewline.formatting import short_digest
from clewline.store import reader
from clewline.store.blobs import FileBlobStore, LargeBlobs
from clewline.store.catalog import Catalog
from clewline.store.digest import Digest, digest_bytes, digest_file
from clewline.store.locks import hold_lock, is_locked, is_stale, lock_holder, process_state
from clewline.store.packs import scan_pack
from clewline.store.reader import BUSY_S, FILE, CatalogReader
from clewline.store.records import (
    Artifact,
    CacheEntry,
    ExplanationRecord,
    Revision,
    RouterState,
    Run,
    StepRun,
)
from clewline.store.rows import UnreadableRecord

BlobsInside = Mapping[str, Callable[[bytes], Iterable[Digest]]]
"""Format of a blob → a function that lists the blobs which such a blob needs."""

_MENTION = re.compile(rb"[0-9a-f]{64}")
PAGE = 1000
"""Explanations that are read at once."""
_YOUNG_S = 3600.0  # a large blob may have been written so long before its record is


class Finding(msgspec.Struct, frozen=True, omit_defaults=True):
    """
    A thing that is not as it should be.

    The sentences for people stand in `clewline.serve.doctor`, by `code`.
    """

    code: str  # such as "missing_blob"
    values: dict[str, Any] = {}  # those of the case, such as the blob and the record that needs it
    fixable: bool = False  # by `clewline doctor --fix`
    harmless: bool = False  # takes space and nothing else


def check_store(
    root: Path, *, deep: bool = True, inside: BlobsInside | None = None
) -> list[Finding]:
    """
    Check a store.

    Args:
        root: The folder `.clewline` of a project.
        deep: Read and verify every blob, not their headers alone, and every explanation.
        inside: Lists the blobs that a blob needs: by the format of its artifact, or "snapshot".
            A blob that any of them mentions is never an orphan.

    Returns:
        What was found; nothing when the store is sound.

    Raises:
        NotFound: There is no store.
        StoreNewer: A newer clewline wrote it.
    """
    with closing(CatalogReader(root / FILE)) as catalog:
        # The blobs first: a record that comes meanwhile finds its blobs among them.
        blobs = _StoredBlobs(root / "blobs", deep)
        with closing(blobs.store):
            return _check_store(root, catalog, blobs, inside or {})


def _check_store(
    root: Path, catalog: CatalogReader, found: _StoredBlobs, inside: BlobsInside
) -> list[Finding]:
    findings = [*found.findings, *_catalog_findings(root / FILE)]
    needs = _NeededBlobs(catalog, found.store, inside)
    if found.deep:
        for record in _changed_explanations(catalog, needs.unreadable):
            named = {"explanation": record.id, "prediction": record.prediction}
            findings.append(Finding("changed_explanation", named | {"kind": record.kind}))
    findings += [
        Finding("damaged_record", {"message": error.message, "fix": error.fix})
        for error in needs.unreadable
    ]
    for digest, (what, of) in needs.needed.items():
        known = digest in found.sound or digest in found.damaged
        if not known and not found.store.has(digest):  # it may have come while we looked
            findings.append(Finding("missing_blob", {"blob": digest, "what": what, "of": of}))
    orphans = found.sound.keys() - needs.needed.keys() - needs.mentioned - found.in_progress
    if orphans:
        values = {
            "blobs": sorted(orphans),
            "size_bytes": sum(found.sound[digest] for digest in orphans),
        }
        findings.append(Finding("orphan_blobs", values, harmless=True))
    for run in _dead_runs(catalog):
        values = {"run": run.id, "pipeline": run.pipeline}
        findings.append(Finding("unfinished_run", values, fixable=True))
    for path in _stale_locks(root):
        values = {"path": str(path), "process": lock_holder(path)}
        findings.append(Finding("stale_lock", values, fixable=True))
    return findings


def fix_store(root: Path) -> None:
    """
    Fix what needs no judgement: half-written records, stale locks, runs of dead processes.

    Raises:
        StoreReadOnly: The store cannot be written.
    """
    with closing(FileBlobStore(root / "blobs")) as blobs:
        blobs.recover()
    for path in _stale_locks(root):
        with hold_lock(path, timeout_s=BUSY_S):
            pass  # a lock that was released names nobody
    with closing(Catalog(root / FILE, root / "locks" / "catalog")) as catalog:
        for run in _dead_runs(catalog.reader):
            with catalog.transaction() as transaction:
                steps = transaction.find(StepRun, run=run.id, status="running", limit=None)
                for record in (run, *steps):
                    transaction.replace(msgspec.structs.replace(record, status="interrupted"))


def _changed_explanations(
    catalog: CatalogReader, unreadable: list[UnreadableRecord]
) -> Iterator[ExplanationRecord]:
    """Yield the explanations that are not what was stored, some thousand read at a time."""
    for offset in range(0, catalog.count(ExplanationRecord), PAGE):
        page = catalog.find(ExplanationRecord, limit=PAGE, offset=offset, unreadable=unreadable)
        yield from (record for record in page if record.is_changed)


class _StoredBlobs:
    """The blobs that are there, whole or not."""

    def __init__(self, root: Path, deep: bool) -> None:
        self.store = FileBlobStore(root)
        self.deep = deep
        self.sound: dict[Digest, int] = {}  # and their sizes
        self.damaged: dict[Digest, str] = {}  # and where they lie
        self.in_progress: set[Digest] = set()
        self.findings: list[Finding] = []
        for path in sorted((root / "packs").glob("*.pack")):
            self._read_pack(path)
        large = LargeBlobs(root)
        for digest in large:
            path = large.path(digest)
            if self.deep and digest_file(path) != digest:
                self.damaged[digest] = str(path)
                continue
            status = path.stat()
            self.sound[digest] = status.st_size
            if time.time() - status.st_mtime < _YOUNG_S:
                self.in_progress.add(digest)
        for path in large.leftovers():
            self.findings.append(Finding("unfinished_blob", {"path": str(path)}, fixable=True))
        for digest, place in self.damaged.items():
            if digest not in self.sound:
                values = {"blob": digest, "place": place}
                self.findings.append(Finding("damaged_blob", values))

    def _read_pack(self, path: Path) -> None:
        is_written = is_locked(path)
        content = scan_pack(path)
        with path.open("rb") as file:
            for entry in content.entries:
                digest = Digest(entry.digest.hex())
                file.seek(entry.offset)
                if self.deep and digest_bytes(file.read(entry.length)) != digest:
                    self.damaged[digest] = f"{path} at byte {entry.offset}"
                    continue
                self.sound[digest] = entry.length
                if is_written:
                    self.in_progress.add(digest)
        if is_written:
            return
        if content.torn:
            values = {"path": str(path), "offset": content.end}
            self.findings.append(Finding("unfinished_pack", values, fixable=True))
        for offset in content.damaged:
            values = {"path": str(path), "offset": offset}
            self.findings.append(Finding("damaged_pack", values))


class _NeededBlobs:
    """The blobs that the records need, and those that are mentioned inside of them."""

    def __init__(self, catalog: CatalogReader, blobs: FileBlobStore, inside: BlobsInside) -> None:
        self.blobs, self.inside = blobs, inside
        self.needed: dict[Digest, tuple[str, str]] = {}  # and for what, of which record
        self.mentioned: set[Digest] = set()
        self.unreadable: list[UnreadableRecord] = []
        for artifact in catalog.find(Artifact, limit=None, unreadable=self.unreadable):
            name = f"artifact {short_digest(artifact.digest)}"
            self._add(artifact.blob, artifact.kind, name, artifact.format)
        for run in catalog.find(Run, limit=None, unreadable=self.unreadable):
            self._add(run.snapshot, "code snapshot", f"run {run.id}", "snapshot")
            self._add(run.environment, "environment", f"run {run.id}")
        for revision in catalog.find(Revision, limit=None, unreadable=self.unreadable):
            self._add(revision.code, "code snapshot", f"revision {revision.ref}", "snapshot")
        for step in catalog.find(StepRun, limit=None, unreadable=self.unreadable):
            self._add(step.logs, "log", f"step {step.id}")
        catalog.find(RouterState, limit=None, unreadable=self.unreadable)  # which needs no blob
        for entry in catalog.find(CacheEntry, limit=None, unreadable=self.unreadable):
            self._add(entry.parts, "cache key", f"step {entry.step_run}")

    def _add(self, digest: Digest | None, what: str, of: str, form: str = "") -> None:
        if digest is None or digest in self.needed:
            return
        self.needed[digest] = (what, of)
        list_needed = self.inside.get(form)
        if list_needed is None and form != "snapshot":
            return
        try:
            data = self.blobs.get(digest)
        except (BlobMissing, BlobCorrupt):
            return  # it is a finding already
        self.mentioned.update(Digest(text.decode()) for text in _MENTION.findall(data))
        for inner in list_needed(data) if list_needed else ():
            self.needed.setdefault(inner, (what, of))


def _catalog_findings(path: Path) -> Iterator[Finding]:
    with closing(reader.connect(path)) as connection:
        try:
            said = [row[0] for row in connection.execute("PRAGMA integrity_check(5)")]
            dangling = connection.execute("PRAGMA foreign_key_check").fetchall()
        except sqlite3.DatabaseError as error:
            said, dangling = [str(error)], []
    for text in said:
        if text != "ok":
            yield Finding("damaged_catalog", {"path": str(path), "reason": text})
    if dangling:
        tables = sorted({f"{row[0]} → {row[2]}" for row in dangling})
        values = {"path": str(path), "records": len(dangling), "tables": tables}
        yield Finding("dangling_records", values)


def _dead_runs(catalog: CatalogReader) -> list[Run]:
    running = catalog.find(Run, status="running", limit=None, unreadable=[])
    return [run for run in running if process_state(run.process) == "dead"]


def _stale_locks(root: Path) -> list[Path]:
    folder = root / "locks"
    return [path for path in sorted(folder.iterdir()) if is_stale(path)] if folder.is_dir() else []
