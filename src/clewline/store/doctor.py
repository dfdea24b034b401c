"""
Checking a store: what is missing, damaged, left over or half done, and how to mend it.

Reads only. While others write, what is theirs and not finished is left out.
"""

from __future__ import annotations

import re
import sqlite3
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing
from pathlib import Path

import msgspec

from clewline.errors import BlobCorrupt, BlobMissing
from clewline.store import locks, reader
from clewline.store.blobs import Blobs
from clewline.store.catalog import Catalog
from clewline.store.digest import Digest, digest_bytes, digest_file
from clewline.store.loose import LooseFiles, leftovers
from clewline.store.pack import Scan, scan
from clewline.store.phrases import counted, short, size, some
from clewline.store.process import life
from clewline.store.reader import CatalogReader
from clewline.store.records import Artifact, CacheEntry, Revision, Run, StepRun

Inside = Mapping[str, Callable[[bytes], Iterable[Digest]]]
"""Format of a blob → the blobs that such a blob needs."""

_MENTION = re.compile(rb"[0-9a-f]{64}")
_YOUNG_S = 3600.0
_FROM_BACKUP = (
    "Run again without the cache what made it: stored again it is mended. Or bring it back "
    "from a backup."
)
_CUT_OFF = "Nothing refers to it; `clewline doctor --mend` removes it, as does the next write."


class Finding(msgspec.Struct, frozen=True):
    """Something that is not as it should be."""

    kind: str
    what: str
    fix: str


def check(root: Path, *, deep: bool = True, inside: Inside | None = None) -> list[Finding]:
    """
    Check a store.

    Args:
        root: The folder `.clewline` of a project.
        deep: Read and verify every blob, not their headers alone.
        inside: What blobs need that name others: by the format of their artifact, or
            "snapshot". A blob that any of them mentions is no orphan in any case.

    Returns:
        What was found; nothing when all is well.

    Raises:
        NotFound: There is no store.
        StoreNewer: A newer clewline wrote it.
    """
    catalog = CatalogReader(root / reader.FILE)
    found = _Blobs(root / "blobs", deep)
    # The blobs first: a record that comes meanwhile finds its blobs among them.
    findings = [*found.findings(), *_catalog(root / reader.FILE)]
    needs = _Needs(catalog, found.blobs, inside or {})
    findings += _missing(needs, found)
    findings += _orphans(needs, found)
    findings += _unfinished(catalog)
    findings += _locks(root / "locks")
    return findings


def mend(root: Path) -> None:
    """
    Mend what needs no judgement: half-written records, stale locks, runs of dead processes.

    Raises:
        StoreReadOnly: The store cannot be written.
    """
    with closing(Blobs(root / "blobs")) as blobs:
        blobs.recover()
    for path in _stale(root / "locks"):
        with locks.hold(path, timeout_s=reader.BUSY_S):
            continue  # let go, a lock names nobody
    with closing(Catalog(root / reader.FILE, root / "locks" / "catalog")) as catalog:
        for run in _dead(catalog.reader):
            _interrupt(catalog, run)


class _Blobs:
    """The blobs that are there, whole or not."""

    def __init__(self, root: Path, deep: bool) -> None:
        self.blobs = Blobs(root)
        self.deep = deep
        self.packs = root / "packs"
        self.loose = LooseFiles(root)
        self.sound: dict[Digest, int] = {}  # and their sizes
        self.damaged: dict[Digest, str] = {}  # and where they lie
        self.in_progress: set[Digest] = set()

    def findings(self) -> list[Finding]:
        """Look at every file, and tell what is wrong with them."""
        found = [
            finding for path in sorted(self.packs.glob("*.pack")) for finding in self._pack(path)
        ]
        self._large()
        found += [
            Finding(
                "half-written record",
                f"{path} was being written when its process died.",
                _CUT_OFF,
            )
            for path in leftovers(self.loose.incoming)
        ]
        found += [
            Finding("flipped byte", f"The blob {digest} in {place} is damaged.", _FROM_BACKUP)
            for digest, place in self.damaged.items()
            if digest not in self.sound
        ]
        return found

    def _pack(self, path: Path) -> Iterator[Finding]:
        is_written = locks.is_held(path)
        content = scan(path)
        for entry in content.entries:
            digest = Digest(entry.digest.hex())
            if self.deep and digest_bytes(_read(path, entry.offset, entry.length)) != digest:
                self.damaged[digest] = f"{path} at byte {entry.offset}"
                continue
            self.sound[digest] = entry.length
            if is_written:
                self.in_progress.add(digest)
        if not is_written:
            yield from _pack_findings(path, content)

    def _large(self) -> None:
        for digest in self.loose:
            path = self.loose.path(digest)
            if self.deep and digest_file(path) != digest:
                self.damaged[digest] = str(path)
                continue
            status = path.stat()
            self.sound[digest] = status.st_size
            if time.time() - status.st_mtime < _YOUNG_S:
                self.in_progress.add(digest)


