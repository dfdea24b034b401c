"""The map of a classifier that is not served in ONNX: file `calibration.json` of a package."""

from __future__ import annotations

import msgspec
import numpy as np

from clewline.model.families.calibrated_model.probability_map import ProbabilityMap, apply_map
from clewline.model.runtime.outputs import FunctionPredictor, Outputs, Predictor
from clewline.signature.columns import Columns

SERVED_MAP = "calibration.json"


class ServedMap(msgspec.Struct, frozen=True):
    """A map, and the family that loads the classifier before it."""

    runtime: str
    probabilities: ProbabilityMap
    order: tuple[int, ...]  # place of each of the signature's labels among the map's
    rows_per_call: int | None = None  # 1 if bits depend on the size of the batch


def calibrated_predictor(classifier: Predictor, served: ServedMap) -> FunctionPredictor:
    """Return a predictor that asks the classifier, and maps its probabilities."""
    order = np.array(served.order)
    places = np.argsort(order)

    def answer(columns: Columns) -> Outputs:
        found = classifier.predict(columns)
        assert found.probabilities is not None, "only classifiers with probabilities have a map"
        shares = apply_map(served.probabilities, found.probabilities[:, places])
        choices = places[shares.argmax(axis=1)].astype(np.int64)
        return Outputs(choices=choices, probabilities=np.ascontiguousarray(shares[:, order]))

    return FunctionPredictor(answer, served.rows_per_call, on_close=classifier.close)
