"""
Large blobs, a file each: `loose/ab/cdef…` under the digest.

A file is written aside, under the name of its process, and takes its place only
when its bytes are durable, so that a name never stands for less than the blob.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from blake3 import blake3

from clewline.store.digest import Digest
from clewline.store.disk import sync_file, sync_folder, write_all
from clewline.store.process import life, this_process

PIECE_BYTES = 1 << 20

_numbers = itertools.count()  # of the process: it may have a store open twice


class LooseFiles:
    """The large blobs of a store. Not thread-safe but for reading."""

    def __init__(self, root: Path) -> None:
        self.folder = root / "loose"
        self.incoming = root / "incoming"

    def path(self, digest: Digest) -> Path:
        """Where a blob lies, or would."""
        return self.folder / digest[:2] / digest[2:]

    def write_aside(self, pieces: Iterable[bytes]) -> tuple[Digest, Path]:
        """Write bytes to a file of this process; it is not yet a blob."""
        path = self.incoming / f"{this_process()}:{next(_numbers)}"
        hasher = blake3()
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o444)
        try:
            for piece in pieces:
                hasher.update(piece)
                write_all(file, piece)
        except BaseException:
            path.unlink()
            raise
        finally:
            os.close(file)
        return Digest(hasher.hexdigest()), path

    def admit(self, aside: dict[Digest, Path]) -> None:
        """
        Make files that were written aside durable, and blobs.

        A file that is gone was admitted by an attempt that failed later, or by a forked child.
        """
        for digest, written in aside.items():
            sync_file(written if written.exists() else self.path(digest))
        folders = {self.path(digest).parent for digest in aside}
        for folder in folders:
            folder.mkdir(exist_ok=True)
        for digest, written in aside.items():
            if written.exists():
                written.replace(self.path(digest))
        for folder in (*folders, *([self.folder] if folders else [])):
            sync_folder(folder)

    def sweep(self) -> None:
        """Remove what dead processes wrote aside."""
        for path in leftovers(self.incoming):
            path.unlink(missing_ok=True)

    def __iter__(self) -> Iterator[Digest]:
        for folder in sorted(self.folder.glob("*")):
            for path in sorted(folder.iterdir()):
                yield Digest(folder.name + path.name)


def leftovers(incoming: Path) -> list[Path]:
    """Files that a process wrote aside before it died."""
    return [
        path for path in sorted(incoming.glob("*")) if life(path.name.rpartition(":")[0]) == "dead"
    ]


def pieces_of(path: Path) -> Iterator[bytes]:
    """Read a file in pieces of 1 MiB."""
    with path.open("rb") as file:
        while piece := file.read(PIECE_BYTES):
            yield piece
