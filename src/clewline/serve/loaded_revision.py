"""A revision in memory: it answers batches of checked rows with predictions as JSON."""

from __future__ import annotations

import struct
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from itertools import islice
from typing import Any

import msgspec
import numpy as np

from clewline.errors import Fault, InvalidInput, ModelFailed
from clewline.serve.batcher import BatchAnswer, BatchCost
from clewline.serve.conformal_sets import ConformalWriter, option_of
from clewline.serve.graph.builder import Builder, RouterStates, Shadowing, longest_isolated_s
from clewline.serve.graph.functions import ProjectFunctions, load_functions
from clewline.serve.graph.node import Batch, BuiltNode, NodeAnswers, node_failure
from clewline.serve.graph.row_trace import RowTrace, frame_with_traces, row_traces
from clewline.serve.graph.tree import ONLY, of_revision
from clewline.serve.json_reader import MAX_ROWS, json_reader_of
from clewline.serve.log.frame import LoggedBatch, LoggedRequest, RoutePath
from clewline.serve.model_cache.loaded_models import LoadedModel, SharedModels
from clewline.signature.field import Flag, Output, label_name
from clewline.store.digest import Digest
from clewline.store.ids import id_bytes, id_text, prediction_ids
from clewline.store.records import Revision

TRIAL_SIZES = (1, 1, 8, 64, 1, 8, 64)
"""Batch sizes of the trial before a revision goes live; all but the first teach their cost."""
TRIAL_S = 0.5
OWN_THREADS = 8
"""Maximum threads of a revision with isolated models, for its batches and branches."""
_encode = msgspec.json.encode
_ID_GROUPS = struct.Struct("8s4s4s4s12s")  # of the hexadecimal text of an id


