"""Installed distributions that code depends on, each with its version and record digest."""

from __future__ import annotations

import functools
import os
import re
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from clewline.flow.code.origin import CLEWLINE
from clewline.store.digest import digest_bytes

COMPUTING = ("numpy", "polars", "narwhals", "scikit-learn")
"""The libraries that clewline's own steps compute with. Its server and CLI change no result."""

_EXTRA = re.compile(rb"\bextra\s*==")
_REQUIRES = re.compile(rb"^Requires-Dist:\s*([A-Za-z0-9._-]+)")


@dataclass(frozen=True, slots=True)
class Distribution:
    """An installed distribution, by its metadata folder."""

    name: str  # normalised
    version: str
    folder: str


def versions(modules: Iterable[str]) -> dict[str, str]:
    """
    Return the distributions that contain some modules, and everything that these require.

    Args:
        modules: Import names, such as `sklearn.ensemble`.

    Returns:
        Normalised name → version and record digest, sorted. A module of no known
        distribution is listed under its own name with the digest of its file, so that
        nothing is left out.
    """
    found: dict[str, str] = {}
    for module in modules:
        top = module.partition(".")[0]
        name = "clewline" if top == "clewline" else distribution_of(module)
        if name is not None:
            found |= _closure(name)
            continue
        file = str(getattr(sys.modules.get(top), "__file__", None))
        is_file = os.path.isfile(file)
        digest = digest_bytes(Path(file).read_bytes())[:32] if is_file else "not found"
        found["module " + module] = digest
    return dict(sorted(found.items()))


@functools.lru_cache(maxsize=512)
def _closure(name: str) -> dict[str, str]:
    """Return a distribution and all that it requires and that is installed, without extras."""
    found: dict[str, str] = {}
    waiting = [name]
    while waiting:
        each = installed().get(waiting.pop())
        if each is None or each.name in found:
            continue
        if each.name == "clewline":
            found[each.name] = _clewline_identity()
            waiting += COMPUTING
        else:
            found[each.name] = f"{each.version} {_record_digest(each.folder)}"
            waiting += _requirements(each.folder)
    return found or {name: _clewline_identity()}


@functools.lru_cache(maxsize=1)
def _clewline_identity() -> str:
    """Return clewline's version and the digest of its own source, which may be a checkout."""
    from clewline.version import __version__

    listed = b"".join(
        f"{path.relative_to(CLEWLINE)} {digest_bytes(path.read_bytes())}\n".encode()
        for path in sorted(Path(CLEWLINE).rglob("*.py"))
    )
    return f"{__version__} {digest_bytes(listed)[:32]}"


def distributions() -> dict[str, Distribution]:
    """
    Return every installed distribution by normalised name; the first on the path wins.

    Only the names of the metadata folders are read, which is a hundred times quicker
    than parsing their metadata.
    """
    found: dict[str, Distribution] = {}
    for folder in dict.fromkeys(sys.path):
        try:
            entries = sorted(os.listdir(folder or "."))
        except OSError:
            continue  # sys.path may name zip files and folders that do not exist
        for entry in entries:
            stem, suffix = os.path.splitext(entry)
            name, dash, version = stem.rpartition("-")
            if suffix == ".dist-info" and dash:
                each = Distribution(normalised(name), version, os.path.join(folder, entry))
                found.setdefault(each.name, each)
    return found


@functools.lru_cache(maxsize=1)
def installed() -> dict[str, Distribution]:
    """Return `distributions()` as of the first call in this process."""
    return distributions()


def normalised(name: str) -> str:
    """
    Return a distribution's name in its normal form.

    >>> normalised("Scikit_Learn")
    'scikit-learn'
    """
    return name.lower().replace("_", "-").replace(".", "-")


@functools.lru_cache(maxsize=4096)
def _record_digest(folder: str) -> str:
    """Return the digest of a distribution's RECORD, or of its METADATA if it has no RECORD."""
    for name in ("RECORD", "METADATA"):
        try:
            return digest_bytes(Path(folder, name).read_bytes())[:32]
        except FileNotFoundError:
            continue
    return "no record"


@functools.lru_cache(maxsize=1024)
def _requirements(folder: str) -> tuple[str, ...]:
    """Return the normalised names that a distribution requires whatever its extras."""
    try:
        head = Path(folder, "METADATA").read_bytes().partition(b"\n\n")[0]
    except FileNotFoundError:
        return ()
    matches = (_REQUIRES.match(line) for line in head.splitlines() if not _EXTRA.search(line))
    return tuple(normalised(match[1].decode()) for match in matches if match)


@functools.lru_cache(maxsize=4096)
def distribution_of(module: str) -> str | None:
    """
    Return the distribution that a module belongs to, or None when no record names it.

    Only the records decide, so it does not matter whether the module has been
    imported. The longest path is tried first, because several distributions may
    share a namespace package.
    """
    likely = installed().get(normalised(module.partition(".")[0]))
    candidates = [*([likely] if likely else []), *installed().values()]
    path = module.replace(".", "/").encode()
    while path:
        for each in candidates:
            if any(b"\n" + path + end in _record(each.folder) for end in (b"/", b".")):
                return each.name
        path = path.rpartition(b"/")[0]
    return None


@functools.lru_cache(maxsize=1024)
def _record(folder: str) -> bytes:
    """Return the bytes of a RECORD, with a line end before its first line."""
    try:
        return b"\n" + Path(folder, "RECORD").read_bytes().replace(b"\r\n", b"\n")
    except FileNotFoundError:
        return b""
