"""Fitted preprocessing: a transformer of scikit-learn's, or a pipeline without its last step."""

from __future__ import annotations

import sys
from typing import Any

from clewline.errors import InvalidInput, NotSupported
from clewline.model.kinds import tables
from clewline.model.kinds.kind import Contents, Given
from clewline.signature import dataframes
from clewline.signature.check import Checker
from clewline.signature.field import Field, Output, Signature
from clewline.signature.infer import infer_fields


class FittedTransform:
    """Whatever of scikit-learn's transforms and does not predict."""

    name = "transform"

    def claims(self, model: Any) -> bool:
        """An instance with `transform` and without `predict`."""
        sklearn = sys.modules.get("sklearn.base")
        if sklearn is None or not isinstance(model, sklearn.BaseEstimator):
            return False
        return hasattr(model, "transform") and not hasattr(model, "predict")

    def contents(self, model: Any, given: Given) -> Contents:
        """Compile the preprocessing, or keep it where no compiled form is equal."""
        from clewline.model.compile.original import solo
        from clewline.model.compile.transform import compile_transform
        from clewline.model.runtime.frames import layout_of

        tables.require_train(given)
        names = _fields(model, given)
        seen = tables.chosen(given.train, names)
        frame = "numpy" if _names(model) is None else tables.frame_kind(given.train)
        alone = solo(model)
        signature = _signature(alone, seen, frame)
        checker = Checker(signature)
        asked = seen if given.test is None else given.test
        unseen, notes = tables.fitting(checker, tables.chosen(asked, names))
        rows = checker.table(seen).columns
        compiled = compile_transform(
            alone,
            signature,
            layout_of(seen, signature, frame),
            train=rows,
            test=checker.table(unseen).columns,
        )
        files = compiled.files | tables.described_fields(signature, compiled, rows)
        return Contents(files, signature, compiled, notes, unstable=("model.skops",))


KIND = FittedTransform()


def _signature(model: Any, seen: Any, frame: Any) -> Signature:
    from clewline.model.runtime.frames import original_frame
    from clewline.model.runtime.transform import features_of

    fields = infer_fields(seen)
    bare = Signature(fields=fields, output=Output(name="", task="transform"))
    made = _made(model, features_of(model.transform(original_frame(seen, bare, frame))), fields)
    return Signature(fields=fields, output=Output(name="", task="transform", fields=made))


def _made(model: Any, features: Any, fields: tuple[Field, ...]) -> tuple[Field, ...]:
    """Give the fields that come out, named as the transformer names them."""
    import polars as pl

    names = _feature_names(model, fields)
    if len(names) != features.shape[1]:
        raise NotSupported(
            f"{type(model).__name__} names {len(names)} features and gives {features.shape[1]}.",
            "Its get_feature_names_out must name what its transform gives.",
        )
    columns = {}
    for place, name in enumerate(names):
        cells = features[:, place].tolist()
        is_text = any(isinstance(cell, str) for cell in cells)
        dtype = pl.String if is_text else pl.Float64
        kept = [cell if cell == cell else None for cell in cells]
        columns[name] = pl.Series(kept, dtype=dtype, strict=is_text)
    return infer_fields(pl.DataFrame(columns))


def _feature_names(model: Any, fields: tuple[Field, ...]) -> list[str]:
    given = None if _names(model) is not None else [field.name for field in fields]
    try:
        return [str(name) for name in model.get_feature_names_out(given)]
    except (AttributeError, ValueError) as error:
        raise NotSupported(
            f"{type(model).__name__} does not name the features that it gives: {error}.",
            "Use transformers with get_feature_names_out; FunctionTransformer takes "
            'feature_names_out="one-to-one".',
        ) from error


def _names(model: Any) -> list[str] | None:
    names = getattr(model, "feature_names_in_", None)
    return None if names is None else [str(name) for name in names]


def _fields(model: Any, given: Given) -> list[str]:
    """Name the columns that it was fitted on, in its order."""
    present = [name for name in dataframes.open_table(given.train).columns if name != given.target]
    count = getattr(model, "n_features_in_", None)
    if count is None:
        raise NotSupported(f"{type(model).__name__} was not fitted.", "Fit it first.")
    names = _names(model)
    if names is not None:
        return tables.named_fields(names, present)
    if count != len(present):
        raise InvalidInput(
            f"It was fitted on {count} columns, and the training table has {len(present)} besides "
            "the target.",
            "Pass the table that it was fitted on, its columns in the same order.",
        )
    return present
