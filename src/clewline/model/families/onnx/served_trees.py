"""The trees of a compiled model, read from the verified bytes of its package."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from clewline.model.compile.candidate_forms import KEY, MODEL, InputEncoding
from clewline.model.compile.trees import (
    TREES_KEY,
    TRUE_FRACTIONS,
    ServedEnsemble,
    ServedTrees,
)
from clewline.model.families.onnx.loading import InputEncoder, open_session
from clewline.signature.columns import Columns
from clewline.signature.field import Signature

OPERATOR = "TreeEnsemble"


def read_served_trees(files: Mapping[str, bytes], signature: Signature) -> ServedTrees | None:
    """
    Read the trees of a compiled model.

    Args:
        files: Of the package.
        signature: Of the model.

    Returns:
        None if the model has no trees on raw fields.
    """
    model = onnx.load_model_from_string(files[MODEL])
    stated = {entry.key: entry.value for entry in model.metadata_props}
    if TREES_KEY not in stated:
        return None
    ensemble = msgspec.json.decode(stated[TREES_KEY], type=ServedEnsemble)
    encoding = msgspec.json.decode(stated[KEY], type=InputEncoding)
    encoder = InputEncoder(encoding, signature)
    place = next(at for at, node in enumerate(model.graph.node) if node.op_type == OPERATOR)
    node = model.graph.node[place]
    parts: dict[str, NDArray[Any]] = {}
    for attribute in node.attribute:
        if attribute.ints:  # millions of them, which a list in between would slow down
            parts[attribute.name] = np.fromiter(attribute.ints, np.int64, len(attribute.ints))
            continue
        value = helper.get_attribute_value(attribute)
        is_tensor = attribute.type == onnx.AttributeProto.TENSOR
        parts[attribute.name] = numpy_helper.to_array(value) if is_tensor else np.asarray(value)
    # What is left computes the matrix that the trees compare.
    matrix = node.input[0]
    del model.graph.node[place:], model.graph.output[:]
    width = len(ensemble.columns)
    if matrix in {value.name for value in model.graph.input}:  # the numbers as they are
        run = None
    else:
        info = helper.make_tensor_value_info(matrix, TensorProto.DOUBLE, [None, width])
        model.graph.output.append(info)
        run = open_session(model.SerializeToString()).run
    splits = parts["nodes_splits"]
    fractions = next(each for each in model.graph.initializer if each.name == TRUE_FRACTIONS)

    def encode(columns: Columns) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        inputs = encoder.inputs(columns)
        found = inputs[matrix] if run is None else run([matrix], inputs)[0]
        codes = inputs.get("codes", np.empty(0, dtype=np.int64))
        return found, codes.reshape(len(encoding.codes), len(columns))

    nan_true = parts.get("nodes_missing_value_tracks_true", np.zeros(len(splits)))
    return ServedTrees(
        ensemble=ensemble,
        encode=encode,
        codes=encoding.codes,
        roots=parts["tree_roots"],
        column=parts["nodes_featureids"],
        split=splits,
        nan_true=nan_true.astype(bool),
        true=parts["nodes_truenodeids"],
        true_is_leaf=parts["nodes_trueleafs"].astype(bool),
        false=parts["nodes_falsenodeids"],
        false_is_leaf=parts["nodes_falseleafs"].astype(bool),
        true_fraction=numpy_helper.to_array(fractions),
        leaf_value=parts["leaf_weights"],
        leaf_target=parts["leaf_targetids"],
    )
