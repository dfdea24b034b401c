"""
The registry's hash chain: every registration and every move of an alias, in order.

Each link holds the digest of the one before it and is signed with the project's key. So a link
that was changed, removed, reordered or inserted is found. If only the last links are removed,
the chain stays whole; the versions and aliases that they recorded then have no link, and the
head that `promote` wrote into Git is missing from the chain.
"""

from __future__ import annotations

import base64
import binascii
import getpass
import os
import platform
import time
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from clewline.model.seal import Sealer, verify_signature
from clewline.store.digest import Digest, digest_bytes
from clewline.store.records import Alias, ChainEntry, ModelVersion
from clewline.store.ref import RecordSource

if TYPE_CHECKING:
    from clewline.store.catalog import Transaction

START = digest_bytes(b"clewline registry chain 1\n")
"""Takes the place of the previous digest in the first link."""

LINK = b"clewline registry link 1\n"
REGISTERED, PROMOTED = "registered", "promoted"


def last_link(records: RecordSource) -> ChainEntry | None:
    """Return the last link; None if there is none yet."""
    return next(iter(records.find(ChainEntry, order="-seq", limit=1)), None)


def append_link(
    transaction: Transaction, kind: str, body: dict[str, Any], sealer: Sealer
) -> ChainEntry:
    """Add a link to the chain."""
    link = next_link(last_link(transaction), kind, body, sealer)
    transaction.add(link)
    return link


def next_link(
    last: ChainEntry | None, kind: str, body: dict[str, Any], sealer: Sealer
) -> ChainEntry:
    """Create the link after `last`. Add it in the transaction that `last` was read in."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a container's user may have no name
        user = str(os.getuid())
    seq, previous = (last.seq + 1, last.digest) if last else (1, START)
    body, created = {**body, "by": f"{user}@{platform.node()}"}, time.time()
    digest = _digest(seq, previous, kind, body, created)
    signature = base64.b64encode(sealer.sign(LINK + digest.encode())).decode()
    return ChainEntry(
        seq=seq,
        previous=previous,
        digest=digest,
        kind=kind,
        body=body,
        created=created,
        signature=signature,
    )


def chain_problems(links: Sequence[ChainEntry], public_key: str) -> list[str]:
    """
    Check a chain, and describe each fault.

    Args:
        links: All links, by `seq`.
        public_key: The project's.
    """
    found: list[str] = []
    previous, seq = START, 0
    for link in links:
        if link.seq != seq + 1:
            found.append(f"link {seq + 1} is missing: link {link.seq} follows {seq}")
        elif link.previous != previous:
            found.append(f"link {link.seq} does not continue the one before it")
        if reason := _link_problem(link, public_key):
            found.append(f"link {link.seq} ({link.kind} {link.body.get('model')}) {reason}")
        previous, seq = link.digest, link.seq
    return found


def _link_problem(link: ChainEntry, public_key: str) -> str | None:
    if link.digest != _digest(link.seq, link.previous, link.kind, link.body, link.created):
        return "was changed: its content does not match its digest"
    try:
        signature = base64.b64decode(link.signature, validate=True)
    except binascii.Error:
        return "has no readable signature"
    if not verify_signature(public_key, LINK + link.digest.encode(), signature):
        return "was not signed with the project's key"
    return None


def catalog_differences(
    links: Iterable[ChainEntry], versions: Iterable[ModelVersion], aliases: Iterable[Alias]
) -> list[str]:
    """Describe each version and alias that differs between the catalog and the chain."""
    packages: dict[str, str] = {}
    holders: dict[str, str] = {}
    for link in links:
        model = str(link.body.get("model"))
        if link.kind == REGISTERED:
            packages[model] = str(link.body.get("package"))
        elif link.kind == PROMOTED:
            holders[f"{model.partition('@')[0]}@{link.body.get('alias')}"] = model
    present: dict[str, str] = {version.ref: version.package for version in versions}
    names = {f"{alias.name}@{alias.alias}": f"{alias.name}@{alias.number}" for alias in aliases}
    return [
        *_differences("version", packages, present),
        *_differences("alias", holders, names),
    ]


def _differences(kind: str, chain: dict[str, str], catalog: dict[str, str]) -> Iterator[str]:
    for name in sorted(catalog.keys() - chain):
        yield f"{kind} {name} has no link in the chain"
    for name, value in chain.items():
        if name not in catalog:
            yield f"{kind} {name} is in the chain, not in the catalog"
        elif catalog[name] != value:
            there = catalog[name][:12]
            yield f"{kind} {name} is {there} in the catalog, {value[:12]} in the chain"


def _digest(seq: int, previous: Digest, kind: str, body: dict[str, Any], created: float) -> Digest:
    content = [seq, previous, kind, body, created]
    return digest_bytes(LINK + msgspec.json.encode(content, order="sorted"))
