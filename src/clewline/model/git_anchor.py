"""
Heads of the registry's chain, kept in the project's Git repository.

`promote` makes a commit without files on `refs/clewline/PROJECT`; it touches neither the branch
nor the work tree. Once pushed, the user of this machine cannot rewrite it.
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
_AUTHOR = {
    "GIT_AUTHOR_NAME": "clewline",
    "GIT_AUTHOR_EMAIL": "clewline@localhost",
    "GIT_COMMITTER_NAME": "clewline",
    "GIT_COMMITTER_EMAIL": "clewline@localhost",
}
"""Not the user's: the chain says who promoted, and a commit must not fail for lack of a name."""


class GitAnchor(msgspec.Struct, frozen=True):
    """A head of the chain, as a commit holds it."""

    commit: str
    seq: int
    digest: Digest


def anchor_ref(project: Project) -> str:
    """Return the Git ref of a project; several projects may share a repository."""
    plain = re.fullmatch(r"[0-9A-Za-z_-]{1,64}", project.id)
    return f"refs/clewline/{project.id if plain else digest_bytes(project.id.encode())[:16]}"


def write_anchor(project: Project, head: ChainEntry) -> str | None:
    """
    Write a head into Git.

    Returns:
        The ref; None if the project is not in a Git repository, or ignored by it.

    Raises:
        Fault: Git refused.
    """
    if not _is_tracked(project):
        return None
    ref = anchor_ref(project)
    for _ in range(5):  # another promotion may move the ref in between
        parent = _try_git(project, "rev-parse", "--verify", "--quiet", ref)
        tree = _git(project, "hash-object", "-t", "tree", "-w", "--stdin")
        message = ("-m", f"registry {head.seq} {head.digest}")
        commit = _git(project, "commit-tree", tree, *(("-p", parent) if parent else ()), *message)
        if _try_git(project, "update-ref", ref, commit, parent or "0" * len(commit)) is not None:
            return ref
    raise Fault(f"Git did not move {ref}.", f"Try `git update-ref {ref} {commit}`.")


def read_anchors(project: Project) -> list[GitAnchor]:
    """
    Read every head under `refs/clewline/PROJECT`, newest first.

    Heads that were fetched to a ref below that name are read too.
    """
    if not _is_tracked(project):
        return []
    log = _try_git(project, "log", "--format=%H %s", f"--glob={anchor_ref(project)}*", "--")
    pairs = [line.partition(" ") for line in (log or "").splitlines()]
    return [
        GitAnchor(commit, int(found[1]), Digest(found[2]))
        for commit, _, subject in pairs
        if (found := SUBJECT.match(subject))
    ]


def anchor_problems(anchors: list[GitAnchor], links: list[ChainEntry]) -> list[str]:
    """Describe each head in Git that the chain does not hold: its history was rewritten."""
    digests = {link.seq: link.digest for link in links}
    return [
        f"commit {anchor.commit[:12]} in Git holds head {anchor.seq}:{anchor.digest[:12]}, "
        f"and link {anchor.seq} of the chain is {digests.get(anchor.seq, 'missing')[:12]}"
        for anchor in anchors
        if digests.get(anchor.seq) != anchor.digest
    ]


def _is_tracked(project: Project) -> bool:
    """Return whether Git keeps the folder, unlike a demo that another project ignores."""
    if _try_git(project, "rev-parse", "--git-dir") is None:
        return False
    return _try_git(project, "check-ignore", "--quiet", FILE) is None


def _try_git(project: Project, *words: str) -> str | None:
    """Run Git; None if it fails or is not installed."""
    try:
        return _git(project, *words)
    except (Fault, FileNotFoundError):
        return None


def _git(project: Project, *words: str) -> str:
    done = subprocess.run(
        ["git", *words],
        cwd=project.root,
        env=os.environ | _AUTHOR,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        reason = done.stderr.strip()
        raise Fault(f"git {' '.join(words)} failed: {reason}.", "Repair the Git repository.")
    return done.stdout.strip()
