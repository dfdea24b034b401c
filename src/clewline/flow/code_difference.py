"""The lines of code in which two runs differ."""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from itertools import islice
from typing import Literal

import msgspec

from clewline.flow.code.snapshot import Snapshot
from clewline.store.blobs import BlobStore

FILE_BYTES = 1 << 18
"""A larger file is not compared line by line."""
LINES_SHOWN = 500
"""Lines of difference of one file."""


class FileDifference(msgspec.Struct, frozen=True):
    """How one file differs between two snapshots of code."""

    path: str
    kind: Literal["added", "removed", "changed"]
    lines: list[str] = []  # as `diff -u` writes them, without its head
    note: str | None = None  # why there are no lines, or not all


def code_differences(
    first: Snapshot | None, second: Snapshot | None, blobs: BlobStore
) -> Iterator[FileDifference]:
    """Yield each file that differs, by path, with its lines."""
    old = first.files if first is not None else {}
    new = second.files if second is not None else {}
    large = {*(first.large if first is not None else ()), *(second.large if second else ())}
    for path in sorted({*old, *new}):
        if old.get(path) == new.get(path):
            continue
        kind: Literal["added", "removed", "changed"] = (
            "removed" if path not in new else "added" if path not in old else "changed"
        )
        if path in large:
            yield FileDifference(path, kind, note="The file is too big to be kept with the run.")
            continue
        sides = [blobs.get(side[path]) if path in side else b"" for side in (old, new)]
        yield _compared(path, kind, *sides)


def _compared(
    path: str, kind: Literal["added", "removed", "changed"], old: bytes, new: bytes
) -> FileDifference:
    if max(len(old), len(new)) > FILE_BYTES:
        return FileDifference(path, kind, note=f"The file has more than {FILE_BYTES:,} bytes.")
    try:
        before, after = old.decode().splitlines(), new.decode().splitlines()
    except UnicodeDecodeError:
        return FileDifference(path, kind, note="The file is not text.")
    found = difflib.unified_diff(before, after, lineterm="", n=3)
    lines = list(islice(found, 2, LINES_SHOWN + 3))  # after the two lines of its head
    if len(lines) > LINES_SHOWN:
        note = f"The first {LINES_SHOWN:,} lines of the difference."
        return FileDifference(path, kind, lines[:LINES_SHOWN], note)
    return FileDifference(path, kind, lines)
