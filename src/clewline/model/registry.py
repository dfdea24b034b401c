"""Model versions by name and number: registered once, never changed, reached by alias."""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from clewline.errors import CheckFailed, IntegrityError, NotFound
from clewline.formatting import format_list
from clewline.model import registry_chain
from clewline.model.package import (
    Package,
    PackageDraft,
    PackageFile,
    PackageMetadata,
    open_package,
)
from clewline.model.seal import Sealer, require_public_key
from clewline.project import Project
from clewline.store.digest import Digest
from clewline.store.disk import disk_errors
from clewline.store.records import Alias, Edge, ModelVersion
from clewline.store.ref import find_version, require_model_name

if TYPE_CHECKING:
    from clewline.model.runtime.outputs import Predictor
    from clewline.store.store import Store

Versions = list[ModelVersion]
Aliases = list[Alias]

UNREGISTERED = "unregistered-"
"""Begins the name of a package that was moved aside because no record names it."""


class Registry:
    """
    The model versions of a project.

    `promote.promote` moves their aliases, `verify.verify` checks them. Safe to use from any
    thread, and by any number of processes at once: numbers are given and aliases moved in
    transactions of the catalog.
    """

    def __init__(self, project: Project, store: Store) -> None:
        self.project = project
        self.store = store

    def list(self, name: str | None = None, *, limit: int | None = 50, offset: int = 0) -> Versions:
        """
        List versions, newest first; of one model if `name` is given.

        Raises:
            NotFound: There is no such model.
        """
        catalog = self.store.catalog
        if name is None:
            return catalog.find(ModelVersion, order="-created", limit=limit, offset=offset)
        found = catalog.find(ModelVersion, order="-number", limit=limit, offset=offset, name=name)
        if not found and not offset:
            find_version(catalog, name)  # raises
        return found

    def aliases(self, name: str | None = None) -> Aliases:
        """List aliases, of one model if `name` is given."""
        where: dict[str, Any] = {} if name is None else {"name": name}
        return self.store.catalog.find(Alias, limit=None, **where)

    def get(self, ref: str) -> ModelVersion:
        """
        Return a version: `income@3`, `income@champion`, or `income` for the newest.

        Raises:
            UsageError: The text is not a reference to a version.
            NotFound: There is no such model, version or alias; names the nearest.
        """
        return find_version(self.store.catalog, ref)

    def folder(self, version: ModelVersion) -> Path:
        """Return the folder that holds the package of a version."""
        return self.project.packages / version.name / str(version.number)

    def open(self, ref: str) -> Package:
        """
        Read the package of a version and check every byte.

        Raises:
            NotFound: There is no such version, or no package.
            IntegrityError: The package is not what was registered.
        """
        return self.read(self.get(ref))

    def read(self, version: ModelVersion) -> Package:
        """Read and check the package of a version that was looked up; raises as `open`."""
        package = open_package(self.folder(version), self.public_key, version.package, version.ref)
        if differs := _differences(version, package):
            raise IntegrityError(
                f"The catalog and the package of {version.ref} differ in {format_list(differs)}.",
                "Restore `catalog.db` from a backup.",
            )
        return package

    def add(
        self,
        files: Mapping[str, bytes],
        metadata: PackageMetadata,
        logical: Mapping[str, Digest] | None = None,
    ) -> ModelVersion:
        """
        Seal files as the next version of `metadata.name`, unless a version has this content.

        The package and its records are added together. If the process dies in between, the
        next registration removes what it left.

        Args:
            files: As for `PackageDraft`.
            metadata: Of the manifest; its number is replaced.
            logical: As for `PackageDraft`.

        Returns:
            The new version, or the one that has the same model, signature and profile in an
            undamaged package.

        Raises:
            UsageError: The name cannot name a model.
            NotFound: The project's private key is missing.
            InvalidConfig: The private key belongs to another project.
        """
        require_model_name(metadata.name)
        name, sealer = metadata.name, self.sealer()
        with (
            PackageDraft(self.project.store_root / "tmp", files, logical) as draft,
            self.store.catalog.transaction() as transaction,
        ):
            same = transaction.find(ModelVersion, name=name, content=draft.content, limit=None)
            for version in same:
                with suppress(CheckFailed, NotFound):  # `models verify` names a damaged one
                    self.read(version)
                    return version
            last = transaction.find(ModelVersion, name=name, order="-number", limit=1)
            number = last[0].number + 1 if last else 1
            metadata = msgspec.structs.replace(metadata, number=number, created=time.time())
            folder = self.project.packages / name / str(number)
            if folder.exists():
                # Nobody else is registering. So a killed process left what is there, or the
                # catalog is an old backup: it is kept elsewhere.
                aside = f"{UNREGISTERED}{name}-{number}-{secrets.token_hex(4)}"
                with disk_errors(folder):
                    folder.rename(self.project.store_root / "tmp" / aside)
            version = ModelVersion(
                package=draft.publish(folder, metadata, sealer),
                **_facts(metadata, draft.content, draft.files.values()),
            )
            facts = {key: getattr(version, key) for key in ("package", "content", "run")}
            body = {"model": version.ref, **facts}
            kind = registry_chain.REGISTERED
            registry_chain.append_link(transaction, kind, body, sealer, version)
            transaction.add(version)
            if version.step_run is not None:
                step, model = f"step:{version.step_run}", f"model:{version.ref}"
                transaction.add(Edge(source=step, target=model, role="registered"))
            return version

    @property
    def public_key(self) -> str:
        """
        The key that seals are checked with.

        Raises:
            InvalidConfig: `clewline.toml` has none.
        """
        return require_public_key(self.project)

    def sealer(self) -> Sealer:
        """
        Read the private key, and check that it belongs to this project.

        Raises:
            NotFound: It is missing.
            InvalidConfig: It belongs to another project.
        """
        return Sealer.of(self.project)


def _facts(
    metadata: PackageMetadata, content: Digest, files: Iterable[PackageFile]
) -> dict[str, Any]:
    """Return the fields of a version's record that its package determines."""
    metrics = (metadata.report or {}).get("metrics", {})
    same = ("name", "number", "run", "step_run", "task", "runtime", "equality", "created")
    return {
        **{key: getattr(metadata, key) for key in same},
        "content": content,
        "metrics": {key: interval["value"] for key, interval in metrics.items()},
        "size_bytes": sum(file.size_bytes for file in files),
    }


def _differences(version: ModelVersion, package: Package) -> list[str]:
    """List the fields of a version's record that differ from its package."""
    manifest = package.manifest
    facts = _facts(manifest, manifest.content, manifest.files.values())
    # As JSON, which the manifest is: NaN is null there.
    as_json = partial(msgspec.json.encode, order="sorted")
    return [key for key in facts if as_json(facts[key]) != as_json(getattr(version, key))]


def load_predictor(package: Package) -> Predictor:
    """Load the model of a package, from the bytes that were checked."""
    from clewline.model_families import family_named

    family = family_named(package.manifest.runtime)
    found: Predictor = family.load(package.files, package.signature)
    return found
