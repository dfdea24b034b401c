"""Which files of a project are its own: listed by Git where there is Git, else by walking."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from clewline.errors import Fault

FOREIGN_FOLDERS = frozenset(
    {
        ".git", ".hg", ".svn", ".clewline", ".venv", "venv", "site-packages", "node_modules",
        "__pycache__", ".mypy_cache", ".ruff_cache", ".pytest_cache", ".hypothesis", ".tox",
        ".nox", ".ipynb_checkpoints",
    }
)  # fmt: skip
"""Folders of tools, caches and other people's code; never part of a project."""


class Listing(NamedTuple):
    """The first-party files of a folder, as paths relative to it with `/`, sorted."""

    paths: list[str]  # a Git submodule is one path, that of its folder
    commit: str | None
    changed: list[str]  # that differ from the commit: edited, added, deleted, untracked


def listing(root: Path) -> Listing:
    """
    List the first-party files under `root`.

    With Git: tracked and untracked files that are not ignored, and what differs
    from the commit. Without: all but the folders of tools and caches; the commit
    is None and everything counts as changed.
    """
    if not has_git(root):
        paths = sorted(walk(root))
        return Listing(paths, None, paths)
    tracked = git(root, "ls-files", "-z", "--cached", "--others", "--exclude-standard")
    status = git(root, "status", "--porcelain=v1", "-z", "--untracked-files=all", "--no-renames",
                 "--", ".")  # fmt: skip
    where = git(root, "rev-parse", "--show-prefix", "HEAD")
    paths = sorted({path.rstrip("/") for path in names(finish(tracked)) if is_own(path)})
    prefix, commit = prefix_and_commit(where)
    changed = [entry[3:].removeprefix(prefix) for entry in names(finish(status))]
    return Listing(paths, commit, sorted(path for path in changed if is_own(path)))


def has_git(root: Path) -> bool:
    """Whether `root` lies in a Git work tree and Git can be run."""
    if not any((folder / ".git").exists() for folder in (root, *root.parents)):
        return False
    try:
        inside = git(root, "rev-parse", "--is-inside-work-tree")
    except FileNotFoundError:
        return False
    return inside.communicate()[0].strip() == b"true"


def git(root: Path, *arguments: str) -> subprocess.Popen[bytes]:
    """Start Git; the listing's three commands run side by side."""
    return subprocess.Popen(
        ["git", "--no-optional-locks", *arguments],
        cwd=root,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=os.environ | {"LC_ALL": "C"},
    )


def finish(process: subprocess.Popen[bytes]) -> bytes:
    """The output of a Git command that must succeed."""
    out, err = process.communicate()
    if process.returncode != 0:
        raise Fault(
            f"Git could not list the project: {err.decode(errors='replace').strip()}",
            "Mend the repository (`git status` shows what is wrong), then run again.",
        )
    return out


def prefix_and_commit(process: subprocess.Popen[bytes]) -> tuple[str, str | None]:
    """The folder inside the repository, `` or `sub/`, and the commit; None before the first one."""
    lines = process.communicate()[0].split(b"\n")
    commit = lines[1].decode() if process.returncode == 0 and len(lines) > 1 else None
    return os.fsdecode(lines[0]), commit


def names(output: bytes) -> list[str]:
    """Entries of a `-z` output."""
    return [os.fsdecode(part) for part in output.split(b"\0") if part]


def is_own(path: str) -> bool:
    """Whether no part of a relative path, a link at its end included, is of tools or caches."""
    return FOREIGN_FOLDERS.isdisjoint(path.split("/"))


def walk(root: Path) -> Iterator[str]:
    """Paths of all first-party files under a folder, relative to it."""
    for folder, subfolders, files in os.walk(root):
        subfolders[:] = [
            name
            for name in subfolders
            if name not in FOREIGN_FOLDERS
            and not os.path.exists(os.path.join(folder, name, "pyvenv.cfg"))
        ]
        links = [name for name in subfolders if os.path.islink(os.path.join(folder, name))]
        relative = os.path.relpath(folder, root).replace(os.sep, "/")
        start = "" if relative == "." else relative + "/"
        yield from (start + name for name in [*files, *links])
