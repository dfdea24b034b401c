"""Where a model's file came from, as its manifest keeps it."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from pathlib import Path

import msgspec

from clewline.errors import IntegrityError, InvalidInput
from clewline.store.records import ModelVersion

_DIGEST = re.compile(r"sha256:([0-9a-f]{64})")


class Origin(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """A file that somebody brought: whose bytes, from where, and how it was described."""

    source: str  # as it was written: hf:OWNER/REPO/FILE, https://…, or a path
    sha256: str  # of the file, 64 hex characters
    size_bytes: int
    url: str | None = None  # that was asked
    revision: str | None = None  # that was asked for
    commit: str | None = None  # that the hub answered with
    licence: str | None = None  # as the hub tells it
    fetched: float | None = None  # seconds since the epoch, UTC
    signature: str | None = None  # SHA-256 of the file that stated the signature
    sample: str | None = None  # SHA-256 of the file with sample rows


class _Kept(msgspec.Struct):
    origin: Origin | None = None


def parse_sha256(text: str) -> str:
    """
    Read a pinned digest: `sha256:` and 64 hex characters.

    Raises:
        InvalidInput: It is not so written.

    >>> digest_of("sha256:" + "0" * 64) == "0" * 64
    True
    """
    found = _DIGEST.fullmatch(text.strip().lower())
    if found is None:
        raise InvalidInput(
            f"{text!r} is no digest.", "Write sha256: and the 64 hex characters of its SHA-256."
        )
    return found[1]


def require_sha256(data: bytes, sha256: str, name: str) -> None:
    """
    See that bytes are those that were pinned.

    Raises:
        IntegrityError: They are not; tells both digests.
    """
    actual = hashlib.sha256(data).hexdigest()
    if actual != sha256:
        raise IntegrityError(
            f"{name} has the digest sha256:{actual}, not the pinned sha256:{sha256}.",
            "Find out why it changed; pin the new digest only after you have checked the file.",
        )


def find_by_origin(
    packages: Path,
    versions: Iterable[ModelVersion],
    sha256: str,
    *,
    signature: str | None = None,
    sample: str | None = None,
) -> ModelVersion | None:
    """
    Find the version that was made of a file.

    The manifests are read as they lie; whoever loads the version checks its package.

    Args:
        packages: The project's.
        versions: Among which, the first that fits wins.
        sha256: Of the file.
        signature: SHA-256 of the file that stated its signature; any if None.
        sample: SHA-256 of the file with its sample rows; any if None.
    """
    for version in versions:
        origin = read_origin(packages / version.name / str(version.number))
        if origin is None or origin.sha256 != sha256:
            continue
        if signature in (None, origin.signature) and sample in (None, origin.sample):
            return version
    return None


def read_origin(folder: Path) -> Origin | None:
    """Give the origin that a package tells; None where it tells none, or cannot be read."""
    try:
        return msgspec.json.decode((folder / "manifest.json").read_bytes(), type=_Kept).origin
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError):
        return None  # `models verify` names a package that is damaged
