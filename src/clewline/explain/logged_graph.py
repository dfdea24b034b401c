"""
The graph that answered a logged prediction, as a model: with the same code, ids and arms.

A revision pins the packages of its models and the code of its functions. So what happened
between a row and its answer can be done again, as a replay does it, also with other rows.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager

from clewline.errors import IntegrityError, NotSupported
from clewline.explain.explained_model import ExplainedModel
from clewline.model.families.sample_file import TrainingSample
from clewline.model.runtime.outputs import Outputs, Predictor
from clewline.project import Project
from clewline.serve.graph.node import Batch
from clewline.serve.loaded_revision import LoadedRevision
from clewline.serve.log.reader import LoggedPrediction
from clewline.serve.model_cache.loaded_models import Isolation, LoadedModel, SharedModels
from clewline.serve.prediction_replay import read_logged_row
from clewline.signature.columns import Columns
from clewline.store.ids import id_bytes
from clewline.store.reader import FILE, CatalogReader
from clewline.store.records import Revision, RouterState

BACKGROUND_ROWS = "background rows of the endpoint"


class LoggedGraph:
    """
    Answers rows as a revision does.

    For one thread at a time. Isolated models are loaded into this process.
    """

    def __init__(self, project: Project, revision: Revision) -> None:
        """
        Load the models and the code that a revision pins.

        Raises:
            NotFound: A package is missing.
            IntegrityError: A package or the code differs from what was sealed and pinned.
        """
        self._project, self._revision = project, revision
        self._states: dict[str, RouterState | None] = {}
        self._models = _RecordingModels(project)
        self._loaded = LoadedRevision.load(
            revision, self._models, states=self._states.get, trial=False
        )

    def columns_of(self, logged: LoggedPrediction) -> dict[str, Columns]:
        """
        Answer a logged row again, and return the row as each model read it, by `name@number`.

        Raises:
            IntegrityError: The answer is not the logged one.
        """
        entities = [logged.entity]
        rows = [read_logged_row(logged, self._loaded.checker)]
        with self._path_of(logged), self._models.recording() as columns:
            answered = self._loaded.answer(rows, entities, [id_bytes(logged.id)]).answers[0]
        if answered != logged.answer:
            raise IntegrityError(
                f"{logged.id} is answered otherwise now than it was, so what its nodes made of "
                "the row is not known.",
                f"`clewline replay {logged.id}` compares every node.",
            )
        return columns

    def model_of(self, logged: LoggedPrediction) -> ExplainedModel:
        """Return the whole graph as a model that answers other rows under the prediction's id."""
        return ExplainedModel(
            logged.route_path.model,
            self._loaded.signature,
            lambda: _GraphPredictor(self, logged),
            self._sample,
            source=BACKGROUND_ROWS,
        )

    def row_of(self, logged: LoggedPrediction) -> Columns:
        """Read a logged row as the graph reads it."""
        checker = self._loaded.checker
        return checker.columns([read_logged_row(logged, checker)]).columns

    def answer(self, logged: LoggedPrediction, columns: Columns) -> Outputs:
        """Answer rows as if each were the logged one: by the same arms, if these are drawn."""
        count = len(columns)
        batch = Batch(columns, [id_bytes(logged.id)] * count, [logged.entity] * count)
        with self._path_of(logged):
            return self._loaded.compute(batch).outputs

    def close(self) -> None:
        """Free the models."""
        self._loaded.close()

    def _sample(self) -> TrainingSample:
        rows, _ = self._loaded.background()
        if not rows:
            raise NotSupported(f"{self._revision.ref} has no background rows.")
        columns = self._loaded.checker.columns(rows).columns
        return TrainingSample(columns, truth=None, answers=None, of_rows=len(rows))

    @contextmanager
    def _path_of(self, logged: LoggedPrediction) -> Iterator[None]:
        """Let each router have the state in which it chose for a row."""
        with closing(CatalogReader(self._project.store_root / FILE)) as reader:
            for one in logged.route_path.choices:
                key = logged.batch.endpoint, one.node, one.state
                self._states[one.node] = reader.get(RouterState, *key) if one.state else None
        try:
            yield
        finally:
            self._states.clear()


class _GraphPredictor:
    """A graph as a `Predictor`; the graph is closed by whoever made it."""

    def __init__(self, graph: LoggedGraph, logged: LoggedPrediction) -> None:
        self._graph, self._logged = graph, logged

    def predict(self, columns: Columns) -> Outputs:
        return self._graph.answer(self._logged, columns)

    def close(self) -> None:
        pass


class _RecordingModels(SharedModels):
    """Loads models into this process, and keeps the rows that each reads."""

    def __init__(self, project: Project) -> None:
        super().__init__(project)
        self.read: dict[str, Columns] | None = None  # by `name@number`, while it is recorded

    def take(self, ref: str, isolation: Isolation | None = None) -> LoadedModel:
        """Return a version, as a recording one."""
        model = super().take(ref)
        if hasattr(model.predictor, "predict") and not isinstance(model.predictor, _Recording):
            model.predictor = _Recording(ref, model.predictor, self)
        return model

    @contextmanager
    def recording(self) -> Iterator[dict[str, Columns]]:
        """Keep what models read during the block."""
        self.read = {}
        try:
            yield self.read
        finally:
            self.read = None


class _Recording:
    """A predictor that keeps the rows that it is asked about."""

    def __init__(self, ref: str, predictor: Predictor, models: _RecordingModels) -> None:
        self._ref, self._predictor, self._models = ref, predictor, models

    def predict(self, columns: Columns) -> Outputs:
        if self._models.read is not None:
            self._models.read[self._ref] = columns
        return self._predictor.predict(columns)

    def close(self) -> None:
        self._predictor.close()
