"""Loaded models: one in memory for each package, however many endpoints serve it."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import NamedTuple, cast

import msgspec

from clewline.errors import ModelFailed, NotFound
from clewline.model import package as packages
from clewline.model.families.family import BACKGROUND, EQUALITY, PROFILE, SIGNATURE
from clewline.model.isolation.isolated_predictor import (
    IsolatedPredictor,
    IsolatedTransformer,
    IsolationLimits,
    load_isolated,
)
from clewline.model.runtime import Predictor
from clewline.model.seal import require_public_key
from clewline.model_families import family_named
from clewline.project import Project
from clewline.signature.field import Signature
from clewline.store.digest import Digest

ASIDE = frozenset({BACKGROUND, EQUALITY, PROFILE, SIGNATURE})
"""Files of a package that do not belong to the model itself."""
MODEL_BYTES = 96 << 10
"""Memory of a loaded model beside its files (measured: some 79 KiB)."""
FILE_FACTOR = 6
"""What each byte of its files costs (measured: compiled trees 4.4 to 6.1, texts 5.4 to 5.9)."""


class Isolation(NamedTuple):
    """The process of an isolated model."""

    endpoint: str  # each has its own, so that no other waits for a call that hangs
    limits: IsolationLimits


Key = tuple[str, Isolation | None]
"""`name@number`, and its process; None for the server's own."""


@dataclass(eq=False, slots=True)
class LoadedModel:
    """A model version in memory, loaded from the verified bytes of its package."""

    ref: str  # name@number
    package: packages.Package  # without its files
    predictor: Predictor
    pool: SharedModels
    size_bytes: int  # of memory, estimated; of an isolated one what its process holds
    isolation: Isolation | None = None  # its own process, if it has one
    users: int = 0
    lock: AbstractContextManager[object] = field(init=False)  # held around each call

    def __post_init__(self) -> None:
        family = family_named(self.package.manifest.runtime)
        is_concurrent = family.concurrent and self.isolation is None
        self.lock = nullcontext() if is_concurrent else threading.Lock()

    @property
    def signature(self) -> Signature:
        """The model's fields and output."""
        return self.package.signature

    @property
    def background(self) -> bytes:
        """Training rows, a JSON array; read from the package, because they are rarely needed."""
        return self.package.read_file(BACKGROUND)

    @property
    def failure(self) -> ModelFailed | None:
        """Why its own process is not started again after many crashes; None while it answers."""
        if isinstance(self.predictor, IsolatedPredictor | IsolatedTransformer):
            return self.predictor.error
        return None

    @property
    def restarts(self) -> int:
        """How often its own process was started again; 0 if it has none."""
        return int(getattr(self.predictor, "restarts", 0))

    def release(self) -> None:
        """Give up one use of it; the last one closes it."""
        self.pool.release(self)


class SharedModels:
    """
    Loads packages, and closes each when its last user is gone. Any thread may call it.

    Args:
        project: Has the packages, and the public key that checks their seals.
        packages: `name@number` → digest of the package, as the catalog or a revision pins it.
    """

    def __init__(self, project: Project) -> None:
        self.project = project
        self._pinned: dict[str, Digest] = {}
        self._loaded: dict[Key, LoadedModel] = {}
        self._loading: dict[Key, threading.Event] = {}  # being loaded by another thread
        self._restarts: Counter[str] = Counter()  # of isolated models that were closed
        self._lock = threading.Lock()

    def pin(self, pinned: dict[str, Digest]) -> None:
        """Record which package each version must have; versions never change, so this only adds."""
        with self._lock:
            self._pinned |= pinned

    def take(self, ref: str, isolation: Isolation | None = None) -> LoadedModel:
        """
        Return a version; load it if that was not done yet.

        Args:
            ref: `name@number`.
            isolation: Load it in a process of its own, shared by all uses with equal ones.

        Raises:
            NotFound: The package does not exist.
            IntegrityError: Its bytes differ from what was sealed and pinned.
            ModelFailed: The model cannot be loaded.
        """
        key = ref, isolation
        while True:
            with self._lock:
                model = self._loaded.get(key)
                if model is not None:
                    model.users += 1
                    return model
                coming = self._loading.get(key)
                if coming is None:
                    mine = self._loading[key] = threading.Event()
            if coming is None:
                return self._load_first(key, mine)
            coming.wait()  # then it is there, or its load failed and is tried again

    def release(self, model: LoadedModel) -> None:
        """Give up one use of a model; the last one closes it."""
        with self._lock:
            model.users -= 1
            if model.users:
                return
            del self._loaded[model.ref, model.isolation]
            if model.isolation:
                self._restarts[model.ref] += model.restarts
        model.predictor.close()

    def end_processes(self) -> None:
        """End the processes of all isolated models, so that nobody waits for one of them."""
        with self._lock:
            isolated = [model for model in self._loaded.values() if model.isolation]
        for model in isolated:
            model.predictor.close()

    def restarts(self) -> dict[str, int]:
        """Return how often the process of each isolated model was started again."""
        with self._lock:
            found = Counter(self._restarts)
            for model in self._loaded.values():
                if model.isolation:
                    found[model.ref] += model.restarts
            return dict(found)

    def _load_first(self, key: Key, event: threading.Event) -> LoadedModel:
        """Load a version that no other thread is loading."""
        try:
            model = self._load(*key)
        except BaseException:
            with self._lock:
                del self._loading[key]
            raise
        else:
            model.users = 1
            with self._lock:
                self._loaded[key] = model
                del self._loading[key]
            return model
        finally:
            event.set()

    def _load(self, ref: str, isolation: Isolation | None) -> LoadedModel:
        package = self.read_package(ref)
        runtime = package.manifest.runtime
        if isolation is not None:  # its process reads the package again after a crash
            kept = [package.files]

            def files() -> Mapping[str, bytes]:
                return kept.pop() if kept else self.read_package(ref).files

            # A transformer is typed as a predictor, as everywhere in the pool.
            isolated = load_isolated(ref, runtime, package.signature, files, isolation.limits)
            predictor = cast(Predictor, isolated)
            size = isolated.rss_bytes
        else:
            predictor = family_named(runtime).load(package.files, package.signature)
            size = memory_bytes(package)
        package = msgspec.structs.replace(package, files={})  # only what was made of them stays
        return LoadedModel(ref, package, predictor, self, size, isolation)

    def read_package(self, ref: str) -> packages.Package:
        """
        Read a pinned package, and check its bytes, except those that are read on demand.

        Raises:
            NotFound, IntegrityError: As `take`.
        """
        name, _, number = ref.partition("@")
        if ref not in self._pinned:
            raise NotFound(f"No package is pinned for {ref}.", "Apply the endpoint again.")
        folder = self.project.packages / name / number
        key = require_public_key(self.project)
        return packages.open_package(folder, key, self._pinned[ref], ref, whole=False)


def memory_bytes(package: packages.Package) -> int:
    """Estimate what the model of a package takes of memory once it is loaded."""
    factor = family_named(package.manifest.runtime).memory_factor or FILE_FACTOR
    files = package.files.items()
    return MODEL_BYTES + factor * sum(len(data) for name, data in files if name not in ASIDE)
