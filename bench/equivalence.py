"""
Hunts for a served answer that differs from the model's own: random models of every family.

Each model is fitted on a small random table, converted as `cl.register` does it, loaded as a server
loads it, and asked rows that neither has seen: ordinary ones, zeros, huge values, nulls, unknown
levels, and pairs of neighbouring numbers between which the model's own answer jumps.
"""

from __future__ import annotations

import os

os.environ |= dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")

import argparse
import pickle
import secrets
import signal
import sys
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from multiprocessing import get_context
from typing import Any, TypeVar

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from shared.json_answers import json_answers
from shared.keep import keep
from shared.random_pipelines import TARGET, Case, random_case

from clewline.errors import ClewlineError, InvalidInput
from clewline.model.compile import compiler
from clewline.model.compile.equivalence import TOLERANCE
from clewline.model.register import convert_model
from clewline.model_families import family_named
from clewline.signature.check import Checker

PIPELINES, LIMIT_S, CHUNK = 1500, 120, 50
CALLS = 5
"""Calls at each batch size when bits are compared at registration; a hunt is about numbers."""
PAIRS, HALVINGS = 12, 70
REGISTERED, ASKED = 30, 40
"""Models that are also registered in a project and asked over HTTP, and rows of each."""
UNDECIDED = 1e-9
"""Where a model's two best labels are closer than this, its own rounding chooses between them."""

ULPS, NUDGED = 4, 24
"""How far, and how often, numbers at a jump are moved to see whether rounding chooses the side."""

Rows = pd.DataFrame
Found = TypeVar("Found")


@dataclass
class Hunt:
    """What was found."""

    seed: int
    served: Counter[str] = field(default_factory=Counter)
    refused: Counter[str] = field(default_factory=Counter)
    rows: int = 0
    jumps: int = 0
    in_json: int = 0
    differing: list[str] = field(default_factory=list)

    def add(self, other: Hunt) -> None:
        """Count what another part of the hunt found."""
        self.served += other.served
        self.refused += other.refused
        self.rows, self.jumps = self.rows + other.rows, self.jumps + other.jumps
        self.differing += other.differing


