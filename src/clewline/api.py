"""The store from Python: `cl.open()`."""

from __future__ import annotations

import builtins
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from clewline.errors import NotFound
from clewline.project import Project, find
from clewline.store import Store
from clewline.store.records import (
    Artifact,
    ExplanationRecord,
    LiveRevision,
    ModelVersion,
    Revision,
    Run,
    StepRun,
)
from clewline.store.ref import find_revision, find_version

if TYPE_CHECKING:
    from clewline.explain.explained_row import Explanation
    from clewline.serve.log.reader import LoggedPrediction


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
    """Runs, models, endpoints and predictions of a store. A context manager."""

    def __init__(self, project: Project, store: Store) -> None:
        self.project = project
        self.store = store
        self.runs = RunReader(store)
        self.models = ModelReader(store)
        self.endpoints = EndpointReader(store)
        self.predictions = PredictionReader(project)

    def close(self) -> None:
        """Close the files; may be called twice."""
        self.store.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class RunReader:
    """Reads the executions of pipelines."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def list(
        self, *, pipeline: str | None = None, limit: int | None = 50, offset: int = 0
    ) -> builtins.list[Run]:
        """List runs, newest first."""
        from clewline.flow.runs import list_runs
        from clewline.store.run_search import RunFilter

        return list_runs(self._store, RunFilter(pipeline=pipeline), limit=limit, offset=offset)

    def get(self, run: str) -> Run:
        """
        Get a run by its id, or by a beginning that no other run shares.

        Raises:
            UsageError: Several runs begin so.
            NotFound: No run begins so.
        """
        from clewline.flow.runs import find_run

        return find_run(self._store, run)

    def steps(self, run: str) -> builtins.list[StepRun]:
        """
        List the step runs of a run, in the order of their calls.

        Raises:
            UsageError, NotFound: As `get`.
        """
        from clewline.flow.runs import steps_of

        return steps_of(self._store, self.get(run))

    def value(self, artifact: str) -> Any:
        """
        Load the value of an artifact: a table as a frame, a model as the estimator.

        Args:
            artifact: Its digest, such as one of `steps(run)[0].outputs`.

        Raises:
            NotFound: There is no such artifact.
            IntegrityError: Its bytes are not those that were stored.
        """
        from clewline.flow import values

        found = self._store.catalog.get(Artifact, artifact)
        if found is None:
            raise NotFound(
                f"There is no artifact {artifact!r}.",
                "`clewline runs show RUN` lists the artifacts of a run.",
            )
        return values.load(found, self._store.blobs)


class ModelReader:
    """Reads the registered model versions."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def list(self) -> builtins.list[ModelVersion]:
        """List all versions, newest first."""
        return self._store.catalog.find(ModelVersion, order="-created", limit=None)

    def get(self, ref: str) -> ModelVersion:
        """
        Get a version: `income@3`, `income@champion`, or `income` for the newest.

        Raises:
            NotFound: There is no such version.
        """
        return find_version(self._store.catalog, ref)


class EndpointReader:
    """Reads the endpoints that were applied."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def list(self) -> builtins.list[Revision]:
        """List the live revision of each endpoint."""
        live = self._store.catalog.find(LiveRevision, order="endpoint", limit=None)
        return [self.get(each.ref) for each in live]

    def get(self, ref: str) -> Revision:
        """
        Get the live revision of an endpoint, or a stated one: `income#12`.

        Raises:
            NotFound: There is no such endpoint or revision.
        """
        return find_revision(self._store.catalog, ref)


class PredictionReader:
    """Reads the rows that endpoints have answered."""

    def __init__(self, project: Project) -> None:
        self._project = project

    def list(
        self,
        *,
        endpoint: str | None = None,
        limit: int = 50,
        before: str | None = None,
        tried: bool | None = None,
    ) -> builtins.list[LoggedPrediction]:
        """
        List predictions, newest first.

        Args:
            endpoint: List only the predictions of this endpoint.
            limit: Maximum number of predictions.
            before: List only predictions older than this one, for the next page.
            tried: List only rows that somebody made up to see the answer (True), or leave
                them out (False).
        """
        from clewline.serve.log.reader import latest_predictions

        page = latest_predictions(
            self._project.log, endpoint=endpoint, limit=limit, before=before, tried=tried
        )
        return page.items

    def get(self, prediction: str) -> LoggedPrediction:
        """
        Get a prediction by its id; it has `input`, `answer` (JSON) and `batch`.

        Raises:
            NotFound: It is not in the log.
        """
        from clewline.serve.log.reader import get_prediction

        return get_prediction(self._project.log, prediction)

    def explain(
        self, prediction: str, kind: str | None = None, *, fresh: bool = False, **options: Any
    ) -> Explanation:
        """
        Explain a prediction under the version that answered.

        Args:
            prediction: Its id.
            kind: `attributions` (how much each field moved the answer), `counterfactuals` (small
                changes that alter it) or a kind that a plug-in offers; by default the endpoint's
                own, else the one that suits the model best.
            fresh: Compute it, even if the answer to the same question is stored.
            options: Of the kind, such as `budget=5000`, or `to="<=50K", keep=["age"]`.

        Raises:
            InvalidInput: There is no such option, or it does not fit the model.
            NotFound: The prediction or its package does not exist.
            IntegrityError: The log or a package was changed.
            NotSupported: There is no such kind, or it cannot explain this prediction.
            ModelFailed: The model raised on a changed row.
            ExplanationDiffers: With `fresh`, it is not the stored one.

        Example:
            `store.predictions.explain(id, "counterfactuals", to="<=50K", keep=["age", "sex"])`
        """
        from clewline.explain.explain_prediction import explain_prediction

        return explain_prediction(self._project, prediction, kind, options, fresh=fresh).explanation

    def explanations(self, prediction: str) -> builtins.list[ExplanationRecord]:
        """
        List the stored explanations of a prediction, the oldest first.

        Raises:
            NotFound: The text is no prediction id.
        """
        from clewline.explain.explain_prediction import stored_explanations

        return stored_explanations(self._project, prediction)
