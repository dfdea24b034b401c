"""
Revisions: what an endpoint's file resolves to, pinned under a number that never changes.

`apply` resolves the alias, pins the package and the accepted bounds, and moves
the endpoint to the new revision in one transaction. A server that is up notices.
"""

from __future__ import annotations

import difflib
import time
from dataclasses import dataclass
from typing import Any, Protocol

from fairlead.errors import NotFound
from fairlead.model.names import MOST_DIGITS
from fairlead.project import Project
from fairlead.serve.spec import EndpointSpec
from fairlead.signature import accepted as accepted_bounds
from fairlead.store.records import Alias, Edge, LiveRevision, ModelVersion, Revision
from fairlead.store.rows import R
from fairlead.store.store import Store

NODE = "model"
"""The one node of an endpoint: its kind and its name in the path of a prediction."""


class Records(Protocol):
    """What reads records: a catalog, its reader, or a transaction."""

    def get(self, kind: type[R], *key: Any) -> R | None: ...

    def find(self, kind: type[R], **how: Any) -> list[R]: ...


@dataclass(frozen=True, slots=True)
class Applied:
    """What `apply` came to: the live revision, and whether it is a new one."""

    revision: Revision
    is_new: bool


def ref(revision: Revision) -> str:
    """Write a revision's name: `income#12`."""
    return f"{revision.endpoint}#{revision.number}"


def durability(revision: Revision) -> Any:
    """Tell when a frame of this revision counts as logged: "process" or "fsync"."""
    return (revision.spec.get("log") or {}).get("durability", "process")


def apply(project: Project, store: Store, spec: EndpointSpec) -> Applied:
    """
    Make what the file says the live revision; what is live already makes no new one.

    Raises:
        NotFound: There is no such model, version or alias; names the nearest.
        InvalidConfig: What was accepted for the model does not fit.
    """
    with store.catalog.transaction() as transaction:
        draft = resolve(project, transaction, spec)
        live = live_revision(transaction, spec.endpoint)
        if live is not None and content(live) == content(draft):
            return Applied(live, is_new=False)
        transaction.add(draft, Edge(source=_source(draft), target=_target(draft), role="serves"))
        _go_live(transaction, draft)
    return Applied(draft, is_new=True)


def rollback(store: Store, endpoint: str, number: int | None = None) -> Revision:
    """
    Make an earlier revision the live one: `number`, or the one before the live one.

    Raises:
        NotFound: There is no such endpoint or revision, or none before.
    """
    with store.catalog.transaction() as transaction:
        live = require_live(transaction, endpoint)
        wanted = live.number - 1 if number is None else number
        earlier = transaction.get(Revision, endpoint, wanted)
        if earlier is None:
            raise NotFound(
                f"There is no revision {endpoint}#{wanted}; {ref(live)} is live.",
                f"`fairlead endpoints show {endpoint}` lists its revisions.",
            )
        _go_live(transaction, earlier)
    return earlier


def resolve(project: Project, records: Records, spec: EndpointSpec) -> Revision:
    """Resolve a file against the records, to the revision that applying it would make."""
    version = _version(records, spec)
    model = f"{version.name}@{version.number}"
    accepted = accepted_bounds.read(project.signatures / f"{version.name}.yaml")
    newest = records.find(Revision, order="-number", limit=1, endpoint=spec.endpoint)
    return Revision(
        endpoint=spec.endpoint,
        number=newest[0].number + 1 if newest else 1,
        spec=spec.source,
        models={NODE: model},
        packages={model: version.package},
        accepted=accepted.builtins(),
        created=time.time(),
    )


def live_revision(records: Records, endpoint: str) -> Revision | None:
    """Get the revision that an endpoint answers with; None when it has none."""
    live = records.get(LiveRevision, endpoint)
    return None if live is None else records.get(Revision, endpoint, live.number)


def require_live(records: Records, endpoint: str) -> Revision:
    """
    Get the revision that an endpoint answers with.

    Raises:
        NotFound: The endpoint has never been applied; names the nearest.
    """
    live = live_revision(records, endpoint)
    if live is None:
        known = [record.endpoint for record in records.find(LiveRevision, limit=None)]
        near = difflib.get_close_matches(endpoint, known, n=1)
        hint = f"Did you mean {near[0]}?" if near else "`fairlead endpoints apply` makes it."
        raise NotFound(f"There is no endpoint {endpoint!r}.", hint)
    return live


def _version(records: Records, spec: EndpointSpec) -> ModelVersion:
    name, _, which = spec.model.partition("@")
    if which.isascii() and which.isdigit() and len(which) < MOST_DIGITS:
        number: int | None = int(which)
    else:
        alias = records.get(Alias, name, which)
        number = None if alias is None else alias.number
    version = None if number is None else records.get(ModelVersion, name, number)
    if version is None:
        raise _no_version(records, name, which)
    return version


def _no_version(records: Records, name: str, which: str) -> NotFound:
    versions = records.find(ModelVersion, order="-number", limit=1, name=name)
    if not versions:
        names = {version.name for version in records.find(ModelVersion, limit=1000)}
        near = difflib.get_close_matches(name, names, n=1)
        hint = f"Did you mean {near[0]}@{which}?" if near else "Register it with fl.register."
        return NotFound(f"There is no model {name!r}.", hint)
    newest = f"{name}@{versions[0].number}"
    if which.isdigit():
        return NotFound(f"There is no version {name}@{which}.", f"The newest is {newest}.")
    aliases = [alias.alias for alias in records.find(Alias, limit=None, name=name)]
    held = f"{name} has {', '.join(sorted(aliases))}. " if aliases else ""
    return NotFound(
        f"There is no alias {name}@{which}.",
        f"{held}`fairlead models promote {newest} {which}` makes it.",
    )


def content(revision: Revision) -> tuple[Any, ...]:
    """Give what makes a revision what it is; two with the same content answer alike."""
    return (revision.spec, revision.models, revision.packages, revision.accepted)


def _go_live(transaction: Any, revision: Revision) -> None:
    transaction.replace(
        LiveRevision(endpoint=revision.endpoint, number=revision.number, moved=time.time())
    )


def _source(revision: Revision) -> str:
    return f"model:{revision.models[NODE]}"


def _target(revision: Revision) -> str:
    return f"revision:{ref(revision)}"
