"""
Transformers as operations on single columns.

Numbers are lowered by the arithmetic that each class documents. Texts are lowered by
asking: the fitted transformer itself is called on every level, null and a level that
it has never seen, and the answers are kept as a table. So whatever an encoder does
with unknown, infrequent, dropped or missing levels, the table does too.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clewline.model.compile.form import NotLowered
from clewline.model.compile.track import Code, Lookup, Number, Op, Opaque, Track
from clewline.model.runtime.frames import Layout
from clewline.signature.columns import Columns
from clewline.signature.field import Signature

UNSEEN = "\x00never seen"
MOST_LEVELS = 10_000


def tracks_of(
    signature: Signature, layout: Layout, levels: Sequence[tuple[str, ...]]
) -> list[Track]:
    """Give the raw fields as tracks, in the order of the signature's fields."""
    numeric = {field.name: index for index, field in enumerate(signature.numeric)}
    textual = {field.name: index for index, field in enumerate(signature.textual)}
    tracks: list[Track] = []
    for field in signature.fields:
        if field.name in textual:
            index = textual[field.name]
            values = [*levels[index], layout.null_of(field.name), UNSEEN]
            tracks.append(Code(index, _objects(values)))
        elif field.name in numeric and field.kind != "datetime":
            single = layout.columns[field.name].dtype.lower() == "float32"
            ops = (Op("float32"),) if single else ()
            tracks.append(Number(numeric[field.name], ops, single))
        else:
            tracks.append(Opaque(f"the {field.kind} field {field.name!r} has no lowering"))
    return tracks


def in_order(tracks: list[Track], signature: Signature, first: Any) -> list[Track]:
    """Put the fields' tracks into the order in which an estimator was given its columns."""
    names = getattr(first, "feature_names_in_", None)
    if names is None:
        return tracks
    places = {field.name: index for index, field in enumerate(signature.fields)}
    if unknown := [name for name in names if name not in places]:
        raise NotLowered(f"it reads the columns {unknown}, which are not fields")
    return [tracks[places[name]] for name in names]


def levels_of(signature: Signature, train: Columns, steps: Sequence[Any]) -> list[tuple[str, ...]]:
    """Give the texts of each text field that anything may tell apart, sorted."""
    named = set().union(*(_texts_in(step) for step in steps)) if steps else set()
    levels = []
    for index, field in enumerate(signature.textual):
        seen = {text for text in train.texts[:, index].tolist() if text is not None}
        seen |= set(field.levels or ())
        levels.append((seen, field.name))
    extra = named - set().union(*(seen for seen, _ in levels)) if levels else set()
    for seen, name in levels:
        if len(seen) + len(extra) > MOST_LEVELS:
            raise NotLowered(f"the field {name!r} has more than {MOST_LEVELS:,} different texts")
    return [tuple(sorted(seen | extra)) for seen, _ in levels]


def lower(step: Any, tracks: list[Track]) -> list[Track]:
    """
    Pass columns through a fitted transformer.

    Raises:
        NotLowered: Its class mixes columns or rows, or has no lowering.
    """
    name = type(step).__name__
    known = _LOWERINGS.get(name)
    if known is None or not type(step).__module__.startswith("sklearn."):
        raise NotLowered(f"{name} has no lowering")
    return known(step, tracks)


def _pipeline(step: Any, tracks: list[Track]) -> list[Track]:
    for _, inner in step.steps:
        if inner is not None and inner != "passthrough":
            tracks = lower(inner, tracks)
    return tracks


def _column_transformer(step: Any, tracks: list[Track]) -> list[Track]:
    out: list[Track] = []
    for name, inner, _ in step.transformers_:
        chosen = [tracks[index] for index in step._transformer_to_input_indices[name]]
        if not chosen or (isinstance(inner, str) and inner == "drop"):
            continue
        weight = (step.transformer_weights or {}).get(name)
        if weight is not None:
            raise NotLowered("ColumnTransformer with transformer_weights has no lowering")
        out += chosen if isinstance(inner, str) else lower(inner, chosen)
    return out


def _feature_union(step: Any, tracks: list[Track]) -> list[Track]:
    if step.transformer_weights:
        raise NotLowered("FeatureUnion with transformer_weights has no lowering")
    parts = [inner for _, inner in step.transformer_list if inner != "drop"]
    return [t for part in parts for t in (tracks if part == "passthrough" else lower(part, tracks))]


