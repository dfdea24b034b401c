"""Verify the registry: every byte of the packages, and every link of the chain."""

from __future__ import annotations

import msgspec

from clewline.errors import CheckFailed, NotFound
from clewline.model import registry_chain
from clewline.model.registry import Registry
from clewline.model.sealed_records import NotSealed, SealedRecords
from clewline.store.records import ChainEntry, ModelVersion


class VersionCheck(msgspec.Struct, frozen=True):
    """A version whose package was read."""

    model: str
    problem: str | None  # None if it is sound


class RecordProblem(msgspec.Struct, frozen=True):
    """A sealed record that is not in order."""

    message: str
    fix: str
    unsealed: bool  # no link of the chain names it; otherwise it was changed or removed


class Verification(msgspec.Struct, frozen=True, kw_only=True):
    """The packages, and how chain, catalog and Git compare."""

    versions: list[VersionCheck]
    links: int
    anchors: int  # heads of the chain that Git holds
    problems: list[str]  # of the chain
    records: list[RecordProblem] = []

    @property
    def sound(self) -> bool:
        """Whether nothing is wrong."""
        broken = any(check.problem for check in self.versions)
        return not (broken or self.problems or self.records)


def verify(registry: Registry, ref: str | None = None, *, packages: bool = True) -> Verification:
    """
    Read every byte of the packages, and compare chain, catalog and Git.

    Args:
        registry: What to check.
        ref: One version; None for all. The whole chain is checked either way.
        packages: Whether to read packages.

    Raises:
        NotFound: There is no such version.
        InvalidConfig: The project has no public key.
    """
    catalog = registry.store.catalog
    # Git is read before the chain, which is never behind it.
    anchors = registry_chain.read_anchors(registry.project)
    while True:  # until all three are of one moment; writers are not locked out
        links = catalog.find(ChainEntry, order="seq", limit=None)
        everything = catalog.find(ModelVersion, limit=None, unreadable=[])
        differences = SealedRecords(registry.project, catalog).problems()
        if registry_chain.last_link(catalog) == (links[-1] if links else None):
            break
    checks: list[VersionCheck] = []
    for version in ([registry.get(ref)] if ref else everything) if packages else []:
        problem = None
        try:
            registry.read(version)
        except (CheckFailed, NotFound) as error:
            problem = error.message
        checks.append(VersionCheck(version.ref, problem))
    return Verification(
        versions=checks,
        links=len(links),
        anchors=len(anchors),
        problems=[
            *registry_chain.chain_problems(links, registry.public_key),
            *registry_chain.anchor_problems(anchors, links),
        ],
        records=[
            RecordProblem(each.message, each.fix or "", isinstance(each, NotSealed))
            for each in differences
        ],
    )
