"""Which installed distributions code rests on, each with version and digest of its record."""

from __future__ import annotations

import functools
import os
import re
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from clewline.flow.code.origin import CLEWLINE
from clewline.flow.environment import normalised
from clewline.store.digest import digest_bytes

COMPUTING = ("numpy", "polars", "narwhals", "scikit-learn")
"""What clewline's own steps compute with; its server and command line move no result."""

EXTRA = re.compile(rb"\bextra\s*==")
NAME = re.compile(rb"^Requires-Dist:\s*([A-Za-z0-9._-]+)")


@dataclass(frozen=True, slots=True)
class Distribution:
    """An installed distribution, by its metadata folder."""

    name: str  # normalised
    version: str
    folder: str

    def identity(self) -> str:
        """Version and digest of the record of its files."""
        return f"{self.version} {record_digest(self.folder)}"


def versions(modules: Iterable[str]) -> dict[str, str]:
    """
    The distributions that hold some modules, and all that these require.

    Args:
        modules: Import names, such as `sklearn.ensemble`.

    Returns:
        Normalised name → version and record digest, sorted. A module whose
        distribution is not known stands under its own name with the digest of
        its file, so that nothing is left out.
    """
    found: dict[str, str] = {}
    for module in modules:
        top = module.partition(".")[0]
        name = "clewline" if top == "clewline" else holder(module)
        found |= {"module " + module: module_digest(module)} if name is None else closure(name)
    return dict(sorted(found.items()))


@functools.lru_cache(maxsize=512)
def closure(name: str) -> dict[str, str]:
    """A distribution and all that it requires and that is installed, extras left out."""
    found: dict[str, str] = {}
    waiting = [name]
    while waiting:
        distribution = installed().get(waiting.pop())
        if distribution is not None and distribution.name not in found:
            found[distribution.name] = identity(distribution)
            waiting += (
                COMPUTING if distribution.name == "clewline" else requirements(distribution.folder)
            )
    return found or {name: clewline_identity()}


def identity(distribution: Distribution) -> str:
    """Version and digest; for clewline the digest of its own source, which may be a checkout."""
    return clewline_identity() if distribution.name == "clewline" else distribution.identity()


@functools.lru_cache(maxsize=1)
def clewline_identity() -> str:
    """clewline's version and the digest of its own source files."""
    from clewline import __version__

    files = sorted(Path(CLEWLINE).rglob("*.py"))
    listed = b"".join(
        f"{path.relative_to(CLEWLINE)} {digest_bytes(path.read_bytes())}\n".encode()
        for path in files
    )
    return f"{__version__} {digest_bytes(listed)[:32]}"


@functools.lru_cache(maxsize=1)
def installed() -> dict[str, Distribution]:
    """Every installed distribution by normalised name; the first on the path wins."""
    found: dict[str, Distribution] = {}
    for folder in dict.fromkeys(sys.path):
        for distribution in listed_in(folder):
            found.setdefault(distribution.name, distribution)
    return found


def listed_in(folder: str) -> list[Distribution]:
    """Distributions whose metadata stands in one folder of the path."""
    try:
        entries = sorted(os.listdir(folder or "."))
    except OSError:
        return []  # sys.path may name zip files and folders that are not there
    made = []
    for entry in entries:
        stem, suffix = os.path.splitext(entry)
        name, dash, version = stem.rpartition("-")
        if suffix == ".dist-info" and dash:
            made.append(Distribution(normalised(name), version, os.path.join(folder, entry)))
    return made


@functools.lru_cache(maxsize=4096)
def record_digest(folder: str) -> str:
    """Digest of the list of a distribution's files with their hashes; of METADATA without one."""
    for name in ("RECORD", "METADATA"):
        try:
            return digest_bytes(Path(folder, name).read_bytes())[:32]
        except FileNotFoundError:
            continue
    return "no record"


@functools.lru_cache(maxsize=1024)
def requirements(folder: str) -> tuple[str, ...]:
    """Normalised names that a distribution requires whatever its extras."""
    try:
        head = Path(folder, "METADATA").read_bytes().partition(b"\n\n")[0]
    except FileNotFoundError:
        return ()
    matches = (NAME.match(line) for line in head.splitlines() if not EXTRA.search(line))
    return tuple(normalised(match[1].decode()) for match in matches if match)


@functools.lru_cache(maxsize=4096)
def holder(module: str) -> str | None:
    """
    The distribution that a module belongs to; None when no record names it.

    Told from the records alone, so that it does not matter whether the module has
    been imported yet. The longest path is tried first: several distributions may
    share a namespace package.
    """
    likely = installed().get(normalised(module.partition(".")[0]))
    candidates = [*([likely] if likely else []), *installed().values()]
    path = module.replace(".", "/").encode()
    while path:
        for distribution in candidates:
            if any(b"\n" + path + end in record(distribution.folder) for end in (b"/", b".")):
                return distribution.name
        path = path.rpartition(b"/")[0]
    return None


@functools.lru_cache(maxsize=1024)
def record(folder: str) -> bytes:
    """The bytes of a RECORD, with a line end before its first line."""
    try:
        return b"\n" + Path(folder, "RECORD").read_bytes().replace(b"\r\n", b"\n")
    except FileNotFoundError:
        return b""


def module_digest(module: str) -> str:
    """Digest of a module's file, where no distribution vouches for it."""
    file = getattr(sys.modules.get(module.partition(".")[0]), "__file__", None)
    if not isinstance(file, str) or not os.path.isfile(file):
        return "not found"
    return digest_bytes(Path(file).read_bytes())[:32]
