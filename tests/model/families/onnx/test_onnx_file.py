"""ONNX files that somebody brings are served as they are, or refused with the reason."""

from __future__ import annotations

import ctypes
import pickle
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import onnx
import pandas as pd
import pytest
from onnx import TensorProto as T
from onnx import helper, numpy_helper
from skl2onnx import convert_sklearn, to_onnx
from skl2onnx.common.data_types import FloatTensorType, Int64TensorType, StringTensorType
from sklearn.compose import make_column_transformer
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder
from support import TREES_IN_ONNX

from clewline.errors import ClewlineError, InvalidInput, NotSupported
from clewline.evaluation.evaluate import evaluate
from clewline.model.families.family import PackageContents
from clewline.model.families.onnx import onnx_file
from clewline.model.families.onnx.onnx_file import synthetic_columns
from clewline.model.register import convert_model
from clewline.model_families import family_named
from clewline.serve.loaded_revision import AnswerWriter
from clewline.signature.field import Field, Output, Signature
from clewline.testing.family import FamilyContract, FamilyExample

DRAW = np.random.default_rng(0)
TABLE = pd.DataFrame(
    {
        "a": DRAW.normal(size=120).astype("float32"),
        "b": DRAW.integers(0, 5, 120),
        "c": DRAW.choice(list("xyz"), 120),
    }
)
WORDS = np.where(TABLE.a + TABLE.b > 2, "yes", "no")
NUMBERS = TABLE[["a", "b"]].astype("float32")


@pytest.fixture
def bring(tmp_path: Path) -> Any:
    def brought(model: Any, **given: Any) -> PackageContents:
        path = tmp_path / "model.onnx"
        path.write_bytes(model if isinstance(model, bytes) else model.SerializeToString())
        return convert_model(path, **given)

    return brought


def graph(op: str, shape: list[Any], out: list[Any] | None = None, **attributes: Any) -> Any:
    """A model of one operator from `x` to `e`."""
    domain = attributes.pop("domain", "")
    weights = attributes.pop("weights", [])
    inputs = ["x", *(weight.name for weight in weights)]
    node = helper.make_node(op, inputs, ["e"], domain=domain, **attributes)
    ends = [
        [helper.make_tensor_value_info(name, T.FLOAT, size)]
        for name, size in (("x", shape), ("e", shape if out is None else out))
    ]
    opsets = [helper.make_opsetid("", 17)] + [helper.make_opsetid(domain, 1)] * bool(domain)
    return helper.make_model(
        helper.make_graph([node], "g", *ends, weights), opset_imports=opsets, ir_version=8
    )


def logistic(**options: Any) -> Any:
    model = LogisticRegression().fit(NUMBERS.to_numpy(), WORDS)
    return to_onnx(model, NUMBERS.to_numpy(), options=options or None)


@pytest.mark.parametrize("options", [{}, {"zipmap": False}], ids=["dictionaries", "a matrix"])
def test_a_classifier_gives_labels_with_probabilities(bring: Any, options: Any) -> None:
    table = NUMBERS.assign(y=WORDS)
    brought = bring(logistic(**options), train=table, test=table, target="y")
    assert [field.name for field in brought.signature.fields] == ["a", "b"]
    assert brought.signature.output.labels == ("no", "yes")
    assert brought.compiled.runtime == "onnx"
    model = LogisticRegression().fit(NUMBERS.to_numpy(), WORDS)
    shares = brought.evaluated.predict_proba(NUMBERS)
    np.testing.assert_allclose(shares, model.predict_proba(NUMBERS.to_numpy()), atol=1e-6)
    assert (brought.evaluated.predict(NUMBERS) == model.predict(NUMBERS.to_numpy())).all()
    assert evaluate(brought.evaluated, table, target="y", resamples=20).beats_baseline


def test_named_scalar_inputs_are_fields_of_their_names(bring: Any) -> None:
    encoder = (OneHotEncoder(handle_unknown="ignore"), ["c"])
    model = make_pipeline(
        make_column_transformer(encoder, remainder="passthrough"), RandomForestClassifier(5)
    ).fit(TABLE, WORDS)
    types = (FloatTensorType, Int64TensorType, StringTensorType)
    inputs = [(name, kind([None, 1])) for name, kind in zip("abc", types, strict=True)]
    file = convert_sklearn(model, initial_types=inputs)
    with_table = bring(file, train=TABLE.assign(y=WORDS), target="y")
    assert [f.kind for f in with_table.signature.fields] == ["number", "integer", "category"]
    alone = bring(file)
    assert [f.kind for f in alone.signature.fields] == ["number", "integer", "text"]
    assert alone.signature.output.labels == ("no", "yes")


