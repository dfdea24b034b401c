"""A package holds a sample of the training rows, their truth and the served model's answers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import polars as pl
import pytest
from projects import make_project
from sklearn.linear_model import LinearRegression
from sklearn.tree import DecisionTreeClassifier

from clewline.errors import IntegrityError, InvalidInput
from clewline.model.families import sample_file
from clewline.model.families.family import TRAINING_SAMPLE, PackageContents
from clewline.model.families.sample_file import (
    TrainingSample,
    decode_sample,
    encode_sample,
    sample_digest,
    truth_of,
)
from clewline.model.package import Package, PackageMetadata
from clewline.model.register import convert_model
from clewline.model.registry import Registry, load_predictor
from clewline.model.runtime.outputs import Outputs
from clewline.model.training_sample import read_training_sample
from clewline.model.verify import verify
from clewline.serve.model_cache.loaded_models import SharedModels
from clewline.signature.check import Checker
from clewline.signature.columns import Columns
from clewline.signature.field import Field, Output, Signature
from clewline.store.store import Store

TABLE = pl.DataFrame({"age": [20.0, 30.0, None, 50.0] * 30, "y": ["no", "no", "yes", "yes"] * 30})


class OwnModel:
    """Answers at its own pace, or raises."""

    def __init__(self, error: Exception | None = None) -> None:
        self.error, self.rows = error, 0

    def predict(self, columns: Columns) -> Outputs:
        self.rows += len(columns)
        if self.error is not None and self.rows > 50:
            raise self.error
        return Outputs(values=columns.numbers[:, 0] * 2)

    def close(self) -> None:
        pass


def classifier(table: pl.DataFrame = TABLE) -> PackageContents:
    model = DecisionTreeClassifier(max_depth=2, random_state=0)
    model.fit(table.select("age").to_pandas(), table["y"])
    return convert_model(model, train=table.to_pandas(), target="y")


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Registry, Package]]:
    project = make_project(tmp_path_factory.mktemp("project"))
    contents = classifier()
    about = PackageMetadata(
        name="m", number=0, runtime=contents.compiled.runtime, task="binary", target="y", created=0
    )
    with Store.open(project.store_root) as store:
        registry = Registry(project, store)
        registry.add(contents.files, about)
        yield registry, registry.open("m@1")


def numbers(rows: int, fields: int = 1) -> tuple[Signature, Columns]:
    signature = Signature(
        fields=tuple(Field(name=f"x{at}", kind="number", nullable=True) for at in range(fields)),
        output=Output(name="y", task="regression"),
    )
    values = np.arange(rows * fields, dtype=np.float64).reshape(rows, fields)
    return signature, Columns(values, np.empty((rows, 0), dtype=object))


def drawn(
    signature: Signature, columns: Columns, model: Any = None, **options: Any
) -> TrainingSample:
    data = encode_sample(signature, columns, None, model or OwnModel(), **options)
    return decode_sample(data, signature, len(columns))


def test_it_holds_the_rows_their_truth_and_what_the_served_model_answers(
    package: tuple[Registry, Package],
) -> None:
    sample = read_training_sample(package[1])
    assert sample is not None
    assert (sample.rows, sample.of_rows) == (120, 120)
    assert np.array_equal(sample.columns.numbers[:4, 0], [20, 30, np.nan, 50], equal_nan=True)
    assert sample.truth is not None
    assert sample.truth[:4].tolist() == [0, 0, 1, 1]
    served = load_predictor(package[1]).predict(sample.columns)
    assert sample.answers is not None
    assert sample.answers.to_bytes() == served.to_bytes()


def test_rows_of_every_kind_of_field_come_back_as_they_were() -> None:
    signature = Signature(
        fields=(
            Field(name="word", kind="text", nullable=True),
            Field(name="x", kind="number"),
            Field(name="image", kind="tensor", dtype="float32", shape=(2, 2)),
        ),
        output=Output(name="y", task="regression"),
    )
    texts = np.array([["a"], [None], ["truth"]], dtype=object)
    images = np.arange(12, dtype=np.float32).reshape(3, 2, 2)
    columns = Columns(np.array([[1.0], [-0.0], [np.inf]]), texts, {"image": images})
    found = drawn(signature, columns)
    assert found.columns.numbers.tobytes() == columns.numbers.tobytes()
    assert found.columns.texts.tolist() == texts.tolist()
    assert found.columns.tensors["image"].dtype == np.float32
    assert np.array_equal(found.columns.tensors["image"], images)
    assert found.truth is None


def test_the_draw_is_uniform_seeded_and_bounded_in_rows_and_in_bytes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    signature, columns = numbers(1000)
    one, two, other = (drawn(signature, columns, rows=100, seed=seed) for seed in (0, 0, 1))
    assert one.columns.numbers.tobytes() == two.columns.numbers.tobytes()
    assert one.columns.numbers.tobytes() != other.columns.numbers.tobytes()
    assert len({*one.columns.numbers[:, 0].tolist()}) == 100
    assert one.of_rows == 1000
    monkeypatch.setattr(sample_file, "SAMPLE_BYTES", 8000)
    assert drawn(*numbers(1000, fields=10)).rows == 100
    texts = np.array([["x" * 1000]] * 20, dtype=object)
    written = Signature(fields=(Field(name="t", kind="text"),), output=signature.output)
    model = OwnModel()
    model.predict = lambda columns: Outputs(values=np.zeros(len(columns)))  # type: ignore[method-assign]
    assert drawn(written, Columns(np.empty((20, 0)), texts), model).rows == 8


def test_a_model_that_refuses_a_row_or_takes_too_long_has_no_stored_answers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    signature, columns = numbers(100)
    assert drawn(signature, columns).answers is not None
    refused = drawn(signature, columns, OwnModel(InvalidInput("no such row")))
    assert (refused.rows, refused.answers) == (100, None)
    monkeypatch.setattr(sample_file, "ANSWER_S", 0)
    slow = OwnModel()
    assert drawn(signature, columns, slow).answers is None
    assert slow.rows < 100


def test_the_content_digest_depends_on_rows_and_truth_but_not_on_format_or_answers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    signature, columns = numbers(100)
    truth = np.arange(100.0)
    data = encode_sample(signature, columns, truth, OwnModel())
    write = pl.DataFrame.write_parquet
    monkeypatch.setattr(
        pl.DataFrame,
        "write_parquet",
        lambda table, file, **_: write(table, file, compression="snappy"),
    )
    answered = OwnModel()
    answered.predict = lambda columns: Outputs(values=columns.numbers[:, 0] * 3)  # type: ignore[method-assign]
    other = encode_sample(signature, columns, truth, answered)
    assert data != other
    assert sample_digest(data) == sample_digest(other)
    assert sample_digest(data) != sample_digest(
        encode_sample(signature, columns, truth + 1, OwnModel())
    )


def test_truth_is_the_place_of_the_label_or_the_value() -> None:
    labels = Output(name="y", task="multiclass", labels=(1, 2, 3))
    table = pl.DataFrame({"y": [3, 1, None, 9]})
    assert truth_of(table, None, labels).tolist() == [2, 0, -1, -1]  # type: ignore[union-attr]
    assert truth_of(table.rename({"y": "z"}), None, labels) is None
    assert truth_of(table.with_columns(y=pl.lit("other")), None, labels) is None
    value = Output(name="y", task="regression")
    found = truth_of(table, None, value)
    assert np.array_equal(found, [3, 1, np.nan, 9], equal_nan=True)  # type: ignore[arg-type]


def test_a_model_can_be_registered_without_the_sample() -> None:
    model = LinearRegression().fit([[1.0], [2.0]], [1.0, 2.0])
    table = pl.DataFrame({"x": [1.0, 2.0], "y": [1.0, 2.0]})
    assert TRAINING_SAMPLE in convert_model(model, train=table, target="y").files
    without = convert_model(model, train=table, target="y", sample_rows=0)
    assert TRAINING_SAMPLE not in without.files


def test_a_changed_sample_is_found_by_verify_and_by_its_reader_and_does_not_stop_a_server(
    package: tuple[Registry, Package],
) -> None:
    registry, opened = package
    path = opened.folder / TRAINING_SAMPLE
    data = path.read_bytes()
    path.chmod(0o644)
    try:
        path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
        with pytest.raises(IntegrityError, match=r"training_sample\.parquet of m@1 was changed"):
            read_training_sample(opened)
        assert verify(registry, "m@1").versions[0].problem is not None
        pool = SharedModels(registry.project)
        pool.pin({"m@1": opened.digest})
        model = pool.take("m@1")
        checker = Checker(opened.signature)
        rows = checker.columns(checker.decode(model.background)).columns
        assert len(model.predictor.predict(rows)) == 120
        model.release()
        path.unlink()
        with pytest.raises(IntegrityError, match=r"training_sample\.parquet missing"):
            pool.take("m@1")
    finally:
        path.unlink(missing_ok=True)
        path.write_bytes(data)


def test_an_opened_package_does_not_hold_the_sample_in_memory(
    package: tuple[Registry, Package],
) -> None:
    assert TRAINING_SAMPLE in package[1].manifest.files
    assert TRAINING_SAMPLE not in package[1].files
