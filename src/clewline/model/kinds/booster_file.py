"""A booster in its library's own format, without the table that it was trained on."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np

from clewline.errors import InvalidInput
from clewline.evaluation.boosters import Boosted, Library
from clewline.model import background
from clewline.model.kinds import tables
from clewline.model.kinds.kind import Contents, Given
from clewline.model.package import BACKGROUND
from clewline.signature import dataframes
from clewline.signature.check import Checker
from clewline.signature.columns import Columns
from clewline.signature.field import Field, Output, Signature
from clewline.signature.infer import infer_signature

STATE = (
    "Write a signature and pass it (--signature FILE): fields: [{name: age, kind: number, "
    "nullable: true}, …] in the model's order and output: {name: TARGET, task: regression}; or "
    "pass rows (--sample FILE)."
)
MADE = "no rows were given: the background sample was made from the signature"


@dataclass(frozen=True, slots=True)
class _Told:
    """What a file says of its fields."""

    fields: tuple[Field, ...] | None
    levels: dict[str, tuple[str, ...]]  # of pandas categories, in the order of their codes


def contents_of(model: Boosted, given: Given, name: str) -> Contents:
    """
    Make the files of a package.

    Args:
        model: The booster.
        given: A signature, rows, both or neither.
        name: Of the file, for errors.

    Raises:
        InvalidInput: The file does not tell its fields and nothing else does, or what tells
            them does not fit it.
    """
    from clewline.model.compile import compile

    told = _told(model, name)
    signature, rows = _described(model, told, given, name)
    _take_labels(model, signature)
    table = _table(rows, signature, told)
    compiled = compile(model, signature, test=table, train=table, frame=_frame(model))
    checker = Checker(signature)
    seen = checker.table(table).columns
    if given.train is not None:
        described = tables.described(signature, compiled, seen, None)
        return Contents(compiled.files | described, signature, compiled, [])
    described = tables.described(signature, compiled, _none(signature), None)
    described[BACKGROUND] = tables.json_of(background.rows(signature, seen))
    return Contents(compiled.files | described, signature, compiled, [MADE])


def _frame(model: Boosted) -> Any:
    return "numpy" if getattr(model, "feature_names_in_", None) is None else "pandas"


def _none(signature: Signature) -> Columns:
    texts = np.empty((0, len(signature.textual)), dtype=object)
    return Columns(np.zeros((0, len(signature.numeric))), texts)


# ── the signature ───────────────────────────────────────────────────────────


def _described(model: Boosted, told: _Told, given: Given, name: str) -> tuple[Signature, Any]:
    """Give the signature, and rows that it allows as a pandas table."""
    signature = given.signature or _signature(model, told, given, name)
    _must_fit(model, signature, name)
    if given.train is None:
        return signature, _made(signature)
    columns = [field.name for field in signature.fields]
    return signature, _as_pandas(tables.chosen(given.train, columns))


def _signature(model: Boosted, told: _Told, given: Given, name: str) -> Signature:
    classes = None if model.classes_ is None else tuple(model.classes_.tolist())
    task: Any = "regression" if classes is None else "binary" if len(classes) == 2 else "multiclass"
    output = Output(name=given.target or "prediction", task=task, labels=classes)
    if given.train is not None:
        return Signature(fields=_inferred(model, told, given), output=output)
    if told.fields is None:
        raise InvalidInput(f"{name} does not tell the kinds or names of its fields.", STATE)
    return Signature(fields=told.fields, output=output)


def _inferred(model: Boosted, told: _Told, given: Given) -> tuple[Field, ...]:
    """Read the fields from rows, in the order of the model."""
    present = [each for each in dataframes.open_table(given.train).columns if each != given.target]
    names = getattr(model, "feature_names_in_", None)
    chosen = present if names is None else tables.named_fields(list(names), present)
    import narwhals as nw

    table = dataframes.open_table(given.train).select(chosen)
    helper = "\x00target" + "x" * max(map(len, chosen), default=0)
    table = table.with_columns(nw.lit(0.5).alias(helper))
    found = infer_signature(table.to_native(), target=helper, task="regression").fields
    return tuple(
        msgspec.structs.replace(
            field, kind="category", levels=tuple(sorted(told.levels[field.name]))
        )
        if field.name in told.levels
        else field
        for field in found
    )


def _must_fit(model: Boosted, signature: Signature, name: str) -> None:
    names = [field.name for field in signature.fields]
    own = getattr(model, "feature_names_in_", None)
    if own is not None and list(own) != names:
        raise InvalidInput(
            f"{name} takes the fields {', '.join(own)}, and the signature has {', '.join(names)}.",
            "State them by these names, in this order.",
        )
    if model.n_features_in_ != len(names):
        raise InvalidInput(
            f"{name} takes {model.n_features_in_} fields, and there are {len(names)}: "
            f"{', '.join(names)}.",
            "State as many, in the model's order.",
        )


def _take_labels(model: Boosted, signature: Signature) -> None:
    """Let a classifier answer with the labels that a signature states in place of 0, 1, …."""
    labels = signature.output.labels
    count = 0 if model.classes_ is None else len(model.classes_)
    if len(labels or ()) != count:
        raise InvalidInput(
            f"The model knows {count or 'no'} labels, and the signature states "
            f"{len(labels or ())}.",
            "State output.labels with one for each, in the model's order.",
        )
    if labels is not None and model.library != "catboost":
        model.classes_ = np.array(labels)


# ── what a file tells ───────────────────────────────────────────────────────


def _told(model: Boosted, name: str) -> _Told:
    names = getattr(model, "feature_names_in_", None)
    if names is None:
        return _Told(None, {})
    match model.library:
        case "lightgbm":
            return _of_lightgbm(model.booster, list(names), name)
        case "xgboost":
            return _Told(_of_xgboost(model.booster, list(names)), {})
        case "catboost":
            plain = not (model.booster.get_cat_feature_indices() or _texts_of(model.booster))
            return _Told(tuple(_number(each) for each in names) if plain else None, {})


def _texts_of(booster: Any) -> Any:
    return booster.get_text_feature_indices() or booster.get_embedding_feature_indices()


def _number(name: str, bounds: tuple[float, float] | None = None) -> Field:
    """A number of which the file does not say whether it may be missing: every booster takes it."""
    return Field(name=name, kind="number", nullable=True, bounds=bounds)


def _of_lightgbm(booster: Any, names: list[str], name: str) -> _Told:
    infos = booster.dump_model(num_iteration=1)["feature_infos"]
    categories = list(booster.pandas_categorical or [])
    listed = [each for each in names if infos.get(each, {}).get("values")]
    if len(categories) != len(listed):
        return _Told(None, {})
    if any(not isinstance(level, str) for levels in categories for level in levels):
        raise InvalidInput(
            f"{name} has categories that are no texts: {listed}.",
            "Train with categories of texts, or with numbers.",
        )
    levels = {each: tuple(found) for each, found in zip(listed, categories, strict=True)}
    fields = (_lightgbm_field(each, infos.get(each, {}), levels.get(each)) for each in names)
    return _Told(tuple(fields), levels)


def _lightgbm_field(name: str, info: Any, levels: tuple[str, ...] | None) -> Field:
    if levels is not None:
        return Field(name=name, kind="category", nullable=True, levels=tuple(sorted(levels)))
    low, high = info.get("min_value"), info.get("max_value")
    told = low is not None and high is not None and low < high
    return _number(name, (float(low), float(high)) if told else None)


def _of_xgboost(booster: Any, names: list[str]) -> tuple[Field, ...] | None:
    types = booster.feature_types
    if not types or any(each == "c" for each in types):
        return None
    kinds: dict[str, Any] = {"int": "integer", "i": "boolean"}
    return tuple(
        Field(name=each, kind=kinds.get(found, "number"), nullable=True)
        for each, found in zip(names, types, strict=True)
    )


# ── rows ────────────────────────────────────────────────────────────────────


def _made(signature: Signature) -> Any:
    """Make rows that a signature allows, within its bounds."""
    import pandas as pd

    draw, count, columns = np.random.default_rng(0), 70, {}
    for field in signature.fields:
        if field.kind in ("category", "text"):
            columns[field.name] = draw.choice(np.array(field.levels or ("a", "b"), object), count)
        elif field.kind == "boolean":
            columns[field.name] = draw.integers(0, 2, count).astype(bool)
        else:
            low, high = field.bounds or (-2.0, 2.0)
            values = draw.uniform(low, high, count)
            columns[field.name] = np.round(values) if field.kind == "integer" else values
    return pd.DataFrame(columns)


def _as_pandas(table: Any) -> Any:
    return dataframes.open_table(table).to_pandas()


def _table(rows: Any, signature: Signature, told: _Told) -> Any:
    """Give rows the column types that the booster was trained with."""
    import pandas as pd

    columns = {}
    for field in signature.fields:
        values = rows[field.name]
        if field.name in told.levels:
            columns[field.name] = pd.Categorical(values, categories=list(told.levels[field.name]))
        elif field.kind == "category":
            columns[field.name] = pd.Categorical(values, categories=list(field.levels or ()))
        else:
            columns[field.name] = values
    return pd.DataFrame(columns)


def json_library(data: bytes) -> Library | None:
    """Say whose JSON it is: XGBoost's or CatBoost's; None for neither."""
    try:
        found = json.loads(data)
    except (ValueError, RecursionError):
        return None
    if not isinstance(found, dict):
        return None
    if "learner" in found:
        return "xgboost"
    catboost = "features_info" in found and ("oblivious_trees" in found or "trees" in found)
    return "catboost" if catboost else None
