"""Logged predictions as the rows that their models read."""

from __future__ import annotations

from contextlib import closing
from typing import Any

import msgspec

from clewline.errors import NotSupported
from clewline.explain.explained_model import ExplainedModel
from clewline.explain.explained_row import ExplainedRow
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
from clewline.serve.prediction_replay import recorded_revision
from clewline.signature.columns import Columns
from clewline.signature.field import Signature
from clewline.store.ids import id_bytes
from clewline.store.reader import FILE, CatalogReader
from clewline.store.records import Revision

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

    def read(self, prediction: str) -> ExplainedRow:
        """
        Read the row of a prediction as the model read it that answered.

        Raises:
            NotFound: The prediction or a package does not exist.
            IntegrityError: The logged batch or a package differs from what was recorded.
            NotSupported: The answer is no label or number of one model.
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
        """Read the row of a logged prediction; raises as `read`."""
        path = logged.route_path
        kinds = {node["name"]: node["kind"] for node in tree.walk(tree.of_revision(revision))}
        passed = [(name, kinds.get(name, "model")) for name, _ in path.path]
        if computed := [name for name, kind in passed if kind not in ("model", "route")]:
            raise NotSupported(
                f"{logged.id} was answered through the nodes {', '.join(computed)}, which change "
                "the row or the answer.",
                "Explanations are of predictions that one model made from the row as it came.",
            )
        model = self._model(path.model, revision)
        named = {field.name for field in model.signature.fields}
        values = msgspec.json.decode(logged.input)
        own = {key: value for key, value in values.items() if key in named}
        return ExplainedRow(
            model=model,
            columns=read_rows(model.signature, msgspec.json.encode([own])),
            values=own,
            answer=msgspec.json.decode(logged.answer),
            seed=int.from_bytes(id_bytes(logged.id)[8:], "big"),
            prediction=logged.id,
            revision=revision.ref,
            arm=path.arm or None,
        )

    def close(self) -> None:
        """Free the models."""
        for model in self._models.values():
            model.close()
        self._models.clear()

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
    if signature.output.task not in EXPLAINED:
        raise NotSupported(
            f"{ref} is a {signature.output.task} model.",
            f"Explanations are of {format_list(EXPLAINED)} models.",
        )

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

    return ExplainedModel(ref, signature, load, read_sample, package=package)


def read_rows(signature: Signature, rows: bytes) -> Columns:
    """Read a JSON array of rows that were accepted once, so that only their kinds matter."""
    json_reader = json_reader_of(signature, {}, MAX_ROWS)
    return json_reader.checker.columns(json_reader.read(b'{"rows":' + rows + b"}").rows).columns
