"""What persons have changed, when and why, as the signed chain holds it."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from clewline.model.registry_chain import (
    APPLIED,
    PROMOTED,
    ROLLED_BACK,
    TOKEN_ADDED,
    TOKEN_REVOKED,
    has_its_digest,
)
from clewline.store.records import ChainEntry
from clewline.store.ref import RecordSource

KINDS_OF_CHANGES = (PROMOTED, APPLIED, ROLLED_BACK, TOKEN_ADDED, TOKEN_REVOKED)
LOOKED_AT = 1_000
"""The newest links of each kind, among which changes are looked for."""


class SealedChange(msgspec.Struct, frozen=True, kw_only=True):
    """One change, as a link of the signed chain says it."""

    seq: int  # of the link
    kind: str  # promoted, applied, rolled_back, token_added, token_revoked
    refs: list[str]  # income@3, income#12, or the id of a token
    alias: str | None = None  # that was moved
    person: str | None = None  # who asked for it, as the console knew that person
    user: str  # of the process that did it: name@machine
    reason: str | None = None
    created: float  # seconds since the epoch


def sealed_changes(
    records: RecordSource,
    *,
    kinds: Iterable[str] = KINDS_OF_CHANGES,
    limit: int = LOOKED_AT,
) -> list[SealedChange]:
    """
    Return the newest changes, the newest first.

    Links whose content does not match their digest are left out; `clewline doctor` names them.

    Args:
        records: The catalog.
        kinds: Of links.
        limit: How many of each kind at most.
    """
    found = [
        link
        for kind in kinds
        for link in records.find(
            ChainEntry, prefix={"kind": kind}, order="-seq", limit=limit, unreadable=[]
        )
        if has_its_digest(link)
    ]
    return [_change(link) for link in sorted(found, key=lambda link: -link.seq)]


def _change(link: ChainEntry) -> SealedChange:
    body = link.body
    refs = [body.get(name) for name in ("model", "token")] + list(body.get("revisions") or ())
    return SealedChange(
        seq=link.seq,
        kind=link.kind,
        refs=[str(ref) for ref in refs if ref],
        alias=body.get("alias"),
        person=body.get("person"),
        user=str(body.get("by", "")),
        reason=body.get("reason") or body.get("forced"),
        created=link.created,
    )