def _function(step: Any, tracks: list[Track]) -> list[Track]:
    if step.func is not None:
        raise NotLowered("FunctionTransformer with a function has no lowering")
    return tracks


def _imputer(step: Any, tracks: list[Track]) -> list[Track]:
    kept = [
        _imputed(step.missing_values, fill, track)
        for fill, track in zip(step.statistics_.tolist(), tracks, strict=True)
        if not (isinstance(fill, float) and np.isnan(fill))
    ]
    indicated = step.indicator_.features_.tolist() if step.add_indicator else []
    return kept + [_indicator(step.missing_values, tracks[index]) for index in indicated]


def _imputed(missing: Any, fill: Any, track: Track) -> Track:
    if isinstance(track, Number):
        if not _is_nan(missing):
            raise NotLowered(f"SimpleImputer of numbers with missing_values={missing!r}")
        return track.then(Op("fill", float(fill)))
    code = _code(track)
    values = [fill if _is_missing(value, missing) else value for value in code.values.tolist()]
    filled = np.array(values, np.float64) if code.encoded else _objects(values)
    return Code(code.field, filled, code.refused)


def _indicator(missing: Any, track: Track) -> Track:
    if isinstance(track, Number):
        return Number(track.field, (*track.ops, Op("isnan")), track.single)
    code = _code(track)
    found = [float(_is_missing(value, missing)) for value in code.values.tolist()]
    return Code(code.field, np.array(found), code.refused)


def _standard(step: Any, tracks: list[Track]) -> list[Track]:
    return _scaled(
        tracks,
        ("sub", step.mean_ if step.with_mean else None),
        ("div", step.scale_ if step.with_std else None),
    )


def _min_max(step: Any, tracks: list[Track]) -> list[Track]:
    scaled = _scaled(tracks, ("mul", step.scale_), ("add", step.min_))
    limits = (float(step.feature_range[0]), float(step.feature_range[1]))
    return _clipped(scaled, limits) if step.clip else scaled


def _max_abs(step: Any, tracks: list[Track]) -> list[Track]:
    scaled = _scaled(tracks, ("div", step.scale_))
    return _clipped(scaled, (-1.0, 1.0)) if getattr(step, "clip", False) else scaled


def _robust(step: Any, tracks: list[Track]) -> list[Track]:
    return _scaled(
        tracks,
        ("sub", step.center_ if step.with_centering else None),
        ("div", step.scale_ if step.with_scaling else None),
    )


def _scaled(tracks: list[Track], *parts: tuple[Any, NDArray[np.float64] | None]) -> list[Track]:
    out: list[Track] = []
    for index, track in enumerate(tracks):
        ops = [Op(kind, float(values[index])) for kind, values in parts if values is not None]
        out.append(_with_ops(track, ops))
    return out


def _clipped(tracks: list[Track], limits: tuple[float, float]) -> list[Track]:
    return [_with_ops(track, [Op("clip", limits)]) for track in tracks]


def _with_ops(track: Track, ops: list[Op]) -> Track:
    if isinstance(track, Number):
        return track.then(*ops)
    code = _code(track)
    if not code.encoded:
        raise NotLowered("a scaler stands before the encoder of a text")
    return Code(code.field, Number(0, tuple(ops)).apply(code.values), code.refused)


def _encoder(step: Any, tracks: list[Track]) -> list[Track]:
    """Ask the encoder about each value of each column, the others held at a level it knows."""
    candidates = [_candidates(step, index, track) for index, track in enumerate(tracks)]
    base = _objects([categories[0] for categories in step.categories_])
    asked = [_ask(step, base, index, values) for index, values in enumerate(candidates)]
    out: list[Track] = []
    for column, owner in enumerate(_owners([answers for answers, _ in asked])):
        answers, failed = asked[owner]
        out.append(_encoded(tracks[owner], candidates[owner], answers[:, column], failed))
    return out


def _candidates(step: Any, index: int, track: Track) -> NDArray[Any]:
    if isinstance(track, Number):
        keys = [float(key) for key in step.categories_[index] if key is not None]
        known = [key for key in keys if not np.isnan(key)]
        return _objects([*known, max(known, default=0.0) + 1.5, float("nan")])
    return _code(track).values


def _ask(
    step: Any, base: NDArray[Any], column: int, values: NDArray[Any]
) -> tuple[NDArray[np.float64], frozenset[int]]:
    rows = np.empty((len(values), len(base)), dtype=object)
    rows[:] = base
    rows[:, column] = values
    try:
        return _transformed(step, rows), frozenset()
    except (ValueError, TypeError):
        return _ask_each(step, rows)


