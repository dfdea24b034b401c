"""
Records compared with the signed chain.

A sealed record is in order if the last link of the chain that names it holds its digest. Every
link holds the digest of the one before it, and no link is added after one that is not signed
(`registry_chain.append_link`). So the signature of the last link vouches for all before it, and a
server checks one signature and the digests, not a signature a link. Where a link does not
continue the one before it, the chain is broken: of what only earlier links name, nobody knows
whether the missing link changed it.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from clewline.errors import IntegrityError, NotStorable
from clewline.formatting import format_list
from clewline.model.registry_chain import (
    PROMOTED,
    START,
    has_its_digest,
    last_link,
    link_problem,
)
from clewline.model.seal import require_public_key
from clewline.project import Project
from clewline.store.digest import Digest
from clewline.store.reader import RecordQueries
from clewline.store.records import (
    KINDS,
    Alias,
    ChainEntry,
    LiveRevision,
    Record,
    Revision,
    Token,
)
from clewline.store.ref import RecordSource
from clewline.store.rows import R, UnreadableRecord, describe, field_hints, sealed_digest

SEALED_KINDS = tuple(kind for kind in KINDS if kind.SEALED)
RESTORE = "Restore `catalog.db` from a backup."
FIXES: dict[type[Record], str] = {
    Revision: "Apply the endpoint again, or restore `catalog.db` from a backup.",
    LiveRevision: "Apply the endpoint again, or restore `catalog.db` from a backup.",
    Token: "Revoke it, again if that was done without the private key, and add another one. Or "
    "restore `catalog.db` from a backup.",
}
_FILE = "file "


class NotSealed(IntegrityError):
    """No link of the signed chain names a record."""


class SealedRecords:
    """
    Reads the records of a project, and refuses those that the signed chain does not hold.

    The first read walks the whole chain, some 20 µs a link; the later ones walk what was added
    since. Any thread may use it.

    Args:
        project: Its public key checks the chain.
        records: The catalog, its reader, or a transaction.
    """

    def __init__(self, project: Project, records: RecordQueries) -> None:
        self._project, self._records = project, records
        self._lock = threading.Lock()
        self._digests: dict[str, Digest] = {}  # of records and files, by name
        self._links = 0
        self._last = START, 0  # digest and number of the last link
        self._broken: int | None = None  # the last link that does not continue the one before it

    def problem(self, record: Record) -> IntegrityError | None:
        """Say why a record is not in order; None if it is."""
        with self._one_moment():
            return self._problem(record)

    def get(self, kind: type[R], *key: Any) -> R | None:
        """
        Get a record; None when there is none.

        Raises:
            IntegrityError: It differs from the signed chain, or cannot be read.
        """
        with self._one_moment():
            found = self._records.get(kind, *key)
            if found is not None and (problem := self._problem(found)):
                raise problem
            return found

    def find(
        self, kind: type[R], *, refused: list[IntegrityError] | None = None, **how: Any
    ) -> list[R]:
        """
        Find records.

        Args:
            kind: The kind of record.
            refused: Takes the errors of records that are not in order, which are then left out.
            how: As for `CatalogReader.find`.

        Raises:
            IntegrityError: One is not in order, and no list takes its error.
        """
        found, unreadable = [], None if refused is None else list[UnreadableRecord]()
        with self._one_moment():
            for record in self._records.find(kind, unreadable=unreadable, **how):
                problem = self._problem(record)
                if problem is None:
                    found.append(record)
                elif refused is None:
                    raise problem
                else:
                    refused.append(problem)
        if refused is not None:
            refused += unreadable or ()
        return found

    def file_digests(self) -> dict[str, Digest]:
        """Return the digests of the log's files in the chain, by their paths in the store."""
        with self._one_moment():
            return {
                name.removeprefix(_FILE): digest
                for name, digest in self._digests.items()
                if name.startswith(_FILE)
            }

    def problems(self) -> list[IntegrityError]:
        """List what differs between the catalog and the chain."""
        found: list[IntegrityError] = []
        names: set[str] = set()
        with self._one_moment():
            for kind in SEALED_KINDS:
                unreadable: list[UnreadableRecord] = []
                for record in self._records.find(kind, limit=None, unreadable=unreadable):
                    names.add(describe(record))
                    found += filter(None, [self._problem(record)])
                found += unreadable
                names.update(each.name for each in unreadable)
            found += [
                IntegrityError(f"{name} is in the signed chain, not in the catalog.", RESTORE)
                for name in self._digests.keys() - names
                if not name.startswith(_FILE)
            ]
        return found

    def unsealed(self) -> list[Record]:
        """List the records that no link of the chain names."""
        with self._one_moment():
            return [
                record
                for kind in SEALED_KINDS
                for record in self._records.find(kind, limit=None, unreadable=[])
                if isinstance(self._problem(record), NotSealed)
            ]

    @contextmanager
    def _one_moment(self) -> Iterator[None]:
        """Read records and the chain as they are at one moment, by one thread at a time."""
        with self._lock, self._records.snapshot():
            self._follow()
            yield

    def _follow(self) -> None:
        """Walk the links that were added since the last time."""
        newest = last_link(self._records)
        if ((newest.digest, newest.seq) if newest else (START, 0)) == self._last:
            return
        unreadable: list[UnreadableRecord] = []
        links = self._records.find(
            ChainEntry,
            order="seq",
            limit=None,
            offset=max(self._links - 1, 0),
            unreadable=unreadable,
        )
        digest, seq = self._last
        if self._links and (not links or (links[0].digest, links[0].seq) != self._last):
            raise IntegrityError(
                f"Link {seq} of the signed chain was changed or removed while this process ran.",
                "Restore `catalog.db`. If you put back an older one on purpose, start the server "
                "again.",
            )
        for link in links[1:] if self._links else links:
            named = _named(link)
            if (link.previous, link.seq) != (digest, seq + 1) or named is None:
                self._break(link.seq)
            self._digests.update(named or {})
            digest, seq = link.digest, link.seq
        # One that cannot be read is a gap before the next one. The last one was read above.
        self._links = max(self._links - 1, 0) + len(links) + len(unreadable)
        if link_problem(links[-1], require_public_key(self._project)):
            self._break(seq)
        self._last = digest, seq

    def _break(self, seq: int) -> None:
        self._digests.clear()
        self._broken = seq

    def _problem(self, record: Record) -> IntegrityError | None:
        if not record.SEALED:
            return None
        name = describe(record)
        sealed = self._digests.get(name)
        if sealed is None and self._broken is not None:
            return NotSealed(
                f"The signed chain is broken at link {self._broken}, and the {name} has no link "
                "after it.",
                f"{RESTORE} Without one, check it, and seal it with `clewline doctor --seal`.",
            )
        if sealed is None:
            return NotSealed(
                f"The {name} has no link in the signed chain: someone without the private key "
                "recorded it, or an older clewline.",
                "Check it. If it is yours, seal it with `clewline doctor --seal`.",
            )
        if _digest(record) == sealed:
            return None
        fields = self._changed_fields(record, name)
        return IntegrityError(
            f"The {name} is not the one in the signed chain"
            f"{f': {format_list(fields)} changed' if fields else ''}.",
            FIXES.get(type(record), RESTORE),
        )

    def _changed_fields(self, record: Record, name: str) -> list[str]:
        """Name the fields that differ from the last link; none if it does not say."""
        for link in self._records.find(ChainEntry, order="-seq", limit=None, unreadable=[]):
            sealed = link.body.get("fields", {}).get(name) if _named(link) else None
            if sealed is not None:
                here = field_hints(record)
                return [key for key in record.__struct_fields__ if here.get(key) != sealed.get(key)]
        return []


def unchecked(records: RecordSource) -> RecordSource:
    """Return what reads the same records whether they are in order or not."""
    return records._records if isinstance(records, SealedRecords) else records


def _named(link: ChainEntry) -> dict[str, Digest] | None:
    """Return the digests of a link, by names of records and files; None if it is not sound."""
    if not has_its_digest(link):
        return None
    try:
        found = {str(name): Digest(each) for name, each in link.body.get("records", {}).items()}
        for path, digest in link.body.get("files", {}).items():
            found[_FILE + path] = digest
        if link.kind == PROMOTED and not found:  # before links held digests
            name, _, number = str(link.body["model"]).partition("@")
            alias = link.body["alias"]
            moved = Alias(name=name, alias=alias, number=int(number), moved=link.created)
            found[describe(moved)] = sealed_digest(moved)
    except (AttributeError, TypeError, KeyError, ValueError):  # no command wrote that
        return None
    return found


def _digest(record: Record) -> Digest | None:
    try:
        return sealed_digest(record)
    except NotStorable:  # a row that no clewline wrote
        return None
