"""Registering a booster from its file, without the table that it was trained on."""

from __future__ import annotations

from typing import Any

import numpy as np

from clewline.errors import InvalidInput
from clewline.model.families import packaging
from clewline.model.families.family import (
    BACKGROUND,
    FileFields,
    PackageContents,
    RegistrationInputs,
)
from clewline.model.families.profile import background_rows
from clewline.signature import dataframes
from clewline.signature.check import Checker
from clewline.signature.field import Field, Output, Signature

FIX = (
    "Write a signature and pass it (--signature FILE): fields: [{name: age, kind: number, "
    "nullable: true}, …] in the model's order and output: {name: TARGET, task: regression}; or "
    "pass rows (--sample FILE)."
)
NO_ROWS = "no rows were given: the background sample was made from the signature"
SYNTHETIC_ROWS = 70


def convert(family: Any, model: Any, inputs: RegistrationInputs, name: str) -> PackageContents:
    """
    Make the files of a package.

    Args:
        family: A `BoosterFamily`.
        model: A `BoosterEstimator`.
        inputs: A signature, rows, both or neither.
        name: Of the file, for errors.

    Raises:
        InvalidInput: Neither the file nor anything else describes the fields, or the
            signature or the rows do not fit the model.
    """
    from clewline.model.compile.compiler import compile_model

    found = FileFields() if not _names(model) else family.file_fields(model, name)
    signature = inputs.signature or _signature(model, found, inputs, name)
    names, own = [each.name for each in signature.fields], _names(model)
    if own and own != names:
        raise InvalidInput(
            f"{name} takes the fields {', '.join(own)}, but the signature has {', '.join(names)}.",
            "State them by these names, in this order.",
        )
    if model.n_features_in_ != len(names):
        raise InvalidInput(
            f"{name} takes {model.n_features_in_} fields, but there are {len(names)}: "
            f"{', '.join(names)}.",
            "State as many, in the model's order.",
        )
    labels = signature.output.labels
    count = 0 if model.classes_ is None else len(model.classes_)
    if len(labels or ()) != count:
        raise InvalidInput(
            f"The model knows {count or 'no'} labels, but the signature states "
            f"{len(labels or ())}.",
            "State output.labels with one for each, in the model's order.",
        )
    if inputs.train is None:
        rows = _synthetic_table(signature)
    else:
        rows = dataframes.open_table(packaging.select_columns(inputs.train, names)).to_pandas()
    if labels is not None and family.takes_labels:  # it answers with these instead of 0, 1, …
        model.classes_ = np.array(labels)
    table = _with_categories(rows, signature, found)
    frame: Any = "pandas" if _names(model) else "numpy"
    compiled = compile_model(model, signature, test=table, train=table, frame=frame)
    seen = Checker(signature).table(table).columns
    if inputs.train is not None:
        described = packaging.describing_files(signature, compiled, seen, None, inputs)
        return PackageContents(compiled.files | described, signature, compiled, [])
    nothing = packaging.no_rows(signature)
    described = packaging.describing_files(signature, compiled, nothing, None, inputs)
    described[BACKGROUND] = packaging.json_of(background_rows(signature, seen))
    return PackageContents(compiled.files | described, signature, compiled, [NO_ROWS])


def _names(model: Any) -> list[str]:
    return list(getattr(model, "feature_names_in_", ()))


def _signature(model: Any, found: FileFields, inputs: RegistrationInputs, name: str) -> Signature:
    classes = None if model.classes_ is None else tuple(model.classes_.tolist())
    task: Any = "regression" if classes is None else "binary" if len(classes) == 2 else "multiclass"
    output = Output(name=inputs.target or "prediction", task=task, labels=classes)
    fields = found.fields
    if inputs.train is not None:
        columns = packaging.fitted_columns(model, inputs.train, inputs.target)
        fields = tuple(
            Field(
                name=each.name,
                kind="category",
                nullable=each.nullable,
                levels=tuple(sorted(found.levels[each.name])),
            )
            if each.name in found.levels
            else each
            for each in packaging.fields_of(inputs.train, columns)
        )
    if fields is None:
        raise InvalidInput(f"{name} does not describe the kinds or names of its fields.", FIX)
    return Signature(fields=fields, output=output)


def _synthetic_table(signature: Signature) -> Any:
    """Return rows that a signature allows, within its bounds, as a pandas table."""
    import pandas as pd

    draw, count, columns = np.random.default_rng(0), SYNTHETIC_ROWS, {}
    for each in signature.fields:
        if each.kind in ("category", "text"):
            columns[each.name] = draw.choice(np.array(each.levels or ("a", "b"), object), count)
        elif each.kind == "boolean":
            columns[each.name] = draw.integers(0, 2, count).astype(bool)
        else:
            low, high = each.bounds or (-2.0, 2.0)
            values = draw.uniform(low, high, count)
            columns[each.name] = np.round(values) if each.kind == "integer" else values
    return pd.DataFrame(columns)


def _with_categories(rows: Any, signature: Signature, found: FileFields) -> Any:
    """Return a pandas table whose columns have the types that the booster was trained with."""
    import pandas as pd

    columns = {}
    for each in signature.fields:
        columns[each.name] = rows[each.name]
        if each.name in found.levels or each.kind == "category":
            levels = found.levels.get(each.name, each.levels or ())
            columns[each.name] = pd.Categorical(rows[each.name], categories=list(levels))
    return pd.DataFrame(columns)
