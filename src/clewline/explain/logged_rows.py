"""Logged predictions as the rows that their models read."""

from __future__ import annotations

import math
from contextlib import closing
from typing import Any

import msgspec

from clewline.errors import NotSupported
from clewline.explain.explained_model import ExplainedModel
from clewline.explain.explained_row import ExplainedRow
from clewline.explain.logged_graph import LoggedGraph
from clewline.formatting import format_list
from clewline.model.families.family import BACKGROUND
from clewline.model.families.sample_file import TrainingSample
from clewline.model.package import Package
from clewline.model.sealed_records import SealedRecords
from clewline.model.training_sample import read_training_sample
from clewline.model_families import family_named
from clewline.project import Project
from clewline.serve.graph import tree
from clewline.serve.json_reader import MAX_ROWS, json_reader_of
from clewline.serve.log.reader import LoggedPrediction, get_prediction
from clewline.serve.model_cache.loaded_models import SharedModels
from clewline.serve.prediction_replay import read_logged_row, recorded_revision
from clewline.signature.accepted_limits import accepted_from_builtins
from clewline.signature.columns import Columns
from clewline.signature.field import Signature
from clewline.signature.field_rules import value_in_kind
from clewline.store.ids import id_bytes
from clewline.store.reader import FILE, CatalogReader
from clewline.store.records import Revision

CSV = "csv"
EXPLAINED = ("binary", "multiclass", "regression")
MODELS_KEPT = 4


class LoggedRows:
    """
    Reads logged predictions, and keeps the models of the latest for the next.

    For one thread at a time.
    """

    def __init__(self, project: Project) -> None:
        self.project = project
        self._models: dict[str, ExplainedModel] = {}  # by package, the latest last
        self._loaded: tuple[str, LoggedGraph] | None = None  # of the latest revision with nodes

    def read(self, prediction: str) -> ExplainedRow:
        """
        Read the row of a prediction as the model read it that answered.

        Raises:
            NotFound: The prediction or a package does not exist.
            IntegrityError: The logged batch, a package or the answer of a transform differs from
                what was recorded.
            NotSupported: The answer is neither a label nor a number.
        """
        logged = get_prediction(self.project.log, prediction)
        return self.row_of(logged, self.revision_of(logged))

    def revision_of(self, logged: LoggedPrediction) -> Revision:
        """
        Get the revision that answered.

        Raises:
            IntegrityError: The catalog lacks it, or it differs from what was logged or sealed.
        """
        with closing(CatalogReader(self.project.store_root / FILE)) as reader:
            return recorded_revision(SealedRecords(self.project, reader), logged.batch)

    def row_of(self, logged: LoggedPrediction, revision: Revision) -> ExplainedRow:
        """
        Read the row of a logged prediction; raises as `read`.

        Behind a transform, the transform is done again and the model's own row is explained. An
        answer that several models made together, or that was changed afterwards, is explained
        as that of the whole graph, on the row as it came.
        """
        path = logged.route_path
        kinds = {node["name"]: node["kind"] for node in tree.walk(tree.of_revision(revision))}
        passed = {name: kinds.get(name, "model") for name, _ in path.path}
        changing = tuple(name for name, kind in passed.items() if kind not in ("model", "route"))
        facts = {
            "answer": msgspec.json.decode(logged.answer),
            "seed": int.from_bytes(id_bytes(logged.id)[8:], "big"),
            "prediction": logged.id,
            "package": logged.package,
            "revision": revision.ref,
            "arm": path.arm or None,
            "nodes": changing,
        }
        if "error" in facts["answer"]:
            raise NotSupported(
                f"{logged.id} has no answer: {facts['answer']['error']['message']}",
                "Explanations are of answers.",
            )
        accepted = accepted_from_builtins(revision.accepted)  # of the row as it came
        if not changing:
            model = self._model(path.model, revision)
            own, columns = _row_of_model(logged, model.signature)
            facts["accepted"] = accepted
            return ExplainedRow(model=model, columns=columns, values=own, **facts)
        graph = self._graph(revision)
        if {passed[name] for name in changing} == {"transform"}:
            model = self._model(path.model, revision)
            columns = graph.columns_of(logged)[path.model]
            values = row_values(model.signature, columns)
            return ExplainedRow(model=model, columns=columns, values=values, **facts)
        model = graph.model_of(logged)
        require_explained(model)
        return ExplainedRow(
            model=model,
            columns=(columns := graph.row_of(logged)),
            values=_values(logged, model.signature, columns),
            scope="graph",
            accepted=accepted,
            **facts,
        )

    def close(self) -> None:
        """Free the models."""
        for model in self._models.values():
            model.close()
        self._models.clear()
        if self._loaded is not None:
            self._loaded[1].close()
            self._loaded = None

    def _graph(self, revision: Revision) -> LoggedGraph:
        if self._loaded is None or self._loaded[0] != revision.ref:
            before, self._loaded = self._loaded, None
            if before is not None:
                before[1].close()
            self._loaded = revision.ref, LoggedGraph(self.project, revision)
        return self._loaded[1]

    def _model(self, ref: str, revision: Revision) -> ExplainedModel:
        digest = revision.packages[ref]
        found = self._models.pop(digest, None)
        if found is None:
            pool = SharedModels(self.project)
            pool.pin(revision.packages)
            found = model_of_package(pool.read_package(ref))
        self._models[digest] = found
        while len(self._models) > MODELS_KEPT:
            self._models.pop(next(iter(self._models))).close()
        return found