class LoadedRevision:
    """Answers batches as one revision of an endpoint defines it. Free of I/O."""

    def __init__(
        self,
        revision: Revision,
        build: Builder,
        node: BuiltNode,
        *,
        max_rows: int = MAX_ROWS,
        threads: Executor | None = None,
    ) -> None:
        timeout_ms = revision.spec.get("timeout_ms")
        self.revision = revision
        self.ref = revision.ref
        self.signature = node.signature
        self.json_reader = json_reader_of(node.signature, revision.accepted, max_rows)
        self.checker = self.json_reader.checker
        self.max_rows = max_rows
        self.cost = BatchCost()
        self.timeout_s: float | None = None if timeout_ms is None else timeout_ms / 1000
        self.isolated_s = longest_isolated_s(revision)
        self.may_hang = self.isolated_s > 0.0
        self.threads = threads  # its own, on which nobody else waits
        self._build = build
        self._node = node
        self._writer = AnswerWriter(node.signature.output, _conformal_writer(revision, build, node))
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
        functions: ProjectFunctions | None = None,
        threads: Executor | None = None,
        states: RouterStates | None = None,
        shadowing: Shadowing | None = None,
        trial: bool = True,
    ) -> LoadedRevision:
        """
        Load the models that a revision pins, and answer its background rows as a trial.

        Args:
            revision: The revision.
            pool: Loads the models.
            max_rows: Maximum rows of one request.
            functions: The code of a draft that is not stored yet; by default the code that
                the revision pins.
            threads: Run branches of the graph in parallel. A revision with isolated models
                gets its own instead, which also compute its batches.
            states: The learned state of each router, by node.
            shadowing: Calls the shadows.
            trial: Whether to answer background rows; a replay has rows of its own.

        Raises:
            NotFound: A package is missing.
            IntegrityError: A package differs from what was sealed and pinned.
            InvalidConfig: The nodes do not fit together.
            Fault: A node raised on the background rows.
        """
        pool.pin(revision.packages)
        own = None
        if threads is not None and longest_isolated_s(revision):
            own = threads = ThreadPoolExecutor(OWN_THREADS, f"clewline-{revision.endpoint}")
        pinned = None
        if functions is None and revision.code is not None:
            pinned = load_functions(pool.project, revision.code)
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
        if own is not None:
            build.close_later(own.shutdown)
        try:
            node = build.node(of_revision(revision))
            loaded = cls(revision, build, node, max_rows=max_rows, threads=own)
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
            entities: The entity of each row.
            ids: Ids of rows that are answered again; by default new ids.

        Raises:
            InvalidInput: A model refuses rows.
            ModelFailed: A node raised; the error has the ids.
        """
        checked = self.checker.columns(rows)
        assert not checked.refused, "rows are checked when they are read"
        if ids is None:
            ids = prediction_ids(len(rows))
        try:
            answered = self._node.compute(Batch(checked.columns, ids, entities))
            answers = self._writer.write(ids, answered, checked.flags)
        except InvalidInput:
            raise
        except BaseException as error:
            failure = error
            if not isinstance(failure, ModelFailed):
                failure = node_failure(self._node.name, error)
            raise ModelFailed(failure.message, failure.fix, tuple(map(id_text, ids))) from error
        paths = answered.paths
        if answered.path_of_row is None and not answered.checksums:  # nearly always
            traces = [RowTrace(paths[0])] * len(ids)
        else:
            traces = row_traces(answered, len(ids))
        if answered.path_of_row is None:
            return BatchAnswer(ids, answers, traces, ((paths[0], len(ids)),))
        counts = np.bincount(answered.path_of_row, minlength=len(paths)).tolist()
        counted = tuple((path, rows) for path, rows in zip(paths, counts, strict=True) if rows)
        return BatchAnswer(ids, answers, traces, counted)

    def compute(self, batch: Batch) -> NodeAnswers:
        """Answer a batch without writing the answers; errors are raised as they are."""
        return self._node.compute(batch)

    def failed(self, error: ModelFailed) -> BatchAnswer:
        """Return the answers to log for rows on which a node raised, under the error's ids."""
        ids = [id_bytes(text) for text in error.ids]
        model = "" if self._is_graph else self.revision.models[ONLY]
        reason = {"code": error.code, "message": error.message}
        answers = [_encode({"id": text, "model": model, "error": reason}) for text in error.ids]
        return BatchAnswer(ids, answers, [RowTrace(RoutePath(model, ()))] * len(ids))

    def frame(self, predictions: BatchAnswer, parts: list[LoggedRequest]) -> LoggedBatch:
        """Return the frame of the log for answered rows."""
        last = predictions.traces[-1].path
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
        return frame_with_traces(frame, predictions.traces, self.revision.packages)

    @property
    def models(self) -> list[LoadedModel]:
        """The models of every node, in the order of the graph."""
        return self._build.models

    def background(self) -> tuple[list[Any], int]:
        """Return the background rows, and how many more of them the accepted bounds refuse."""
        all_rows = msgspec.json.decode(self._node.background, type=list[msgspec.Raw])
        rows = list(self._accepted(all_rows))
        return rows, len(all_rows) - len(rows)

    def _accepted(self, rows: list[msgspec.Raw]) -> Iterator[Any]:
        for row in rows:
            try:
                yield self.checker.decode(bytes(row))[0]
            except InvalidInput:  # accepted bounds refuse rows that the training data had
                continue

    def try_out(self) -> None:
        """Answer background rows in batches of several sizes, for half a second; learn the cost."""
        all_rows = msgspec.json.decode(self._node.background, type=list[msgspec.Raw])
        rows = list(islice(self._accepted(all_rows), max(TRIAL_SIZES)))
        until = time.perf_counter() + TRIAL_S
        for trial, size in enumerate(TRIAL_SIZES):
            sample = rows[:size]
            if not sample or time.perf_counter() > until:
                return
            start = time.perf_counter()
            try:
                self.answer(sample, [None] * len(sample))
            except ModelFailed as error:  # nobody knows its ids, and no log has them
                raise Fault(
                    f"{self.ref} does not answer its own background rows: {error.message}",
                    error.fix,
                ) from error
            if trial:  # the first call also warms up
                self.cost.observe(len(sample), time.perf_counter() - start)

    def close(self) -> None:
        """Release the models; no call comes after it."""
        self._build.close()


def _conformal_writer(
    revision: Revision, build: Builder, node: BuiltNode
) -> ConformalWriter | None:
    option = option_of(revision)
    if option is None:
        return None
    packages = {model.ref: model.package for model in build.models}
    return ConformalWriter(option, of_revision(revision), packages, node.signature.output)


