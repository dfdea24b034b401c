"""What differs between two versions: metrics, form, data, parameters, code, fields, libraries."""

from __future__ import annotations

from collections.abc import Iterator

from clewline.formatting import format_time, short_digest
from clewline.model.package import Package
from clewline.model.promote import report_metrics
from clewline.store.records import Run


def compare_versions(
    left: Package, right: Package, left_run: Run | None = None, right_run: Run | None = None
) -> list[dict[str, str]]:
    """
    Return each property that differs, with its value in both versions; the most important first.

    Args:
        left: A checked package.
        right: The other.
        left_run: The run that registered `left`, for its parameters.
        right_run: The run that registered `right`.
    """
    mine, theirs = dict(_properties(left, left_run)), dict(_properties(right, right_run))
    return [
        {"property": name, "left": mine.get(name, "–"), "right": theirs.get(name, "–")}
        for name in mine | theirs
        if mine.get(name) != theirs.get(name)
    ]


def _properties(package: Package, run: Run | None) -> Iterator[tuple[str, str]]:
    manifest, signature = package.manifest, package.signature
    for name, score in report_metrics(manifest.report or {}).items():
        yield name, str(score)
    yield "served by", f"{manifest.runtime}, {manifest.equality.get('form', '?')}"
    yield "size", f"{package.size_bytes:,} bytes"
    for name, table in manifest.data.items():
        digest = short_digest(str(table.get("artifact") or "–"))
        yield f"{name} data", f"{digest}, {table.get('rows'):,} rows"
    for name, value in (run.params if run else {}).items():
        yield f"param {name}", str(value)
    yield "commit", short_digest(str(manifest.code.get("commit") or "–"))
    yield "changed files", ", ".join(manifest.code.get("changed") or []) or "none"
    yield "code", short_digest(str(manifest.code.get("snapshot") or "–"))
    yield "target", manifest.target
    yield "labels", ", ".join(map(str, signature.output.labels or ()))
    for field in signature.fields:
        parts = [field.kind, *(["nullable"] if field.nullable else [])]
        if field.bounds:
            parts.append(" to ".join(field.bound_texts()))
        if field.levels:
            parts.append(f"{len(field.levels)} levels")
        yield f"field {field.name}", ", ".join(parts)
    for name, text in manifest.versions.items():
        yield f"version of {name}", text
    yield "registered", format_time(manifest.created)
