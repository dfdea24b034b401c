"""Where an imported model file came from, as its manifest keeps it."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

import msgspec

from clewline.errors import InvalidInput
from clewline.store.records import ModelVersion

_DIGEST = re.compile(r"sha256:([0-9a-f]{64})")


class Origin(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """An imported file: its bytes, its address, and how it was described."""

    source: str  # as it was written: hf:OWNER/REPO/FILE, https://…, or a path
    sha256: str  # of the file, 64 hex characters
    size_bytes: int
    url: str | None = None  # that was fetched
    revision: str | None = None  # that was requested
    commit: str | None = None  # of the hub's answer
    licence: str | None = None  # as the hub states it
    fetched: float | None = None  # seconds since the epoch, UTC
    signature: str | None = None  # SHA-256 of the file that stated the signature
    sample: str | None = None  # SHA-256 of the file with sample rows


class _ManifestOrigin(msgspec.Struct):
    origin: Origin | None = None


def parse_sha256(text: str) -> str:
    """
    Return the hex characters of a pinned digest: `sha256:` and 64 of them.

    Raises:
        InvalidInput: It is malformed.

    >>> parse_sha256("sha256:" + "0" * 64) == "0" * 64
    True
    """
    found = _DIGEST.fullmatch(text.strip().lower())
    if found is None:
        raise InvalidInput(
            f"{text!r} is not a digest.", "Write sha256: and the 64 hex characters of its SHA-256."
        )
    return found[1]


def find_by_origin(
    packages: Path,
    versions: Iterable[ModelVersion],
    sha256: str,
    *,
    signature: str | None = None,
    sample: str | None = None,
) -> ModelVersion | None:
    """
    Find the first version that a file became.

    Reads manifests without a check: whoever loads the version checks its package. A manifest
    that cannot be read is skipped; `models verify` names it.

    Args:
        packages: The project's folder of packages.
        versions: The versions to search.
        sha256: SHA-256 of the file.
        signature: SHA-256 of the file that stated its signature; None for any.
        sample: SHA-256 of the file with its sample rows; None for any.
    """
    for version in versions:
        manifest = packages / version.name / str(version.number) / "manifest.json"
        try:
            origin = msgspec.json.decode(manifest.read_bytes(), type=_ManifestOrigin).origin
        except (OSError, msgspec.MsgspecError, UnicodeDecodeError):
            continue
        if origin is None or origin.sha256 != sha256:
            continue
        if signature in (None, origin.signature) and sample in (None, origin.sample):
            return version
    return None