class AnswerWriter:
    """
    Writes predictions as JSON objects, once for the log and the caller alike.

    A classifier's prediction is `{"id", "model", "label", "probabilities"}`, a regressor's
    `{"id", "model", "value"}`; `"arm"` follows the model if the row passed a route, and
    `"flags"` come last if there are any. If the endpoint asks for it, `"set"` or `"interval"`
    stands before them. Numbers are written as the shortest text that reads
    back as the same bits. They are finite, but for elements of an array, which are null if they
    are not.
    """

    def __init__(self, output: Output, conformal: ConformalWriter | None = None) -> None:
        self._labels, self._conformal = output.labels, conformal
        self._templates: dict[tuple[str, str], list[bytes]] = {}

    def write(
        self, ids: Sequence[bytes], answered: NodeAnswers, flags: Sequence[tuple[int, Flag]]
    ) -> list[bytes]:
        """Write the predictions of a batch, in order; `ModelFailed` if a number is not finite."""
        groups = _ID_GROUPS.iter_unpack(b"".join(ids).hex().encode())
        texts = [b"-".join(each) for each in groups]
        of_path = []
        for path in answered.paths:
            templates = self._templates.get((path.model, path.arm))
            if templates is None:
                templates = self._make_templates(path.model, path.arm)
            of_path.append(templates)
        if answered.path_of_row is None:
            per_row = of_path[:1] * len(texts)
        else:
            per_row = [of_path[index] for index in answered.path_of_row.tolist()]
        written = _fill_templates(per_row, texts, answered)
        if self._conformal is not None:
            members = self._conformal.write(ids, answered)
            pairs = zip(written, members, strict=True)
            written = [answer[:-1] + member + b"}" for answer, member in pairs]
        if flags:
            of_row: dict[int, list[Flag]] = {}
            for row, flag in flags:
                of_row.setdefault(row, []).append(flag)
            for row, found in of_row.items():
                written[row] = written[row][:-1] + b',"flags":' + _encode(found) + b"}"
        return written

    def _make_templates(self, model: str, arm: str) -> list[bytes]:
        """Make a template for each label (one for a regressor), with places for id and numbers."""
        head = b'{"id":"%b","model":' + _literal(model)
        if arm:
            head += b',"arm":' + _literal(arm)
        if self._labels is None:
            templates = [head + b',"value":%b}']
        else:
            shares = b",".join(_literal(label_name(each)) + b":%b" for each in self._labels)
            templates = [
                head + b',"label":' + _literal(label) + b',"probabilities":{' + shares + b"}}"
                for label in self._labels
            ]
        self._templates[model, arm] = templates
        return templates


def _fill_templates(
    per_row: list[list[bytes]], ids: list[bytes], answered: NodeAnswers
) -> list[bytes]:
    outputs = answered.outputs
    if outputs.tensor is not None:
        arrays = zip(per_row, ids, outputs.tensor.tolist(), strict=True)
        return [templates[0] % (id_, _encode(array)) for templates, id_, array in arrays]
    if outputs.values is not None:
        values = zip(per_row, ids, _numbers(outputs.values), strict=True)
        return [templates[0] % (id_, number) for templates, id_, number in values]
    assert outputs.choices is not None
    chosen = zip(per_row, ids, outputs.choices.tolist(), strict=True)
    if outputs.probabilities is None:  # a model that answers with labels alone
        filled = [(templates[choice], id_) for templates, id_, choice in chosen]
        return [one[: one.rindex(b',"probabilities":{')] % id_ + b"}" for one, id_ in filled]
    numbers, width = _numbers(outputs.probabilities), outputs.probabilities.shape[1]
    if width == 2:  # a third faster than slices
        pairs = zip(chosen, numbers[::2], numbers[1::2], strict=True)
        return [templates[choice] % (id_, a, b) for (templates, id_, choice), a, b in pairs]
    return [
        templates[choice] % (id_, *numbers[row * width : (row + 1) * width])
        for row, (templates, id_, choice) in enumerate(chosen)
    ]


def _numbers(values: Any) -> list[bytes]:
    """
    Write all numbers in one pass, row by row.

    Raises:
        ModelFailed: One is not finite.
    """
    text = _encode(values.ravel().tolist())
    if b"n" in text:  # null: JSON has no other word for it
        rows = values.reshape(len(values), -1)
        row = int(np.isfinite(rows).all(axis=1).argmin())
        raise ModelFailed(
            f"The model answered row {row} with {rows[row].tolist()}; numbers must be finite.",
            "Train it so that these rows have an answer, or refuse them with bounds.",
        )
    return text[1:-1].split(b",")


def _literal(value: Any) -> bytes:
    """Return a JSON literal for a template, in which a percent sign is doubled."""
    return _encode(value).replace(b"%", b"%%")
