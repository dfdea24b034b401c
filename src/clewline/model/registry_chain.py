"""
The signed chain: every change of a sealed record (`Record.SEALED`), in order.

A link holds the digests of the records that it is about, and of closed files of the log. It is
added in the transaction that changes the records. Each link holds the digest of the one before
it and is signed with the project's key. So a link that was changed, removed, reordered or
inserted is found. If only the last links are removed, the chain stays whole; the records that
they were about then have no link, and the head that `promote` wrote into Git is missing from
the chain. `sealed_records` compares records with the chain.

`promote` writes the head as a commit without files on `refs/clewline/PROJECT`; it touches
neither the branch nor the work tree. Once pushed, the user of this machine cannot rewrite it.
"""

from __future__ import annotations

import base64
import binascii
import getpass
import os
import platform
import re
import subprocess
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from clewline.errors import Fault, IntegrityError
from clewline.model.seal import Sealer, verify_signature
from clewline.project import FILE, Project
from clewline.store.digest import Digest, digest_bytes
from clewline.store.records import ChainEntry, Record
from clewline.store.ref import RecordSource
from clewline.store.rows import describe, field_hints, sealed_digest

if TYPE_CHECKING:
    from clewline.store.catalog import Transaction

START = digest_bytes(b"clewline registry chain 1\n")
"""Takes the place of the previous digest in the first link."""

LINK = b"clewline registry link 1\n"
REGISTERED, PROMOTED = "registered", "promoted"
APPLIED, ROLLED_BACK = "applied", "rolled_back"
TOKEN_ADDED, TOKEN_REVOKED = "token_added", "token_revoked"
LOG_CLOSED, LOG_REMOVED, SEALED = "log_closed", "log_removed", "sealed"
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


def last_link(records: RecordSource) -> ChainEntry | None:
    """Return the last link; None if there is none yet."""
    return next(iter(records.find(ChainEntry, order="-seq", limit=1)), None)


def append_link(
    transaction: Transaction,
    kind: str,
    body: dict[str, Any],
    sealer: Sealer,
    *records: Record,
    files: Mapping[str, Digest] | None = None,
) -> ChainEntry:
    """
    Add a link to the chain.

    Args:
        transaction: The one that changes the records.
        kind: What happened: `REGISTERED`, `PROMOTED`, …
        body: The facts.
        sealer: Signs the link.
        records: What the catalog holds of them at the end of the transaction.
        files: Digests of files of the store, by their path in it.

    Raises:
        IntegrityError: The last link was changed, or somebody without the key added it. A link
            after it would vouch for it.
    """
    last = last_link(transaction)
    if last is not None and (problem := link_problem(last, sealer.public)):
        raise IntegrityError(
            f"Link {last.seq}, the last of the signed chain, {problem}, so nothing can be sealed "
            "after it.",
            "Restore `catalog.db` from a backup. `clewline doctor` says what differs.",
        )
    body = {
        **body,
        "records": {describe(each): sealed_digest(each) for each in records},
        "fields": {describe(each): field_hints(each) for each in records},
        "files": dict(files or {}),
    }
    link = next_link(last, kind, body, sealer)
    transaction.add(link)
    return link


def stated(person: str | None, reason: str | None) -> dict[str, str]:
    """
    Return what the body of a link says of a person and a reason, where they are known.

    The user of the process stands in each link besides (`by`); a person is who asked that process,
    such as somebody who is logged in to the console.
    """
    given = {"person": person, "reason": reason}
    return {name: text for name, text in given.items() if text}


def next_link(
    last: ChainEntry | None, kind: str, body: dict[str, Any], sealer: Sealer
) -> ChainEntry:
    """Create the link after `last`. Add it in the transaction that `last` was read in."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a container's user may have no name
        user = str(os.getuid())
    seq, previous = (last.seq + 1, last.digest) if last else (1, START)
    body, created = {**body, "by": f"{user}@{platform.node()}"}, time.time()
    digest = _digest(seq, previous, kind, body, created)
    signature = base64.b64encode(sealer.sign(LINK + digest.encode())).decode()
    return ChainEntry(
        seq=seq,
        previous=previous,
        digest=digest,
        kind=kind,
        body=body,
        created=created,
        signature=signature,
    )


def chain_problems(links: Sequence[ChainEntry], public_key: str) -> list[str]:
    """
    Check a chain, and describe each fault.

    Args:
        links: All links, by `seq`.
        public_key: The project's.
    """
    found: list[str] = []
    previous, seq = START, 0
    for link in links:
        if link.seq != seq + 1:
            found.append(f"link {seq + 1} is missing: link {link.seq} follows {seq}")
        elif link.previous != previous:
            found.append(f"link {link.seq} does not continue the one before it")
        if reason := link_problem(link, public_key):
            found.append(f"link {link.seq} ({link.kind}) {reason}")
        previous, seq = link.digest, link.seq
    return found


def has_its_digest(link: ChainEntry) -> bool:
    """Return whether the content of a link matches its digest."""
    return link.digest == _digest(link.seq, link.previous, link.kind, link.body, link.created)


def link_problem(link: ChainEntry, public_key: str) -> str | None:
    """Say what is wrong with a link by itself; None if it is sound."""
    if not has_its_digest(link):
        return "was changed: its content does not match its digest"
    try:
        signature = base64.b64decode(link.signature, validate=True)
    except binascii.Error:
        return "has no readable signature"
    if not verify_signature(public_key, LINK + link.digest.encode(), signature):
        return "was not signed with the project's key"
    return None


def _digest(seq: int, previous: Digest, kind: str, body: dict[str, Any], created: float) -> Digest:
    content = [seq, previous, kind, body, created]
    return digest_bytes(LINK + msgspec.json.encode(content, order="sorted"))


def _anchor_ref(project: Project) -> str:
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
    ref = _anchor_ref(project)
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
    log = _try_git(project, "log", "--format=%H %s", f"--glob={_anchor_ref(project)}*", "--")
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
