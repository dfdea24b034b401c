"""A revision in memory: loaded, proved on its background sample, ready to answer."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import Executor
from itertools import islice
from typing import Any

import msgspec
import numpy as np

from clewline.errors import Fault, InvalidInput, ModelFailed
from clewline.project import Project
from clewline.serve.answer_writer import AnswerWriter
from clewline.serve.batcher import BatchAnswer, BatchCost
from clewline.serve.graph import functions
from clewline.serve.graph.builder import Builder, RouterStates, Shadowing
from clewline.serve.graph.node import Batch, Node, NodeAnswers, node_failure
from clewline.serve.graph.row_trace import RowTrace, frame_with_traces, row_traces
from clewline.serve.graph.tree import ONLY, of_revision
from clewline.serve.json_reader import MAX_ROWS, json_reader_of
from clewline.serve.log.frame import RoutePath
from clewline.serve.log.writer import LoggedBatch, LoggedRequest
from clewline.serve.model_cache.loaded_models import LoadedModel, SharedModels
from clewline.store.digest import Digest
from clewline.store.ids import id_bytes, id_text, prediction_ids
from clewline.store.records import Revision

TRIAL_SIZES = (1, 1, 8, 64, 1, 8, 64)
"""Batch sizes that a revision answers before it goes live, to learn what they cost."""
TRIAL_S = 0.5


class LoadedRevision:
    """Answers batches as one revision of an endpoint says. Free of I/O."""

    def __init__(
        self, revision: Revision, build: Builder, node: Node, *, max_rows: int = MAX_ROWS
    ) -> None:
        self.revision = revision
        self.ref = revision.ref
        self.signature = node.signature
        self.json_reader = json_reader_of(node.signature, revision.accepted, max_rows)
        self.checker = self.json_reader.checker
        self.max_rows = max_rows
        self.cost = BatchCost()
        self.timeout_s = _seconds(revision.spec.get("timeout_ms"))
        self._build = build
        self._node = node
        self._renderer = AnswerWriter(node.signature.output)
        # A graph's nodes are called by one thread at a time; a single model has its lock.
        self._is_graph = of_revision(revision)["kind"] != "model"
        self.concurrent = not self._is_graph

    @classmethod
    def load(
        cls,
        revision: Revision,
        pool: SharedModels,
        *,
        max_rows: int = MAX_ROWS,
        functions: functions.ProjectFunctions | None = None,
        threads: Executor | None = None,
        states: RouterStates | None = None,
        shadowing: Shadowing | None = None,
        trial: bool = True,
    ) -> LoadedRevision:
        """
        Load what a revision has pinned, and answer its background rows as a trial.

        Args:
            revision: What to load.
            pool: Where its models come from.
            max_rows: Rows that one request may have.
            functions: The code of a draft that is not stored; that which the
                revision pins by default.
            threads: Where branches of the graph run beside each other.
            states: What the routers have learned, by node.
            shadowing: Who asks the shadows.
            trial: Whether to answer background rows; a replay has its own.

        Raises:
            NotFound: A package is not there.
            IntegrityError: A package is not what was sealed and pinned.
            InvalidConfig: The nodes do not fit together.
            Fault: A node raised on the background rows.
        """
        pool.pin(revision.packages)
        pinned = pinned_functions(pool.project, revision) if functions is None else None
        build = Builder(
            revision,
            pool,
            functions=functions or pinned,
            threads=threads,
            states=states,
            shadowing=shadowing,
        )
        if pinned is not None:
            build.close_later(pinned.close)
        try:
            loaded = cls(revision, build, build.node(of_revision(revision)), max_rows=max_rows)
            if trial:
                loaded.try_out()
            build.is_live = True
        except BaseException:
            build.close()
            raise
        return loaded

    def answer(
        self, rows: list[Any], entities: list[str | None], ids: list[bytes] | None = None
    ) -> BatchAnswer:
        """
        Answer checked rows, in order.

        Args:
            rows: Checked rows.
            entities: Whom each is about.
            ids: Of rows that are answered again; new ones by default.

        Raises:
            InvalidInput: A model refuses rows.
            ModelFailed: A node raised; names the ids.
        """
        checked = self.checker.columns(rows)
        assert not checked.refused, "rows are checked when they are read"
        if ids is None:
            ids = prediction_ids(len(rows))
        try:
            answered = self._node.answer(Batch(checked.columns, ids, entities))
            answers = self._renderer.render(ids, answered, checked.flags)
        except InvalidInput:
            raise
        except BaseException as error:
            raise _with_ids(error, ids) from error
        return BatchAnswer(
            ids, answers, row_traces(answered, len(ids)), _counted(answered, len(ids))
        )

    def failed(self, error: ModelFailed) -> BatchAnswer:
        """Make the answers that the log keeps of rows whose node raised, under the ids it names."""
        ids = [id_bytes(text) for text in error.ids]
        model = "" if self._is_graph else self.revision.models[ONLY]
        said = {"code": error.code, "message": error.message}
        answers = [
            msgspec.json.encode({"id": text, "model": model, "error": said}) for text in error.ids
        ]
        return BatchAnswer(ids, answers, [RowTrace(RoutePath(model, ()))] * len(ids))

    def frame(self, predictions: BatchAnswer, parts: list[LoggedRequest]) -> LoggedBatch:
        """Make the frame of the log that holds answered rows."""
        last = predictions.trails[-1].path
        model = "" if self._is_graph else last.model
        frame = LoggedBatch(
            ids=b"".join(predictions.ids),
            endpoint=self.revision.endpoint,
            revision=self.revision.number,
            model=model,
            package=self.revision.packages[model] if model else Digest(""),
            time=time.time(),
            requests=parts,
            answers=predictions.answers,
            path=[] if self._is_graph else list(last.path),
        )
        if not self._is_graph:
            return frame
        return frame_with_traces(frame, predictions.trails, self.revision.packages)

    @property
    def models(self) -> list[LoadedModel]:
        """The models of every node, in the order of the graph."""
        return self._build.models

    def background(self) -> tuple[list[Any], int]:
        """Give the background rows of the node, and how many of them accepted bounds refuse."""
        all_rows = msgspec.json.decode(self._node.background, type=list[msgspec.Raw])
        rows = list(self._good(all_rows))
        return rows, len(all_rows) - len(rows)

    def _good(self, rows: list[msgspec.Raw]) -> Iterator[Any]:
        for row in rows:
            try:
                yield self.checker.decode(bytes(row))[0]
            except InvalidInput:  # accepted bounds refuse what the training data had
                continue

    def try_out(self) -> None:
        """Answer background rows at several batch sizes, half a second long, and learn the cost."""
        all_rows = msgspec.json.decode(self._node.background, type=list[msgspec.Raw])
        rows = list(islice(self._good(all_rows), max(TRIAL_SIZES)))
        until = time.perf_counter() + TRIAL_S
        for size in TRIAL_SIZES:
            sample = rows[:size]
            if not sample or time.perf_counter() > until:
                return
            start = time.perf_counter()
            self._tried(sample)
            self.cost.observe(len(sample), time.perf_counter() - start)

    def _tried(self, rows: list[Any]) -> None:
        try:
            self.answer(rows, [None] * len(rows))
        except ModelFailed as error:  # its ids are nobody's, and in no log
            raise Fault(
                f"{self.ref} does not answer its own background rows: {error.message}", error.fix
            ) from error

    def close(self) -> None:
        """Give back the models; no call comes after it."""
        self._build.close()


def pinned_functions(project: Project, revision: Revision) -> functions.ProjectFunctions | None:
    """Load the code that a revision pins; None when its graph names no function."""
    if revision.code is None:
        return None
    return functions.load_functions(project, revision.code)


def _seconds(milliseconds: float | None) -> float | None:
    return None if milliseconds is None else milliseconds / 1000


def _counted(answered: NodeAnswers, rows: int) -> tuple[tuple[RoutePath, int], ...]:
    """Count the rows of a batch by the way that they went."""
    if answered.path_of_row is None:
        return ((answered.paths[0], rows),)
    counts = np.bincount(answered.path_of_row, minlength=len(answered.paths)).tolist()
    return tuple((way, count) for way, count in zip(answered.paths, counts, strict=True) if count)


def _with_ids(error: BaseException, ids: list[bytes]) -> ModelFailed:
    found = error if isinstance(error, ModelFailed) else node_failure("graph", error)
    return ModelFailed(found.message, found.fix, tuple(map(id_text, ids)))
