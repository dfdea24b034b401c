"""The income model as an engineer converts it by hand with skl2onnx, exact, one input a field."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import onnx
from onnx import TensorProto, helper


def write(example: Path, data: Path, target: Path) -> None:
    """
    Train the example's forest and write its conversion.

    skl2onnx converts no text imputer that meets nulls, so the handler fills them
    itself, from the metadata. Inputs are double, and a cast to float stands before
    the trees, as scikit-learn casts after its scaler; without it labels flip.
    """
    sys.path.insert(0, str(example / "pipelines"))
    from income import CATEGORIES, NUMBERS, TARGET, forest, parse

    train, test = (parse(data / f"adult.{part}.gz") for part in ("data", "test"))
    model = forest(trees=100, seed=0).fit(train.drop(TARGET), train[TARGET])
    prepare, trees = model[0], model[-1]
    modes = prepare.named_transformers_["categories"][0].statistics_.tolist()
    fills = dict(zip(CATEGORIES, modes, strict=True))
    converted = exact(convert(prepare, trees, NUMBERS, CATEGORIES))
    facts = {"fills": fills, "labels": trees.classes_.tolist(), "fields": NUMBERS + CATEGORIES}
    helper.set_model_props(converted, {key: json.dumps(fact) for key, fact in facts.items()})
    target.write_bytes(converted.SerializeToString())
    hold(target, model, test.drop(TARGET), fills)


def convert(prepare: Any, trees: Any, numbers: list[str], categories: list[str]) -> Any:
    """Convert the pipeline without its text imputer."""
    from skl2onnx import to_onnx
    from skl2onnx.common.data_types import DoubleTensorType, StringTensorType
    from sklearn.compose import ColumnTransformer
    from sklearn.pipeline import make_pipeline

    scaler = prepare.named_transformers_["numbers"][-1]
    encoder = prepare.named_transformers_["categories"][-1]
    whole = ColumnTransformer([("numbers", scaler, numbers), ("categories", encoder, categories)])
    whole.transformers_ = [("numbers", scaler, numbers), ("categories", encoder, categories)]
    whole._name_to_fitted_passthrough = {}
    whole.sparse_output_ = False
    types = [(name, DoubleTensorType([None, 1])) for name in numbers]
    types += [(name, StringTensorType([None, 1])) for name in categories]
    return to_onnx(
        make_pipeline(whole, trees),
        initial_types=types,
        options={id(trees): {"zipmap": False}},
        target_opset={"": 18, "ai.onnx.ml": 3},
    )


def exact(model: Any) -> Any:
    """Cast what the trees are given to float."""
    for place, node in enumerate(model.graph.node):
        if node.op_type == "TreeEnsembleClassifier":
            cast = helper.make_node("Cast", [node.input[0]], ["rounded"], to=TensorProto.FLOAT)
            node.input[0] = "rounded"
            model.graph.node.insert(place, cast)
            break
    onnx.checker.check_model(model)
    return model


def hold(path: Path, model: Any, rows: Any, fills: dict[str, str]) -> None:
    """Hold the conversion against scikit-learn on the test table."""
    import numpy as np
    import onnxruntime

    session = onnxruntime.InferenceSession(path.read_bytes(), providers=["CPUExecutionProvider"])
    feed = {}
    for name in rows.columns:  # skl2onnx writes education-num as education_num
        column = rows[name].fill_null(fills[name]) if name in fills else rows[name]
        kind = object if name in fills else np.float64
        feed[name.replace("-", "_")] = column.to_numpy().astype(kind).reshape(-1, 1)
    found = session.run(None, feed)[1]
    worst = float(np.abs(found - model.predict_proba(rows)).max())
    if worst > 1e-6:
        raise SystemExit(f"the plain conversion is not exact: a probability differs by {worst}")