@dataclass(frozen=True)
class Answers:
    """Answers to rows: numbers of shape (n, k), and labels or texts of shape (n, j)."""

    numbers: NDArray[np.float64]
    labels: NDArray[Any]

    def row(self, place: int) -> Answers:
        """Return the answer to one row."""
        return Answers(self.numbers[[place]], self.labels[[place]])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pipelines", type=int, default=PIPELINES)
    parser.add_argument("--seed", type=int, default=None, help="repeat a hunt; else a new one")
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--json", action="store_true", help="also ask a server over HTTP")
    parser.add_argument("--only", type=int, help="the place of one model in the hunt")
    parser.add_argument("--keep", action="store_true", help="keep the result in bench/results")
    given = parser.parse_args()
    seed = secrets.randbelow(2**32) if given.seed is None else given.seed
    print(f"seed {seed}", flush=True)
    started = time.perf_counter()
    places = range(given.pipelines) if given.only is None else [given.only]
    found = Hunt(seed)
    pieces = [places[at : at + CHUNK] for at in range(0, len(places), CHUNK)]
    with ThreadPoolExecutor(given.processes) as pool:
        for done, part in enumerate(pool.map(partial(hunt_apart, seed), pieces), start=1):
            found.add(part)
            print(min(done * CHUNK, len(places)), dict(found.served), file=sys.stderr, flush=True)
            print(*part.differing, sep="\n", end="", file=sys.stderr, flush=True)
    if given.json:
        ask_in_json(seed, places[:: max(1, len(places) // REGISTERED)], found)
    seconds = time.perf_counter() - started
    figures = {
        "seed": seed,
        "pipelines": len(places),
        "seconds": round(seconds),
        "served": dict(sorted(found.served.items())),
        "refused": dict(found.refused.most_common()),
        "rows": found.rows,
        "rows asked in JSON": found.in_json,
        "rows where an answer jumps": found.jumps,
        "differing": found.differing,
    }
    print(*(f"{name}: {value}" for name, value in figures.items()), sep="\n")
    if given.keep:
        libraries = ("scikit-learn", "lightgbm", "xgboost-cpu", "catboost", "skl2onnx")
        keep("equivalence", figures, versions=("onnxruntime", "numpy", *libraries))
    return bool(found.differing)


def hunt_apart(seed: int, places: Sequence[int]) -> Hunt:
    """Try the models of some places in a process of their own; one may crash it."""
    try:
        return _in_process(hunt, seed, places)
    except BrokenProcessPool:
        found = Hunt(seed)
    if len(places) > 1:
        for place in places:
            found.add(hunt_apart(seed, [place]))
        return found
    try:
        _in_process(fit, seed, places)
        found.differing.append(f"--seed {seed} --only {places[0]}: the process crashes")
    except BrokenProcessPool:
        found.refused["its library crashes when it is fitted"] += 1
    return found


def _in_process(function: Callable[[int, Sequence[int]], Found], *given: Any) -> Found:
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(function, *given).result()


def fit(seed: int, places: Sequence[int]) -> None:
    """Fit the model of a place and let it answer, without anything of clewline's."""
    case = random_case(seed, places[0])
    own_answer(case, case.rows)


def hunt(seed: int, places: Sequence[int]) -> Hunt:
    """Try the models of some places."""
    compiler.OWN_CALLS, compiler.ONNX_CALLS = CALLS, CALLS
    found = Hunt(seed)
    for place in places:
        try:
            with (
                time_limit(LIMIT_S),
                warnings.catch_warnings(action="ignore"),
                np.errstate(all="ignore"),
            ):
                case = random_case(seed, place)
                _try(case, found, place)
        except TimeoutError:
            found.refused[f"not done within {LIMIT_S} s"] += 1
        except Exception as error:
            where = "".join(traceback.format_exception(error)[-2:])
            found.differing.append(f"--seed {seed} --only {place}: {where}")
    return found


def _try(case: Case, found: Hunt, place: int) -> None:
    half = len(case.train) // 2
    test = case.train[half:] if place % 2 else None
    try:
        registered = case.model if case.bare is None else case.bare
        made = convert_model(registered, train=case.train, test=test, target=TARGET)
    except ClewlineError as error:
        found.refused[f"{type(error).__name__}: {error.message[:70]}"] += 1
        return
    if case.several:
        found.differing.append(f"--seed {found.seed} --only {place}: not refused: {case.title}")
        return
    form = made.compiled.equality.form
    found.served[f"{made.compiled.runtime}: {form}"] += 1
    loaded = family_named(made.compiled.runtime).load(made.compiled.files, made.signature)
    rows = case.rows
    jumps = _jumps(case, rows)
    found.jumps += len(jumps)
    scale = _scale(case)
    # The library itself may answer by the other side of a jump: memory is laid out differently.
    sides = not made.compiled.equality.verified
    for kind, each in (("unseen", rows), ("at a jump", jumps)):
        either = sides and kind == "at a jump"
        for reason in differences(case, made.signature, loaded, each, scale, found, either=either):
            text = f"--seed {found.seed} --only {place}: {kind}: {reason} [{form}] {case.title}"
            found.differing.append(text)
    loaded.close()


def differences(
    case: Case, signature: Any, loaded: Any, rows: Rows, scale: Any, found: Hunt, *, either: bool
) -> Iterator[str]:
    """
    Yield how served answers differ from the model's own.

    The model is asked for all rows together; where that differs, also for each row alone, and a
    pickled copy of it, as its own bits depend on the rows beside a row and on the layout of its
    arrays in memory. With `either`, the answer on the other side of a jump counts as its own: the
    second half of the rows are the neighbours of the first.
    """
    if either:
        first, second = np.split(np.arange(len(rows)), 2)
        other = dict(zip([*first, *second], [*second, *first], strict=True))
    kept = _accepted(signature, rows, range(len(rows)))
    own = own_answer(case, rows.iloc[kept]) if kept else None
    if own is None:  # a row that the model refuses hides the others
        kept = [i for i in kept if own_answer(case, rows.iloc[[i]]) is not None]
        own = own_answer(case, rows.iloc[kept]) if kept else None
    if own is None:
        return
    found.rows += len(kept)
    asked = rows.iloc[kept]
    try:
        served = served_answer(case, signature, loaded, asked)
    except InvalidInput as error:
        # A model that iterates over all rows may answer a row among others and refuse it alone.
        alone_too = [i for i in kept if own_answer(case, rows.iloc[[i]]) is not None]
        if len(alone_too) < len(kept):
            found.rows -= len(kept)
            yield from differences(
                case, signature, loaded, rows.iloc[alone_too], scale, found, either=False
            )
            return
        yield f"a row is refused that the model answers: {error.message}"
        return
    decided = ~_undecided(case, asked)
    for at in np.flatnonzero(_differ(own, served, scale, decided)).tolist():
        sides = [kept[at], other[kept[at]]] if either else [kept[at]]
        alone = [own_answer(each, rows.iloc[[s]]) for s in sides for each in (case, _copy(case))]
        if either:
            nudged = own_answer(case, _nudged(asked.iloc[[at]]))
            alone += [nudged.row(place) for place in range(NUDGED)] if nudged else []
        said = served.row(at)
        if any(each and not _differ(each, said, scale, decided[[at]])[0] for each in alone):
            continue
        yield (
            f"{asked.iloc[at].to_dict()} is {own.numbers[at].tolist()} {own.labels[at].tolist()}, "
            f"served {served.numbers[at].tolist()} {served.labels[at].tolist()}"
        )
        return


def _copy(case: Case) -> Case:
    return replace(case, model=pickle.loads(pickle.dumps(case.model)))


def _nudged(row: Rows) -> Rows:
    """Move every number of a row by a few units in the last place, in many ways."""
    draw = np.random.default_rng(0)
    rows = row.iloc[np.zeros(NUDGED, dtype=int)].reset_index(drop=True)
    for name in rows:
        if rows[name].dtype.kind == "f":
            values = rows[name].to_numpy()
            rows[name] = values + draw.integers(-ULPS, ULPS + 1, NUDGED) * np.spacing(values)
    return rows.astype(row.dtypes)


def _differ(own: Answers, served: Answers, scale: Any, decided: Any) -> NDArray[np.bool_]:
    other_label = (own.labels != served.labels).any(axis=1)
    found: NDArray[np.bool_] = _apart(own, served, scale) | (other_label & decided)
    return found


def own_answer(case: Case, rows: Rows) -> Answers | None:
    """Return what the model itself says; None if it refuses."""
    model, given = case.model, case.given(rows)
    try:
        if not hasattr(model, "predict"):
            made = model.transform(given)
            dense = made.toarray() if hasattr(made, "toarray") else np.asarray(made)
            return Answers(np.asarray(dense, dtype=np.float64).reshape(len(rows), -1), _none(rows))
        said = np.asarray(model.predict(given)).reshape(-1)
        if not hasattr(model, "classes_") or case.is_regression:
            return Answers(said.astype(np.float64).reshape(-1, 1), _none(rows))
        shares = (
            model.predict_proba(given)
            if hasattr(model, "predict_proba")
            else np.zeros((len(rows), 0))
        )
    except Exception:  # a library refuses rows by any error
        return None
    return Answers(np.asarray(shares, np.float64), said.astype(str).reshape(-1, 1))


def served_answer(case: Case, signature: Any, loaded: Any, rows: Rows) -> Answers:
    """Return what is served."""
    columns = Checker(signature).table(rows).columns
    output = signature.output
    if output.task == "transform":
        made, result = loaded.transform(columns), signature.transformed
        assert not result.textual
        return Answers(made.numbers, _none(rows))
    found = loaded.predict(columns)
    if output.task == "regression":
        return Answers(found.values.reshape(-1, 1), _none(rows))
    labels = np.array([str(label) for label in output.labels], dtype=object)
    said = labels[found.choices].reshape(-1, 1).astype(str)
    if found.probabilities is None:
        return Answers(np.zeros((len(rows), 0)), said)
    order = [labels.tolist().index(str(label)) for label in np.asarray(case.model.classes_)]
    return Answers(found.probabilities[:, order], said)


def _accepted(signature: Any, rows: Rows, places: Any) -> list[int]:
    """Return the places of the rows that an endpoint does not refuse."""
    try:
        Checker(signature).table(rows)
        return list(places)
    except InvalidInput as error:
        bad = {problem.row for problem in error.fields}
        return [place for place in places if place not in bad]


def _none(rows: Rows) -> NDArray[Any]:
    return np.empty((len(rows), 0), dtype=str)


def _scale(case: Case) -> Any:
    """Return what differences of numbers are relative to: 1 for shares, else the largest."""
    if hasattr(case.model, "predict") and not case.is_regression:
        return 1.0
    answers = own_answer(case, case.train_rows)
    if answers is None:
        return 1.0
    finite = np.where(np.isfinite(answers.numbers), np.abs(answers.numbers), 0.0)
    found = finite.max(axis=0, initial=0.0)
    return np.where(found == 0, 1.0, found)


def _apart(own: Answers, served: Answers, scale: Any) -> NDArray[np.bool_]:
    one, other = own.numbers, served.numbers
    if one.shape != other.shape:
        return np.ones(len(one), dtype=bool)
    equal = (one == other) | (np.isnan(one) & np.isnan(other))
    gaps = np.abs(one - other) / np.maximum(scale, np.abs(one))
    return (~equal & ~(gaps <= TOLERANCE)).any(axis=1)


def _undecided(case: Case, rows: Rows) -> NDArray[np.bool_]:
    """Say where the model's two best labels are closer than rounding."""
    model, given = case.model, case.given(rows)
    for method in ("predict_proba", "decision_function"):
        if hasattr(model, method):
            scores = np.asarray(getattr(model, method)(given), dtype=np.float64)
            if scores.ndim == 1:
                return np.abs(scores) <= UNDECIDED
            best = np.sort(scores, axis=1)[:, -2:]
            return best[:, 1] - best[:, 0] <= UNDECIDED * np.maximum(np.abs(best[:, 1]), 1.0)
    return np.zeros(len(rows), dtype=bool)


def ask_in_json(seed: int, places: Sequence[int], found: Hunt) -> None:
    """Register some of the models, serve them, and compare what the server answers."""
    cases = {}
    for place in places:
        with warnings.catch_warnings(action="ignore"):
            case = random_case(seed, place)
        if hasattr(case.model, "predict"):
            cases[f"m{place}"] = case
    for name, predictions in json_answers(cases, ASKED).items():
        case = cases[name]
        for at, prediction in enumerate(predictions):
            row = case.rows.iloc[[at]]
            own, served = own_answer(case, row), _answer_of(case, prediction)
            if own is None:
                continue
            found.in_json += 1
            decided = ~_undecided(case, row)
            if _differ(own, served, _scale(case), decided)[0]:
                text = f"--seed {seed} --only {name[1:]}: in JSON: {row.iloc[0].to_dict()}"
                found.differing.append(f"{text}: {own}, served {prediction} {case.title}")


def _answer_of(case: Case, prediction: dict[str, Any]) -> Answers:
    if "label" not in prediction:
        value = prediction["value"]
        return Answers(np.array([[np.nan if value is None else value]]), np.empty((1, 0), str))
    shares = prediction.get("probabilities") or {}
    names = [_as_key(label) for label in case.model.classes_]
    order = [shares[name] for name in names] if shares else []
    return Answers(np.array([order], np.float64), np.array([[str(prediction["label"])]]))


def _as_key(label: Any) -> str:
    """Return a label as the key of a JSON object."""
    return str(label).lower() if isinstance(label, bool | np.bool_) else str(label)


# ── where the model's own answer jumps ──────────────────────────────────────


def _jumps(case: Case, rows: Rows) -> Rows:
    """
    Halve the way between pairs of rows towards the larger change of the model's answer.

    What is left are neighbouring numbers: at a split, wherever in the model it is.
    """
    names = [n for n in rows if rows[n].dtype.kind == "f"]
    if not names:
        return rows[:0]
    draw = np.random.default_rng(0)
    base = rows.iloc[draw.integers(0, 40, PAIRS)].reset_index(drop=True)
    low = base[names].to_numpy(np.float64, copy=True)
    high = rows.iloc[draw.integers(0, 40, PAIRS)][names].to_numpy(np.float64, copy=True)
    for place in range(0, PAIRS, 2):  # every other pair differs in one column alone
        kept = np.arange(len(names)) != place // 2 % len(names)
        high[place, kept] = low[place, kept]

    def at(values: NDArray[np.float64]) -> Rows:
        moved = {n: values[:, i].astype(rows[n].dtype) for i, n in enumerate(names)}
        return base.assign(**moved)

    bottom, top = _flat(case, at(low)), _flat(case, at(high))
    if bottom is None or top is None:
        return rows[:0]
    single = np.array([rows[n].dtype == np.float32 for n in names])
    for _ in range(HALVINGS):
        middle = low + (high - low) / 2
        middle[:, single] = middle[:, single].astype(np.float32)
        moving = ((middle != low) & (middle != high)).any(axis=1) & np.isfinite(middle).all(axis=1)
        # A steady answer changes by nothing in the end; a jump stays.
        moving &= np.nansum(np.abs(top - bottom), axis=1) > TOLERANCE
        if not moving.any():
            break
        found = _flat(case, at(middle))
        if found is None:
            return rows[:0]
        left, right = (np.nansum(np.abs(found - end), axis=1) for end in (bottom, top))
        upper, lower = moving & (left >= right), moving & (left < right)  # which end moves here
        high[upper], top[upper] = middle[upper], found[upper]
        low[lower], bottom[lower] = middle[lower], found[lower]
    jumped = np.nansum(np.abs(top - bottom), axis=1) > TOLERANCE
    return pd.concat([at(low)[jumped], at(high)[jumped]], ignore_index=True)


def _flat(case: Case, rows: Rows) -> NDArray[np.float64] | None:
    found = own_answer(case, rows)
    if found is None:
        return None
    if found.labels.size and not found.numbers.size:
        known = {str(label): place for place, label in enumerate(case.model.classes_)}
        return np.array([[float(known[each])] for each in found.labels[:, 0]])
    return found.numbers.copy()


@contextmanager
def time_limit(seconds: int) -> Iterator[None]:
    """Raise TimeoutError in the block after a time."""

    def over(*_: Any) -> None:
        raise TimeoutError

    before = signal.signal(signal.SIGALRM, over)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


if __name__ == "__main__":
    sys.exit(main())
