"""Loaded models, shared: one in memory for each package, however many endpoints serve it."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field

import msgspec

from fairlead.errors import IntegrityError, NotFound
from fairlead.model import package as packages
from fairlead.model.package import BACKGROUND
from fairlead.model.runtime import Predictor
from fairlead.model.runtime.registry import load as runtime_named
from fairlead.project import Project
from fairlead.signature.field import Signature
from fairlead.store.digest import Digest


@dataclass(eq=False, slots=True)
class LoadedModel:
    """A model version in memory, loaded from the verified bytes of its package."""

    ref: str  # name@number
    package: packages.Package  # of its files only the background sample
    predictor: Predictor
    pool: ModelPool
    users: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)  # one call at a time

    @property
    def signature(self) -> Signature:
        """What goes into the model and comes out."""
        return self.package.signature

    @property
    def background(self) -> bytes:
        """Training rows, a JSON array."""
        return self.package.files[BACKGROUND]

    def release(self) -> None:
        """Say that one user is done with it; the last one closes it."""
        self.pool.give_back(self)


class ModelPool:
    """
    Loads packages, and closes each when nobody uses it any more. Any thread may call it.

    Args:
        project: Whose packages are loaded, and whose public key they are held against.
        packages: `name@number` → digest of the package, as the catalog or a revision pins it.
    """

    def __init__(self, project: Project) -> None:
        self._project = project
        self._pinned: dict[str, Digest] = {}
        self._loaded: dict[str, LoadedModel] = {}
        self._lock = threading.Lock()

    @property
    def project(self) -> Project:
        """Whose packages are loaded."""
        return self._project

    def pin(self, pinned: dict[str, Digest]) -> None:
        """Say which package each version must be; versions never change, so this only adds."""
        with self._lock:
            self._pinned |= pinned

    def take(self, ref: str) -> LoadedModel:
        """
        Get a version, loading it if nobody else has.

        Raises:
            NotFound: There is no such package.
            IntegrityError: Its bytes are not what was sealed and pinned.
        """
        with self._lock:
            model = self._loaded.get(ref)
            if model is None:
                model = self._loaded[ref] = self._load(ref)
            model.users += 1
            return model

    def give_back(self, model: LoadedModel) -> None:
        """Count one user less; the last one closes the model."""
        with self._lock:
            model.users -= 1
            if model.users == 0:
                del self._loaded[model.ref]
                model.predictor.close()

    def _load(self, ref: str) -> LoadedModel:
        name, _, number = ref.partition("@")
        if ref not in self._pinned:
            raise NotFound(f"No package is pinned for {ref}.", "Apply the endpoint again.")
        public_key = self._project.public_key
        if public_key is None:
            raise IntegrityError(
                f"{self._project.root} has no public key, so no seal can be checked.",
                "Put the [keys] of the project back into fairlead.toml.",
            )
        folder = self._project.packages / name / number
        package = packages.open(folder, public_key, self._pinned[ref])
        runtime = runtime_named(package.manifest.runtime)
        predictor = runtime.load(package.files, package.signature)
        # The model's file is let go: it is as large as the model that was made of it.
        kept = {BACKGROUND: package.files[BACKGROUND]}
        return LoadedModel(ref, msgspec.structs.replace(package, files=kept), predictor, self)
