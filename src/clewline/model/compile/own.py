"""The original itself as what is served: by its library's own format, or by skops."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from zipfile import ZIP_DEFLATED

import msgspec

from clewline.errors import NotSupported
from clewline.evaluation.boosters import Boosted, library_of
from clewline.model.compile.boosted import booster_of
from clewline.model.compile.original import Original
from clewline.model.runtime.boosters import RUNTIMES, BoosterCall, saved
from clewline.model.runtime.outputs import Predictor, Runtime
from clewline.model.runtime.sklearn import CALL, MODEL, Call, SklearnRuntime
from clewline.signature.field import Signature

TITLES = {"lightgbm": "LightGBM", "xgboost": "XGBoost", "catboost": "CatBoost"}
DISTRIBUTIONS = {"lightgbm": "lightgbm", "xgboost": "xgboost-cpu", "catboost": "catboost"}


@dataclass(frozen=True, slots=True)
class Own:
    """A model as its library stores it, and how it is called."""

    title: str
    server: Runtime
    name: str  # of the file that holds the model
    data: bytes
    call: Call
    distributions: tuple[str, ...]

    @property
    def runtime(self) -> str:
        """The runtime that loads it."""
        return self.server.name

    def files(self, rows_per_call: int | None) -> dict[str, bytes]:
        """Give the files of a package."""
        call = msgspec.structs.replace(self.call, rows_per_call=rows_per_call)
        return {self.name: self.data, CALL: msgspec.json.encode(call)}

    def load(self, rows_per_call: int | None, signature: Signature) -> Predictor:
        """Load what will be served."""
        return self.server.load(self.files(rows_per_call), signature)


def own_form(original: Original) -> Own:
    """
    Give the form of last resort.

    Raises:
        NotSupported: It holds what is not loaded from a file.
    """
    model = original.model
    library = library_of(model)
    if library is None:
        return _skops(original)
    title, runtime = TITLES[library], RUNTIMES[library]
    classes = getattr(model, "classes_", None)
    names = getattr(model, "feature_names_in_", None)
    booster = Boosted(library, booster_of(model), None, None)
    call = BoosterCall(
        original.layout,
        None,
        None if classes is None else tuple(classes.tolist()),
        None if names is None else tuple(map(str, names)),
    )
    data = saved(booster)
    return Own(title, runtime, runtime.file, data, call, (DISTRIBUTIONS[library],))


def _skops(original: Original) -> Own:
    from skops.io import dumps

    from clewline.flow.values.trusted import untrusted

    data: Any = dumps(original.model, compression=ZIP_DEFLATED, compresslevel=1)
    if refused := untrusted(data):
        raise NotSupported(
            f"{type(original.model).__name__} holds types that are not loaded from a file: "
            f"{', '.join(refused)}.",
            "Use the libraries' own estimators, and no functions of your own inside the model; "
            "do that work in a step before.",
        )
    call = Call(original.layout)
    return Own("scikit-learn", SklearnRuntime(), MODEL, data, call, ("scikit-learn", "skops"))
