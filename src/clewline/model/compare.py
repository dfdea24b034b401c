"""What differs between two model versions."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import msgspec

from clewline.model.package import Manifest, Package
from clewline.model.promote import scores
from clewline.signature.field import Field
from clewline.store.records import Run


class VersionDifference(msgspec.Struct, frozen=True):
    """One thing, as it is in the one version and in the other."""

    what: str
    left: str
    right: str


def compare_versions(
    left: Package, right: Package, left_run: Run | None = None, right_run: Run | None = None
) -> list[VersionDifference]:
    """
    Compare two versions: only what differs, what matters most first.

    Args:
        left: A checked package.
        right: The other.
        left_run: The run that registered `left`, for its parameters.
        right_run: Likewise.
    """
    mine, theirs = _told(left, left_run), _told(right, right_run)
    names = [*mine, *(name for name in theirs if name not in mine)]
    return [
        VersionDifference(name, mine.get(name, "–"), theirs.get(name, "–"))
        for name in names
        if mine.get(name) != theirs.get(name)
    ]


def _told(package: Package, run: Run | None) -> dict[str, str]:
    return dict(_facts(package, run))


def _facts(package: Package, run: Run | None) -> Iterator[tuple[str, str]]:
    manifest = package.manifest
    for name, score in scores(manifest.report or {}).items():
        yield name, str(score)
    yield "served by", f"{manifest.runtime}, {manifest.equality.get('form', '?')}"
    yield "size", f"{package.size_bytes:,} bytes"
    yield from _data(manifest)
    yield from (
        (f"param {name}", str(value)) for name, value in (run.params if run else {}).items()
    )
    yield "commit", _short(manifest.code.get("commit"))
    yield "changed files", ", ".join(manifest.code.get("changed") or []) or "none"
    yield "code", _short(manifest.code.get("snapshot"))
    yield "target", manifest.target
    yield "labels", ", ".join(map(str, package.signature.output.labels or ()))
    yield from ((f"field {field.name}", _field(field)) for field in package.signature.fields)
    yield from ((f"version of {name}", text) for name, text in manifest.versions.items())
    yield "registered", datetime.fromtimestamp(manifest.created, UTC).strftime("%Y-%m-%d %H:%M UTC")


def _data(manifest: Manifest) -> Iterator[tuple[str, str]]:
    for name, table in manifest.data.items():
        yield f"{name} data", f"{_short(table.get('artifact'))}, {table.get('rows'):,} rows"


def _field(field: Field) -> str:
    parts = [field.kind, *(["nullable"] if field.nullable else [])]
    if field.bounds:
        parts.append(" to ".join(field.bound_texts()))
    if field.levels:
        parts.append(f"{len(field.levels)} levels")
    return ", ".join(parts)


def _short(digest: Any) -> str:
    return str(digest)[:12] if digest else "–"
