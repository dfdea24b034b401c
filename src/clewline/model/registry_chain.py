"""
The registry's hash chain: every registration and every move of an alias, in order.

Each link holds the digest of the one before it and is signed with the project's
key, so that a link that was changed, removed, reordered or inserted is found.
The last links alone can be taken away unseen; what was registered and promoted
by them would then stand without a link, and `promote` writes the head into Git.
"""

from __future__ import annotations

import base64
import binascii
import getpass
import os
import platform
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec

from clewline.model import seal
from clewline.model.seal import Sealer
from clewline.store.digest import Digest, digest_bytes
from clewline.store.records import Alias, ChainEntry, ModelVersion
from clewline.store.ref import RecordSource

START = digest_bytes(b"clewline registry chain 1\n")
"""What the first link holds as the digest of the one before it."""

LINK = b"clewline registry link 1\n"
REGISTERED, PROMOTED = "registered", "promoted"


def last_link(records: RecordSource) -> ChainEntry | None:
    """Give the last link; None when there is none yet."""
    return next(iter(records.find(ChainEntry, order="-seq", limit=1)), None)


def next_link(
    last: ChainEntry | None, kind: str, body: dict[str, Any], sealer: Sealer
) -> ChainEntry:
    """Make the link after `last`. To be added in the transaction that `last` was read in."""
    seq = last.seq + 1 if last else 1
    previous = last.digest if last else START
    created = time.time()
    body = {**body, "by": _who()}
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
    Say what is wrong with a chain, one text for each place.

    Args:
        links: All of them, by `seq`.
        public_key: The project's.
    """
    found: list[str] = []
    previous, seq = START, 0
    for link in links:
        if link.seq != seq + 1:
            found.append(f"link {seq + 1} is missing: {seq} is followed by {link.seq}")
        elif link.previous != previous:
            found.append(f"link {link.seq} does not continue the one before it")
        if reason := _wrong(link, public_key):
            found.append(f"link {link.seq} ({link.kind} {link.body.get('model')}) {reason}")
        previous, seq = link.digest, link.seq
    return found


def catalog_differences(
    links: Iterable[ChainEntry], versions: Iterable[ModelVersion], aliases: Iterable[Alias]
) -> list[str]:
    """Say where the catalog is not what the chain tells of it."""
    packages, held = _told(links)
    there = {version.ref: version.package for version in versions}
    names = {f"{alias.name}@{alias.alias}": f"{alias.name}@{alias.number}" for alias in aliases}
    return [
        *_compare("version", packages, there),
        *_compare("alias", held, names),
    ]


def _who() -> str:
    try:
        return f"{getpass.getuser()}@{platform.node()}"
    except (KeyError, OSError):  # a container's user may have no name
        return f"{os.getuid()}@{platform.node()}"


def _told(links: Iterable[ChainEntry]) -> tuple[dict[str, str], dict[str, str]]:
    packages: dict[str, str] = {}
    held: dict[str, str] = {}
    for link in links:
        model = str(link.body.get("model"))
        if link.kind == REGISTERED:
            packages[model] = str(link.body.get("package"))
        elif link.kind == PROMOTED:
            held[f"{model.partition('@')[0]}@{link.body.get('alias')}"] = model
    return packages, held


def _compare(what: str, told: Mapping[str, str], there: Mapping[str, str]) -> list[str]:
    found = [f"{what} {name} has no link in the chain" for name in sorted(there.keys() - told)]
    found += [
        f"{what} {name} is in the chain, not in the catalog" for name in told if name not in there
    ]
    found += [
        f"{what} {name} is {there[name][:12]} in the catalog, {value[:12]} in the chain"
        for name, value in told.items()
        if name in there and there[name] != value
    ]
    return found


def _wrong(link: ChainEntry, public_key: str) -> str | None:
    if link.digest != _digest(link.seq, link.previous, link.kind, link.body, link.created):
        return "was changed: its content does not give its digest"
    try:
        signature = base64.b64decode(link.signature, validate=True)
    except binascii.Error:
        return "has no readable signature"
    if not seal.verify(public_key, LINK + link.digest.encode(), signature):
        return "was not signed with the project's key"
    return None


def _digest(seq: int, previous: Digest, kind: str, body: dict[str, Any], created: float) -> Digest:
    told = [seq, previous, kind, body, created]
    return digest_bytes(LINK + msgspec.json.encode(told, order="sorted"))