def test_a_regressor_gives_values(bring: Any) -> None:
    model = LinearRegression().fit(NUMBERS.to_numpy(), TABLE.a * 2)
    table = NUMBERS.assign(y=TABLE.a * 2)
    brought = bring(to_onnx(model, NUMBERS.to_numpy()), train=table, target="y")
    assert brought.signature.output.task == "regression"
    np.testing.assert_allclose(brought.evaluated.predict(NUMBERS), TABLE.a * 2, atol=1e-5)


def test_an_embedding_answers_with_nested_lists(bring: Any) -> None:
    file = graph("ReduceMean", ["n", 3, 4, 4], ["n", 3], axes=[2, 3], keepdims=0)
    brought = bring(file)
    output = brought.signature.output
    assert (output.task, output.dtype, output.shape) == ("tensor", "float32", (3,))
    rows = synthetic_columns(brought.signature, np.random.default_rng(1), 2)
    predictor = family_named("onnx").load(brought.files, brought.signature)
    found = predictor.predict(rows)
    np.testing.assert_allclose(found.tensor, rows.tensors["x"].mean(axis=(2, 3)), rtol=1e-5)
    from clewline.serve.graph.node import NodeAnswers
    from clewline.serve.log.frame import RoutePath

    answered = NodeAnswers(found, (RoutePath("m@1", ()),))
    written = AnswerWriter(output).write([bytes(16), bytes(16)], answered, ())
    read = [msgspec.json.decode(one)["value"] for one in written]
    np.testing.assert_array_equal(np.array(read, np.float32), found.tensor)


def test_a_fixed_batch_of_one_is_called_a_row_at_a_time(bring: Any) -> None:
    brought = bring(graph("Relu", [1, 3]))
    assert brought.compiled.equality.rows_per_call == 1
    predictor = family_named("onnx").load(brought.files, brought.signature)
    assert predictor.predict(synthetic_columns(brought.signature, DRAW, 5)).tensor.shape == (5, 3)


def test_a_signature_states_what_the_file_leaves_open(bring: Any) -> None:
    field = Field(name="x", kind="tensor", dtype="float32", shape=(2,))
    output = Output(name="animal", task="binary", labels=("cat", "dog"))
    brought = bring(
        graph("Softmax", ["n", "k"]), signature=Signature(fields=(field,), output=output)
    )
    assert brought.signature.output == output
    rows = synthetic_columns(brought.signature, DRAW, 4)
    found = family_named("onnx").load(brought.files, brought.signature).predict(rows)
    assert found.choices.tolist() == rows.tensors["x"].argmax(axis=1).tolist()


def outside() -> Any:
    weight = numpy_helper.from_array(np.ones((3, 3), "float32"), "w")
    weight.ClearField("raw_data")
    weight.data_location = T.EXTERNAL
    entry = weight.external_data.add()
    entry.key, entry.value = "location", "/etc/passwd"
    return graph("MatMul", ["n", 3], weights=[weight])


REFUSED = {
    "answers 8 rows at once": lambda: graph("Relu", [8, 3]),
    "domain 'mine'": lambda: graph("Magic", ["n", 3], domain="mine"),
    "No Op registered for Magic": lambda: graph("Magic", ["n", 3]),
    "does not fix the shape": lambda: graph("Relu", ["n", "k"]),
    "weights in other files": outside,
    "neither an ONNX model nor": lambda: b"nothing at all",
    "a pickle": lambda: pickle.dumps({}),
    "a ZIP archive": lambda: b"PK\x03\x04 and more",
}


@pytest.mark.parametrize("reason", REFUSED)
def test_what_cannot_be_served_is_refused_with_the_reason(bring: Any, reason: str) -> None:
    with pytest.raises(NotSupported, match=reason):
        bring(REFUSED[reason]())


def test_a_table_that_does_not_fit_the_inputs_is_refused(bring: Any) -> None:
    with pytest.raises(InvalidInput, match="2 columns, but there are 1 fields"):
        bring(logistic(), train=NUMBERS[["a"]].assign(y=WORDS), target="y")
    with pytest.raises(ClewlineError, match=r"category|texts|casting|float32"):
        bring(logistic(), train=TABLE[["a", "c"]].assign(y=WORDS), target="y")


