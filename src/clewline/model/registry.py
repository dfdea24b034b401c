"""Model versions by name and number: registered once, never changed, reached by alias."""

from __future__ import annotations

import secrets
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from clewline.errors import CheckFailed, IntegrityError, InvalidConfig, NotFound
from clewline.model import package, registry_chain
from clewline.model.package import Package, PackageDraft, PackageMetadata
from clewline.model.seal import Sealer
from clewline.project import Project
from clewline.store.digest import Digest
from clewline.store.disk import disk_errors
from clewline.store.records import Alias, Edge, ModelVersion
from clewline.store.ref import find_version, require_model_name

if TYPE_CHECKING:
    from clewline.model.runtime.outputs import Predictor
    from clewline.store.catalog import Transaction
    from clewline.store.store import Store

Versions = list[ModelVersion]
Aliases = list[Alias]

LEFT = "unregistered-"
"""How the name of a package begins that was moved aside, because nothing registered it."""


class Registry:
    """
    The model versions of a project.

    `promote.promote` moves their aliases, `verify.verify` checks them.

    May be used from any thread, and by any number of processes at once:
    numbers are given and aliases moved in transactions of the catalog.
    """

    def __init__(self, project: Project, store: Store) -> None:
        self.project = project
        self.store = store

    def list(self, name: str | None = None, *, limit: int | None = 50, offset: int = 0) -> Versions:
        """List versions, newest first; of one model if `name` is given."""
        if name is None:
            return self.store.catalog.find(
                ModelVersion, order="-created", limit=limit, offset=offset
            )
        found = self.store.catalog.find(
            ModelVersion, order="-number", limit=limit, offset=offset, name=name
        )
        if not found and not offset:
            find_version(self.store.catalog, name)  # raises
        return found

    def aliases(self, name: str | None = None) -> Aliases:
        """List aliases, of one model if `name` is given."""
        if name is None:
            return self.store.catalog.find(Alias, limit=None)
        return self.store.catalog.find(Alias, limit=None, name=name)

    def get(self, ref: str) -> ModelVersion:
        """
        Get a version: `income@3`, `income@champion`, or `income` for the newest.

        Raises:
            NotFound: There is no such model, version or alias; names the nearest.
        """
        return find_version(self.store.catalog, ref)

    def folder(self, version: ModelVersion) -> Path:
        """Where the package of a version lies."""
        return self.project.packages / version.name / str(version.number)

    def open(self, ref: str) -> Package:
        """
        Read the package of a version and check every byte.

        Raises:
            NotFound: There is no such version.
            IntegrityError: The package is not what was registered.
        """
        return self.read(self.get(ref))

    def read(self, version: ModelVersion) -> Package:
        """As `open`, for a version that was looked up."""
        opened = package.open_package(self.folder(version), self.public_key, version.package)
        if opened.manifest.ref != version.ref:
            raise IntegrityError(
                f"The package {self.folder(version)} is that of {opened.manifest.ref}.",
                "Restore it from a backup, or register the model again.",
            )
        return opened

    def load(self, ref: str) -> tuple[Package, Predictor]:
        """Read and check the package of a version, and load the model from those bytes."""
        opened = self.open(ref)
        return opened, load_predictor(opened)

    def add(
        self,
        files: Mapping[str, bytes],
        about: PackageMetadata,
        logical: Mapping[str, Digest] | None = None,
    ) -> ModelVersion:
        """
        Seal files as the next version of `about.name`, or find that they are one already.

        The package and its records come to be together. When a process dies in
        between, what it left is removed by the next registration.

        Args:
            files: As for `package.write`.
            about: The manifest; its number is replaced.
            logical: Digests of the content of files whose bytes differ each time.

        Returns:
            The new version, or the one with the same model, signature and profile;
            one whose package was damaged does not count.

        Raises:
            UsageError: The name cannot name a model.
            NotFound: The project's private key is not there.
        """
        require_model_name(about.name)
        sealer = self.sealer()
        draft = PackageDraft(self.project.store_root / "tmp", files, logical or {})
        try:
            with self.store.catalog.transaction() as transaction:
                same = self._same(transaction, about.name, draft.content)
                return same or self._publish(transaction, draft, about, sealer)
        finally:
            draft.discard()

    def _same(self, transaction: Transaction, name: str, content: Digest) -> ModelVersion | None:
        for version in transaction.find(ModelVersion, name=name, content=content, limit=None):
            try:
                self.read(version)
            except (CheckFailed, NotFound):
                continue  # `models verify` names it; this registration takes its place
            return version
        return None

    def _publish(
        self, transaction: Transaction, draft: PackageDraft, about: PackageMetadata, sealer: Sealer
    ) -> ModelVersion:
        last = transaction.find(ModelVersion, name=about.name, order="-number", limit=1)
        number = last[0].number + 1 if last else 1
        about = msgspec.structs.replace(about, number=number, created=time.time())
        folder = self.project.packages / about.name / str(number)
        self._clear(folder)
        version = _version(about, draft, draft.publish(folder, about, sealer))
        link = registry_chain.next_link(
            registry_chain.last_link(transaction),
            registry_chain.REGISTERED,
            _registered(version),
            sealer,
        )
        transaction.add(version, link, *_edges(version))
        return version

    def _clear(self, folder: Path) -> None:
        """
        Free the place of a number that the catalog has not given.

        Nobody else is registering, so what lies there was left by a killed
        process, or the catalog is an old backup: it is kept, elsewhere.
        """
        if folder.exists():
            name = f"{LEFT}{folder.parent.name}-{folder.name}-{secrets.token_hex(4)}"
            with disk_errors(folder):
                folder.rename(self.project.store_root / "tmp" / name)

    @property
    def public_key(self) -> str:
        """What seals are checked with."""
        if self.project.public_key is None:
            raise InvalidConfig(
                f"{self.project.root}/clewline.toml has no public key, so no seal can be checked.",
                'Put back the line `public = "…"` under [keys] that `clewline init` wrote.',
            )
        return self.project.public_key

    def sealer(self) -> Sealer:
        """
        Read the private key, and see that it is this project's.

        Raises:
            NotFound: It is not there.
            InvalidConfig: It is another one.
        """
        sealer = Sealer.read(self.project.private_key)
        if sealer.public != self.public_key:
            raise InvalidConfig(
                f"{self.project.private_key} is not the key of this project: its public half is "
                f"{sealer.public}, and clewline.toml says {self.project.public_key}.",
                "Restore the right one from a backup.",
            )
        return sealer


def load_predictor(opened: Package) -> Predictor:
    """Load the model of a package, from the bytes that were checked."""
    from clewline.model.runtime.outputs import runtime_named

    return runtime_named(opened.manifest.runtime).load(opened.files, opened.signature)


def _version(about: PackageMetadata, draft: PackageDraft, digest: Digest) -> ModelVersion:
    metrics = (about.report or {}).get("metrics", {})
    return ModelVersion(
        name=about.name,
        number=about.number,
        package=digest,
        content=draft.content,
        run=about.run,
        step_run=about.step_run,
        task=about.task,
        runtime=about.runtime,
        metrics={name: interval["value"] for name, interval in metrics.items()},
        equality=about.equality,
        size_bytes=draft.size_bytes,
        created=about.created,
    )


def _registered(version: ModelVersion) -> dict[str, Any]:
    return {
        "model": version.ref,
        "package": version.package,
        "content": version.content,
        "run": version.run,
    }


def _edges(version: ModelVersion) -> list[Edge]:
    if version.step_run is None:
        return []
    source, target = f"step:{version.step_run}", f"model:{version.ref}"
    return [Edge(source=source, target=target, role="registered")]