class _Needs:
    """Which blobs the records need, and which are mentioned."""

    def __init__(self, catalog: CatalogReader, blobs: Blobs, inside: Inside) -> None:
        self.blobs, self.inside = blobs, inside
        self.needed: dict[Digest, str] = {}  # and by whom
        self.mentioned: set[Digest] = set()
        for artifact in catalog.find(Artifact, limit=None):
            self._need(artifact.blob, f"{artifact.kind} {short(artifact.digest)}", artifact.format)
        for run in catalog.find(Run, limit=None):
            self._need(run.snapshot, f"code snapshot of run {run.id}", "snapshot")
            self._need(run.environment, f"environment of run {run.id}", "environment")
        for revision in catalog.find(Revision, limit=None):
            by = f"code of revision {revision.endpoint}#{revision.number}"
            self._need(revision.code, by, "snapshot")
        for step in catalog.find(StepRun, limit=None):
            self._need(step.logs, f"log of step {step.id}", "log")
        for entry in catalog.find(CacheEntry, limit=None):
            self._need(entry.parts, f"key of step {entry.step_run}", "parts")

    def _need(self, digest: Digest | None, by: str, form: str) -> None:
        if digest is None or digest in self.needed:
            return
        self.needed[digest] = by
        look = self.inside.get(form)
        if look is None and form != "snapshot":
            return
        try:
            data = self.blobs.get(digest)
        except (BlobMissing, BlobCorrupt):
            return  # named already, as missing or damaged
        self.mentioned.update(Digest(text.decode()) for text in _MENTION.findall(data))
        for inner in look(data) if look else ():
            self.needed.setdefault(inner, by)


def _pack_findings(path: Path, content: Scan) -> Iterator[Finding]:
    if content.torn:
        yield Finding(
            "half-written record",
            f"{path} ends in the middle of a blob, at byte {content.end}: its process was killed.",
            _CUT_OFF,
        )
    for offset in content.damaged:
        yield Finding(
            "flipped byte", f"{path} holds a damaged record at byte {offset}.", _FROM_BACKUP
        )


def _catalog(path: Path) -> Iterator[Finding]:
    fix = "Bring back `catalog.db` from a backup."
    with closing(reader.connect(path)) as connection:
        try:
            said = [row[0] for row in connection.execute("PRAGMA integrity_check(5)")]
            loose = connection.execute("PRAGMA foreign_key_check").fetchall()
        except sqlite3.DatabaseError as error:
            said, loose = [str(error)], []
    for text in said:
        if text != "ok":
            yield Finding("damaged catalog", f"SQLite says of {path}: {text}.", fix)
    if loose:
        tables = some(sorted({f"{row[0]} → {row[2]}" for row in loose}))
        yield Finding(
            "damaged catalog",
            f"{counted(len(loose), 'record')} in {path} refer to records that are not there: "
            f"{tables}.",
            fix,
        )


def _missing(needs: _Needs, found: _Blobs) -> list[Finding]:
    return [
        Finding("missing blob", f"The blob {digest}, the {by}, is not in the store.", _FROM_BACKUP)
        for digest, by in needs.needed.items()
        if digest not in found.sound
        and digest not in found.damaged
        # What came while we looked is not missing.
        and not needs.blobs.has(digest)
    ]


def _orphans(needs: _Needs, found: _Blobs) -> list[Finding]:
    known = needs.needed.keys() | needs.mentioned | found.in_progress
    orphans = sorted(found.sound.keys() - known)
    if not orphans:
        return []
    space = size(sum(found.sound[digest] for digest in orphans))
    return [
        Finding(
            "orphan blob",
            f"{counted(len(orphans), 'blob')} ({space}) belong to no record: "
            f"{some(map(short, orphans), 3)}. A full disk or a killed process leaves such.",
            "They take space and do no harm; stored again, the same content uses them.",
        )
    ]


def _unfinished(catalog: CatalogReader) -> list[Finding]:
    return [
        Finding(
            "half-written record",
            f"Run {run.id} of {run.pipeline} says that it is running, and its process is dead.",
            "`clewline doctor --mend` marks it as interrupted.",
        )
        for run in _dead(catalog)
    ]


def _dead(catalog: CatalogReader) -> list[Run]:
    running = catalog.find(Run, status="running", limit=None)
    return [run for run in running if life(run.process) == "dead"]


def _interrupt(catalog: Catalog, run: Run) -> None:
    with catalog.transaction() as transaction:
        steps = transaction.find(StepRun, run=run.id, status="running", limit=None)
        for record in (run, *steps):
            transaction.replace(msgspec.structs.replace(record, status="interrupted"))


def _locks(folder: Path) -> list[Finding]:
    return [
        Finding(
            "stale lock",
            f"{path} names {locks.holder(path)}, which is dead.",
            "It locks nobody out; `clewline doctor --mend` clears it, as does its next holder.",
        )
        for path in _stale(folder)
    ]


def _stale(folder: Path) -> list[Path]:
    paths = sorted(folder.iterdir()) if folder.is_dir() else []
    return [path for path in paths if locks.is_stale(path)]


def _read(path: Path, offset: int, length: int) -> bytes:
    with path.open("rb") as file:
        file.seek(offset)
        return file.read(length)
