"""The store from Python: `cl.open()`."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeAlias

from clewline.project import Project, find
from clewline.store import Store

if TYPE_CHECKING:
    from clewline.serve.log.reader import LoggedPrediction
    from clewline.store.records import Artifact, ModelVersion, Revision, Run, StepRun

    # Inside the classes below `list` is their method.
    RunList: TypeAlias = list[Run]
    StepList: TypeAlias = list[StepRun]
    VersionList: TypeAlias = list[ModelVersion]
    RevisionList: TypeAlias = list[Revision]
    PredictionList: TypeAlias = list[LoggedPrediction]


def open(path: str | Path | None = None) -> OpenStore:
    """
    Open the store of a project for reading.

    Args:
        path: A folder of the project; the current directory by default.

    Raises:
        NotFound: There is no project, or it has no store yet.

    Example:
        `cl.open().runs.list(pipeline="income")`
    """
    project = find(Path(path) if path is not None else None)
    return OpenStore(project, Store.open(project.store_root, write=False))


class OpenStore:
    """The nouns of a store, each with `list` and `get`. A context manager; may be closed twice."""

    def __init__(self, project: Project, store: Store) -> None:
        self.project = project
        self.store = store
        self.runs = Runs(store)
        self.models = Models(project, store)
        self.endpoints = Endpoints(store)
        self.predictions = Predictions(project)

    def close(self) -> None:
        """Let go of the files."""
        self.store.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


class Runs:
    """The executions of pipelines."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def list(
        self, *, pipeline: str | None = None, limit: int | None = 50, offset: int = 0
    ) -> RunList:
        """Runs, newest first."""
        from clewline.flow.runs import list_runs

        return list_runs(self._store, pipeline=pipeline, limit=limit, offset=offset)

    def get(self, run: str) -> Run:
        """
        One run, by its id or a unique start of it.

        Raises:
            NotFound: No run, or more than one, has such an id.
        """
        from clewline.flow.runs import find_run

        return find_run(self._store, run)

    def steps(self, run: str) -> StepList:
        """The step runs of a run, in the order of their calls."""
        from clewline.flow.runs import steps_of

        return steps_of(self._store, self.get(run))

    def value(self, artifact: str) -> Any:
        """
        The value of an artifact: a table as a frame, a model as the estimator.

        Args:
            artifact: Its digest, such as one of `steps(run)[0].outputs`.
        """
        from clewline.errors import NotFound
        from clewline.flow import values
        from clewline.store.digest import Digest
        from clewline.store.records import Artifact

        found: Artifact | None = self._store.catalog.get(Artifact, Digest(artifact))
        if found is None:
            raise NotFound(
                f"There is no artifact {artifact!r}.", "`clewline runs show RUN` lists a run's."
            )
        return values.load(found, self._store.blobs)


class Models:
    """The registered model versions."""

    def __init__(self, project: Project, store: Store) -> None:
        self._project = project
        self._store = store

    def list(self) -> VersionList:
        """Every version, newest first."""
        from clewline.store.records import ModelVersion

        return self._store.catalog.find(ModelVersion, order="-created", limit=None)

    def get(self, ref: str) -> ModelVersion:
        """
        One version: `income@3`, `income@champion`, or `income` for the newest.

        Raises:
            NotFound: There is no such version.
        """
        from clewline.model.registry import Registry

        return Registry(self._project, self._store).get(ref)


class Endpoints:
    """The endpoints that were applied."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def list(self) -> RevisionList:
        """The live revision of each endpoint."""
        from clewline.store.records import LiveRevision

        live = self._store.catalog.find(LiveRevision, order="endpoint", limit=None)
        return [self.get(each.ref) for each in live]

    def get(self, name: str) -> Revision:
        """
        The live revision of an endpoint, or a stated one: `income#12`.

        Raises:
            NotFound: No such endpoint was applied.
        """
        from clewline.store.ref import find_revision

        return find_revision(self._store.catalog, name)


class Predictions:
    """The rows that endpoints have answered."""

    def __init__(self, project: Project) -> None:
        self._project = project

    def list(
        self, *, endpoint: str | None = None, limit: int = 50, before: str | None = None
    ) -> PredictionList:
        """
        Predictions, newest first.

        Args:
            before: Only those older than this prediction: for the next page.
        """
        from clewline.serve.log.reader import latest_predictions

        page = latest_predictions(self._project.log, endpoint=endpoint, limit=limit, before=before)
        return page.items

    def get(self, prediction: str) -> LoggedPrediction:
        """
        One prediction, by its id: `.input`, `.answer` (JSON), `.batch`.

        Raises:
            NotFound: It is not in the log.
        """
        from clewline.serve.log.reader import get_prediction

        return get_prediction(self._project.log, prediction)