def model_of_package(package: Package) -> ExplainedModel:
    """
    Make a registered model ready to be explained.

    Raises:
        NotSupported: It answers neither with labels nor with a number.
    """
    ref, signature = package.manifest.ref, package.signature

    def load() -> Any:
        return family_named(package.manifest.runtime).load(package.files, signature)

    def read_sample() -> TrainingSample:
        found = read_training_sample(package)
        if found is None:
            rows = read_rows(signature, package.files[BACKGROUND])
            found = TrainingSample(rows, truth=None, answers=None, of_rows=len(rows))
        if not found.rows:
            raise NotSupported(
                f"The package of {ref} has no training rows, and this explanation needs some.",
                "Register the model with its training rows.",
            )
        return found

    found = ExplainedModel(ref, signature, load, read_sample, package=package)
    require_explained(found)
    return found


def require_explained(model: ExplainedModel) -> None:
    """
    Check that a model answers with what explainers explain.

    Raises:
        NotSupported: It answers neither with labels nor with a number.
    """
    if (task := model.signature.output.task) not in EXPLAINED:
        raise NotSupported(
            f"{model.ref} is a {task} model.",
            f"Explanations are of {format_list(EXPLAINED)} models.",
        )


def _row_of_model(logged: LoggedPrediction, signature: Signature) -> tuple[dict[str, Any], Columns]:
    """Return the values of a row that came for a model alone, and the row as the model reads it."""
    if logged.request_format == CSV:
        checker = json_reader_of(signature, {}, MAX_ROWS).checker
        columns = checker.columns([read_logged_row(logged, checker)]).columns
        return row_values(signature, columns), columns
    named = {field.name for field in signature.fields}
    values = msgspec.json.decode(logged.input)
    own = {key: value for key, value in values.items() if key in named}
    return own, read_rows(signature, msgspec.json.encode([own]))


def _values(logged: LoggedPrediction, signature: Signature, columns: Columns) -> dict[str, Any]:
    if logged.request_format == CSV:  # all of it came as strings
        return row_values(signature, columns)
    found: dict[str, Any] = msgspec.json.decode(logged.input)
    return found


def row_values(signature: Signature, columns: Columns) -> dict[str, Any]:
    """Return the values of the first row as its caller would send them."""
    values: dict[str, Any] = {}
    for field, number in zip(signature.numeric, columns.numbers[0].tolist(), strict=True):
        values[field.name] = None if math.isnan(number) else value_in_kind(field, number)
    for field, text in zip(signature.textual, columns.texts[0].tolist(), strict=True):
        values[field.name] = text
    for field in signature.tensors:
        values[field.name] = columns.tensors[field.name][0].tolist()
    return {field.name: values[field.name] for field in signature.fields}


def read_rows(signature: Signature, rows: bytes) -> Columns:
    """Read a JSON array of rows that were accepted once, so that only their kinds matter."""
    json_reader = json_reader_of(signature, {}, MAX_ROWS)
    return json_reader.checker.columns(json_reader.read(b'{"rows":' + rows + b"}").rows).columns
