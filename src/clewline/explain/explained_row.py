"""A logged row as the model read it that answered, and the model's package."""

from __future__ import annotations

from contextlib import closing
from typing import Any

import msgspec

from clewline.errors import NotSupported
from clewline.formatting import format_list
from clewline.model.families.family import BACKGROUND
from clewline.model.families.sample_file import TrainingSample
from clewline.model.package import Package
from clewline.model.sealed_records import SealedRecords
from clewline.model.training_sample import read_training_sample
from clewline.project import Project
from clewline.serve.graph import tree
from clewline.serve.json_reader import MAX_ROWS, json_reader_of
from clewline.serve.log.reader import LoggedPrediction, get_prediction
from clewline.serve.model_cache.loaded_models import SharedModels
from clewline.serve.prediction_replay import recorded_revision
from clewline.signature.columns import Columns
from clewline.signature.field import Signature, label_name
from clewline.store.digest import Digest
from clewline.store.reader import FILE, CatalogReader

EXPLAINED = ("binary", "multiclass", "regression")


class Explanation(msgspec.Struct, frozen=True, kw_only=True):
    """What every explanation says of its prediction."""

    prediction: str
    model: str  # income@3
    package: Digest
    revision: str  # income#12


class ExplainedRow(msgspec.Struct, frozen=True):
    """A logged row as its model read it, and the model's package."""

    logged: LoggedPrediction
    package: Package
    columns: Columns  # one row
    background: Columns  # of the training sample, or else of `background.json`
    values: dict[str, Any]  # of the row, by field
    sample: TrainingSample | None

    @property
    def signature(self) -> Signature:
        """The model's fields and output."""
        return self.package.signature

    @property
    def facts(self) -> dict[str, Any]:
        """The fields of an `Explanation`."""
        batch = self.logged.batch
        return {
            "prediction": self.logged.id,
            "model": self.package.manifest.ref,
            "package": self.package.digest,
            "revision": f"{batch.endpoint}#{batch.revision}",
        }

    @property
    def label_place(self) -> int | None:
        """The place of the answer among the signature's labels; None of a regression."""
        labels = self.signature.output.labels
        if labels is None:
            return None
        answered = label_name(msgspec.json.decode(self.logged.answer)["label"])
        return [label_name(label) for label in labels].index(answered)


def read_explained_row(project: Project, prediction: str) -> ExplainedRow:
    """
    Read the row of a prediction as the model read it that answered.

    Raises:
        NotFound, IntegrityError, NotSupported: As `attribute_prediction`.
    """
    logged = get_prediction(project.log, prediction)
    batch, path = logged.batch, logged.route_path
    with closing(CatalogReader(project.store_root / FILE)) as reader:
        revision = recorded_revision(SealedRecords(project, reader), batch)
    kinds = {node["name"]: node["kind"] for node in tree.walk(tree.of_revision(revision))}
    passed = [(name, kinds.get(name, "model")) for name, _ in path.path]
    if computed := [name for name, kind in passed if kind not in ("model", "route")]:
        raise NotSupported(
            f"{logged.id} was answered through the nodes {', '.join(computed)}, which change the "
            "row or the answer.",
            "Explanations are of predictions that one model made from the row as it came.",
        )
    pool = SharedModels(project)
    pool.pin(revision.packages)
    package = pool.read_package(path.model)
    if package.signature.output.task not in EXPLAINED:
        raise NotSupported(
            f"{path.model} is a {package.signature.output.task} model.",
            f"Explanations are of {format_list(EXPLAINED)} models.",
        )
    # The row was accepted when it was answered, so that only its kinds matter here.
    json_reader = json_reader_of(package.signature, {}, MAX_ROWS)

    def read(rows: bytes) -> Columns:
        return json_reader.checker.columns(json_reader.read(b'{"rows":' + rows + b"}").rows).columns

    named = {field.name for field in package.signature.fields}
    values = msgspec.json.decode(logged.input)
    own = {key: value for key, value in values.items() if key in named}
    sample = read_training_sample(package)
    background = read(package.files[BACKGROUND]) if sample is None else sample.columns
    return ExplainedRow(logged, package, read(msgspec.json.encode([own])), background, own, sample)
