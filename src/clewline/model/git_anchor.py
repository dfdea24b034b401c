"""
Heads of the registry's chain, kept in the project's Git.

`promote` makes a commit of its own, with no files, on `refs/clewline/PROJECT`:
neither the branch nor the work tree is touched. Pushed, it lies where the user
of this machine cannot rewrite it.
"""

from __future__ import annotations

import os
import re
import subprocess

import msgspec

from clewline.errors import Fault
from clewline.project import FILE, Project
from clewline.store.digest import Digest, digest_bytes
from clewline.store.records import ChainEntry

SUBJECT = re.compile(r"^registry (\d+) ([0-9a-f]{64})$")


class GitAnchor(msgspec.Struct, frozen=True):
    """A head of the chain, as a commit holds it."""

    commit: str
    seq: int
    digest: Digest


def anchor_ref(project: Project) -> str:
    """Name the Git ref of a project; several projects may share a repository."""
    plain = re.fullmatch(r"[0-9A-Za-z_-]{1,64}", project.id)
    return f"refs/clewline/{project.id if plain else digest_bytes(project.id.encode())[:16]}"


def write_anchor(project: Project, head: ChainEntry) -> str | None:
    """
    Write a head into Git.

    Returns:
        The ref; None when the project is not in a Git repository, or ignored by it.

    Raises:
        Fault: Git refused.
    """
    if not _is_tracked(project):
        return None
    name = anchor_ref(project)
    for _ in range(5):  # another promotion may move the ref between our look and our update
        parent = _try(project, "rev-parse", "--verify", "--quiet", name)
        commit = _commit(project, parent, head)
        if _try(project, "update-ref", name, commit, parent or "0" * len(commit)) is not None:
            return name
    raise Fault(f"Git would not move {name}.", f"Try `git update-ref {name} {commit}`.")


def read_anchors(project: Project) -> list[GitAnchor]:
    """
    Read every head under `refs/clewline/PROJECT`, newest first.

    Heads that were fetched to a ref below that name are read too.
    """
    if not _is_tracked(project):
        return []
    log = _try(project, "log", "--format=%H %s", f"--glob={anchor_ref(project)}*", "--")
    pairs = [line.partition(" ") for line in (log or "").splitlines()]
    matched = [(commit, SUBJECT.match(subject)) for commit, _, subject in pairs]
    return [
        GitAnchor(commit, int(found.group(1)), Digest(found.group(2)))
        for commit, found in matched
        if found
    ]


def anchor_problems(anchors: list[GitAnchor], links: list[ChainEntry]) -> list[str]:
    """Say which heads in Git the chain does not hold: history was rewritten."""
    digests = {link.seq: link.digest for link in links}
    return [
        f"commit {anchor.commit[:12]} in Git holds head {anchor.seq}:{anchor.digest[:12]}, "
        f"and link {anchor.seq} of the chain {_have(digests.get(anchor.seq))}"
        for anchor in anchors
        if digests.get(anchor.seq) != anchor.digest
    ]


def _have(digest: Digest | None) -> str:
    return f"is {digest[:12]}" if digest else "is not there"


def _commit(project: Project, parent: str | None, head: ChainEntry) -> str:
    tree = _git(project, "hash-object", "-t", "tree", "-w", "--stdin")
    parents = ["-p", parent] if parent else []
    return _git(project, "commit-tree", tree, *parents, "-m", f"registry {head.seq} {head.digest}")


def _is_tracked(project: Project) -> bool:
    """A folder that its repository ignores, such as a demo inside another project, has no Git."""
    if _try(project, "rev-parse", "--git-dir") is None:
        return False
    return _try(project, "check-ignore", "--quiet", FILE) is None


def _try(project: Project, *words: str) -> str | None:
    """Ask Git; None when it says no or is not installed."""
    try:
        return _git(project, *words)
    except (Fault, FileNotFoundError):
        return None


def _git(project: Project, *words: str) -> str:
    made = subprocess.run(
        ["git", *words],
        cwd=project.root,
        env=os.environ | _AUTHOR,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    if made.returncode:
        raise Fault(f"git {' '.join(words)} failed: {made.stderr.strip()}.", "Mend the repository.")
    return made.stdout.strip()


_AUTHOR = {
    "GIT_AUTHOR_NAME": "clewline",
    "GIT_AUTHOR_EMAIL": "clewline@localhost",
    "GIT_COMMITTER_NAME": "clewline",
    "GIT_COMMITTER_EMAIL": "clewline@localhost",
}
"""Not the user's: the chain says who promoted, and no commit may fail for want of a name."""