@TREES_IN_ONNX
def test_a_file_of_a_booster_is_told_by_its_content(bring: Any) -> None:
    lightgbm = pytest.importorskip("lightgbm")
    y = (WORDS == "yes").astype(int)
    data = lightgbm.Dataset(NUMBERS, y)
    booster = lightgbm.train({"objective": "binary", "verbose": -1}, data, 5)
    text = booster.model_to_string().encode()
    assert bring(text, train=NUMBERS.assign(y=y), target="y").compiled.runtime == "onnx"
    told = bring(text).signature
    assert [field.name for field in told.fields] == ["a", "b"]
    assert all(field.bounds and field.nullable for field in told.fields)


class TestOnnxFile(FamilyContract):
    def example(self) -> FamilyExample:
        file = graph("ReduceMean", ["n", 3, 4], ["n", 3], axes=[2], keepdims=0)
        from clewline.model.families.family import RegistrationInputs
        from clewline.model.families.model_files import convert_bytes

        brought = convert_bytes(
            file.SerializeToString(), RegistrationInputs(train=None), "model.onnx"
        )
        files = {name: brought.files[name] for name in ("model.onnx", "call.json")}
        rows = synthetic_columns(brought.signature, np.random.default_rng(2), 40)
        return FamilyExample("onnx", files, brought.signature, rows)


def test_the_file_is_kept_byte_for_byte(bring: Any) -> None:
    file = graph("Relu", ["n", 3])
    kept = bring(file).files["model.onnx"]
    assert kept == file.SerializeToString()
    assert onnx.load_model_from_string(kept) == file


def test_a_classifier_without_probabilities_is_written_with_its_label_alone() -> None:
    from clewline.model.runtime import Outputs
    from clewline.serve.graph.node import NodeAnswers
    from clewline.serve.log.frame import RoutePath

    writer = AnswerWriter(Output(name="y", task="binary", labels=("no", 'a,"probabilities":{%')))
    answered = NodeAnswers(Outputs(choices=np.array([0, 1])), (RoutePath("m@1", ()),))
    nil = "00000000-0000-0000-0000-000000000000"
    assert [msgspec.json.decode(row) for row in writer.write([bytes(16)] * 2, answered, ())] == [
        {"id": nil, "model": "m@1", "label": "no"},
        {"id": nil, "model": "m@1", "label": 'a,"probabilities":{%'},
    ]


def endless() -> Any:
    """A model of one row whose loop never ends."""
    scalar = helper.make_tensor_value_info
    body = helper.make_graph(
        [helper.make_node("Identity", ["go"], ["on"]), helper.make_node("Identity", ["v"], ["w"])],
        "body",
        [scalar("i", T.INT64, []), scalar("go", T.BOOL, []), scalar("v", T.FLOAT, [None, 2])],
        [scalar("on", T.BOOL, []), scalar("w", T.FLOAT, [None, 2])],
    )
    loop = helper.make_node("Loop", ["", "true", "x"], ["y"], body=body)
    return one_input([loop], [numpy_helper.from_array(np.array(True), "true")])


def greedy() -> Any:
    """A model that makes an array of 8 TB."""
    size = numpy_helper.from_array(np.array([1 << 20, 1 << 21]), "size")
    nodes = [
        helper.make_node("ConstantOfShape", ["size"], ["large"]),
        helper.make_node("ReduceSum", ["large"], ["sum"], keepdims=0),
        helper.make_node("Add", ["x", "sum"], ["y"]),
    ]
    return one_input(nodes, [size])


def one_input(nodes: list[Any], weights: list[Any]) -> Any:
    made = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", T.FLOAT, [None, 2])],
        [helper.make_tensor_value_info("y", T.FLOAT, [None, 2])],
        weights,
    )
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


@pytest.mark.parametrize(
    ("model", "reason"),
    [(endless, "it did not end within 2 s"), (greedy, "it needs more than 4096 MiB of memory")],
)
def test_a_file_that_answers_no_row_is_refused(
    bring: Any, model: Any, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if model is endless:
        monkeypatch.setattr(onnx_file, "READ_S", 2)
    with pytest.raises(NotSupported, match=reason):
        bring(model())


def test_a_file_that_crashes_its_reader_is_refused(
    bring: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(onnx_file, "open_session", lambda _: ctypes.string_at(0))
    with pytest.raises(NotSupported, match="it was ended by SIGSEGV"):
        bring(endless())