def _ask_each(step: Any, rows: NDArray[Any]) -> tuple[NDArray[np.float64], frozenset[int]]:
    answers: list[NDArray[np.float64] | None] = []
    for index in range(len(rows)):
        try:
            answers.append(_transformed(step, rows[index : index + 1])[0])
        except (ValueError, TypeError):
            answers.append(None)
    width = next((len(answer) for answer in answers if answer is not None), 0)
    filled = [np.full(width, np.nan) if answer is None else answer for answer in answers]
    return np.array(filled), frozenset(i for i, a in enumerate(answers) if a is None)


def _transformed(step: Any, rows: NDArray[Any]) -> NDArray[np.float64]:
    with warnings.catch_warnings(action="ignore"):
        found = step.transform(rows)
    dense = found.toarray() if hasattr(found, "toarray") else found
    return np.asarray(dense, dtype=np.float64)


def _owners(answers: list[NDArray[np.float64]]) -> list[int]:
    """Say for each output column which input column it depends on."""
    width = answers[0].shape[1]
    varying = np.array([_varies(table) for table in answers])
    if (varying.sum(axis=0) > 1).any():
        raise NotLowered("an encoder mixes columns")
    return [int(varying[:, column].argmax()) for column in range(width)]


def _varies(table: NDArray[np.float64]) -> NDArray[np.bool_]:
    rows = table[~np.isnan(table).all(axis=1)] if len(table) else table
    first = rows[:1]
    varies: NDArray[np.bool_] = ~((rows == first) | (np.isnan(rows) & np.isnan(first))).all(axis=0)
    return varies


def _encoded(
    track: Track, candidates: NDArray[Any], values: NDArray[np.float64], failed: frozenset[int]
) -> Track:
    if isinstance(track, Number):
        if len(candidates) - 2 in failed:
            raise NotLowered("an encoder of numbers refuses unknown ones; train it to ignore them")
        *known, unseen, null = map(float, values)
        told = [(float(key), v) for key, v in zip(candidates, known, strict=False) if v != unseen]
        keys, found = tuple(key for key, _ in told), tuple(value for _, value in told)
        return track.then(Op("lookup", Lookup(keys, found, unseen, null)))
    code = _code(track)
    return Code(code.field, values, code.refused | failed)


def _code(track: Track) -> Code:
    if isinstance(track, Code):
        return track
    assert isinstance(track, Opaque)
    raise NotLowered(track.reason)


def _texts_in(step: Any) -> set[str]:
    """Collect the texts that a fitted transformer knows: categories, fills, what is missing."""
    found: set[str] = set()
    for inner in _parts(step):
        for categories in getattr(inner, "categories_", ()):
            found |= {value for value in categories if isinstance(value, str)}
        for name in ("statistics_", "missing_values"):
            values = np.ravel(np.array(getattr(inner, name, []), dtype=object)).tolist()
            found |= {value for value in values if isinstance(value, str)}
    return found


def _parts(step: Any) -> list[Any]:
    inner = [part[1] for part in getattr(step, "steps", ())]
    inner += [part[1] for part in getattr(step, "transformers_", ())]
    inner += [part[1] for part in getattr(step, "transformer_list", ())]
    return [step, *(found for part in inner for found in _parts(part))]


def _is_missing(value: Any, missing: Any) -> bool:
    if _is_nan(missing):
        return _is_nan(value)
    return value is missing or (type(value) is type(missing) and bool(value == missing))


def _is_nan(value: Any) -> bool:
    return isinstance(value, float) and bool(np.isnan(value))


def _objects(values: Sequence[Any]) -> NDArray[Any]:
    array = np.empty(len(values), dtype=object)
    array[:] = values
    return array


_LOWERINGS: dict[str, Callable[[Any, list[Track]], list[Track]]] = {
    "Pipeline": _pipeline,
    "ColumnTransformer": _column_transformer,
    "FeatureUnion": _feature_union,
    "FunctionTransformer": _function,
    "SimpleImputer": _imputer,
    "StandardScaler": _standard,
    "MinMaxScaler": _min_max,
    "MaxAbsScaler": _max_abs,
    "RobustScaler": _robust,
    "OneHotEncoder": _encoder,
    "OrdinalEncoder": _encoder,
    "TargetEncoder": _encoder,
}
