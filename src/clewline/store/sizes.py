"""How much space each part of a store takes."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal, NamedTuple

from clewline.store.reader import FILE

StorePart = Literal["catalog", "blobs", "models", "log", "shadow", "explain", "rest"]
_FOLDERS: tuple[StorePart, ...] = ("blobs", "models", "log", "shadow", "explain")


class StoreSize(NamedTuple):
    """The size of one part of a store."""

    part: StorePart
    files: int
    size_bytes: int


def store_sizes(root: Path) -> list[StoreSize]:
    """
    Measure the parts of a store; what is removed meanwhile is left out.

    Args:
        root: The folder `.clewline` of a project.
    """
    found: dict[StorePart, list[int]] = {part: [] for part in ("catalog", *_FOLDERS, "rest")}
    waiting: list[tuple[Path, StorePart | None]] = [(root, None)]
    while waiting:
        folder, inside = waiting.pop()
        try:
            entries = list(os.scandir(folder))
        except FileNotFoundError:
            continue
        for entry in entries:
            part = inside or _part_of(entry.name)
            try:
                if entry.is_dir(follow_symlinks=False):
                    waiting.append((Path(entry.path), part))
                else:
                    found[part].append(entry.stat(follow_symlinks=False).st_size)
            except FileNotFoundError:
                continue
    return [StoreSize(part, len(sizes), sum(sizes)) for part, sizes in found.items()]


def _part_of(name: str) -> StorePart:
    if name.startswith(FILE):  # with its write-ahead log
        return "catalog"
    return next((part for part in _FOLDERS if part == name), "rest")
