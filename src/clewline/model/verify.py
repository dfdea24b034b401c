"""Checking what is registered: every byte of the packages, every link of the chain."""

from __future__ import annotations

import msgspec

from clewline.errors import CheckFailed, NotFound
from clewline.model import git_anchor, registry_chain
from clewline.model.registry import Registry
from clewline.store.records import Alias, ChainEntry, ModelVersion


class VersionCheck(msgspec.Struct, frozen=True):
    """A version whose package was read: sound, or what is wrong with it."""

    model: str
    problem: str | None


class Verification(msgspec.Struct, frozen=True, kw_only=True):
    """Packages, chain, catalog and Git, held against each other."""

    versions: list[VersionCheck]
    links: int
    anchors: int  # heads of the chain that Git holds
    problems: list[str]  # of the chain

    @property
    def sound(self) -> bool:
        """Whether nothing is wrong."""
        return not self.problems and all(check.problem is None for check in self.versions)


def verify(registry: Registry, ref: str | None = None, *, packages: bool = True) -> Verification:
    """
    Read every byte of the packages, and hold chain, catalog and Git against each other.

    Args:
        registry: What is to be checked.
        ref: One version; all if None. The chain is checked as a whole either way.
        packages: Whether packages are read at all.
    """
    anchors = git_anchor.read_anchors(registry.project)  # before the chain, which is always ahead
    links, everything, aliases = _together(registry)
    wanted = [registry.get(ref)] if ref else everything
    return Verification(
        versions=[_check(registry, version) for version in wanted] if packages else [],
        links=len(links),
        anchors=len(anchors),
        problems=[
            *registry_chain.chain_problems(links, registry.public_key),
            *registry_chain.catalog_differences(links, everything, aliases),
            *git_anchor.anchor_problems(anchors, links),
        ],
    )


def _together(
    registry: Registry,
) -> tuple[list[ChainEntry], list[ModelVersion], list[Alias]]:
    """Read chain, versions and aliases as they are at one moment, without keeping writers out."""
    catalog = registry.store.catalog
    while True:
        links = catalog.find(ChainEntry, order="seq", limit=None)
        versions, aliases = catalog.find(ModelVersion, limit=None), registry.aliases()
        if registry_chain.last_link(catalog) == (links[-1] if links else None):
            return links, versions, aliases


def _check(registry: Registry, version: ModelVersion) -> VersionCheck:
    try:
        registry.read(version)
    except (CheckFailed, NotFound) as error:
        return VersionCheck(version.ref, error.message)
    return VersionCheck(version.ref, None)
