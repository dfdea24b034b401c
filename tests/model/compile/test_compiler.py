"""A model is served as ONNX only where it is verified equal, and the record says on what."""

from __future__ import annotations

import ctypes
import warnings

import numpy as np
import pandas as pd
import polars as pl
import pytest
from sklearn.compose import ColumnTransformer
from sklearn.decomposition import PCA, MiniBatchSparsePCA
from sklearn.dummy import DummyRegressor
from sklearn.ensemble import (
    AdaBoostClassifier,
    BaggingClassifier,
    ExtraTreesRegressor,
    GradientBoostingClassifier,
    HistGradientBoostingClassifier,
    HistGradientBoostingRegressor,
    RandomForestClassifier,
    RandomForestRegressor,
    VotingRegressor,
)
from sklearn.impute import SimpleImputer
from sklearn.kernel_ridge import KernelRidge
from sklearn.linear_model import LogisticRegression, Ridge, RidgeClassifier
from sklearn.naive_bayes import GaussianNB
from sklearn.neighbors import KNeighborsClassifier, RadiusNeighborsTransformer
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import (
    Binarizer,
    FunctionTransformer,
    Normalizer,
    OneHotEncoder,
    OrdinalEncoder,
    PowerTransformer,
    QuantileTransformer,
    StandardScaler,
)
from sklearn.svm import SVC, LinearSVC
from sklearn.tree import DecisionTreeClassifier
from support import PATIENCE_S, TREES_IN_ONNX, needs

from clewline.errors import InvalidInput, NotSupported
from clewline.model.compile import compiler
from clewline.model.compile.compiler import compile_model
from clewline.model.compile.equivalence import BATCH_SIZES
from clewline.model.families.onnx.family import OnnxFamily
from clewline.model.families.sklearn.family import SklearnFamily
from clewline.model.register import convert_model
from clewline.model.runtime.frames import columns_of
from clewline.model.runtime.outputs import FunctionPredictor, predict_in_batches, take_rows
from clewline.model_families import family_named
from clewline.signature.columns import Columns
from clewline.signature.field import Field, Output, Signature

FIELDS = (
    Field(name="amount", kind="number"),
    Field(name="rate", kind="number", nullable=True),
    Field(name="years", kind="integer"),
    Field(name="owner", kind="boolean"),
    Field(name="town", kind="category", nullable=True),
    Field(name="purpose", kind="category", levels=("boat", "car", "home")),
)
PAID = Signature(fields=FIELDS, output=Output(name="paid", task="binary", labels=("no", "yes")))
NUMBERS, TEXTS = ["amount", "rate", "years", "owner"], ["town", "purpose"]
NAMES = [field.name for field in FIELDS]


def prepared(final, *, numbers=None, texts=None):
    numbers = numbers or make_pipeline(SimpleImputer(strategy="median"), StandardScaler())
    texts = texts or make_pipeline(
        SimpleImputer(strategy="most_frequent"), OneHotEncoder(handle_unknown="ignore")
    )
    return make_pipeline(ColumnTransformer([("n", numbers, NUMBERS), ("t", texts, TEXTS)]), final)


def fitted(model, loans, target="paid"):
    return model.fit(loans[NAMES], loans[target])


def compiled(model, loans, signature=PAID, frame="pandas"):
    return compile_model(model, signature, test=loans[450:], train=loans[:450], frame=frame)


def load(result, signature=PAID):
    runtime = OnnxFamily() if result.runtime == "onnx" else SklearnFamily()
    return runtime.load(result.files, signature)


FORESTS = {
    "forest": prepared(RandomForestClassifier(15, random_state=0, n_jobs=2)),
    "tree": prepared(DecisionTreeClassifier(max_depth=4, random_state=0)),
    "boosted": prepared(GradientBoostingClassifier(n_estimators=15, random_state=0)),
    "boosted, exponential": prepared(
        GradientBoostingClassifier(n_estimators=9, loss="exponential", random_state=0)
    ),
    "histogram, own nulls": prepared(
        HistGradientBoostingClassifier(max_iter=15),
        numbers="passthrough",
        texts=OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=np.nan),
    ),
}


@TREES_IN_ONNX
@pytest.mark.parametrize("name", FORESTS)
def test_trees_answer_from_raw_fields_and_are_held_equal(name, loans):
    result = compiled(fitted(FORESTS[name], loans), loans)
    record = result.equality
    assert (result.runtime, record.verified, record.form) == ("onnx", True, "trees on raw fields")
    assert record.rows == 150
    assert record.synthetic_rows == sum(record.synthetic_kinds.values()) > 1000
    assert set(record.synthetic_kinds) == {
        "split thresholds",
        "nulls",
        "texts",
        "mixed",
        "extremes",
    }
    assert record.split_thresholds_tried == record.split_thresholds > 0
    assert record.flips == 0
    assert record.max_difference < 1e-12
    assert record.rows_per_call is None
    assert "verified equal on" in record.sentence


@TREES_IN_ONNX
def test_the_record_names_batch_sizes_with_the_rows_compared_and_only_where_bits_agreed(loans):
    record = compiled(fitted(FORESTS["boosted"], loans), loans).equality
    rows = min(1000, record.rows + record.synthetic_rows)
    assert record.batch_sizes == BATCH_SIZES
    assert record.rows_in_batches == (200, 400, rows, rows, rows)
    assert rows == 1000

    network = prepared(MLPClassifier((50, 50), max_iter=5, random_state=0))
    with warnings.catch_warnings(action="ignore"):
        record = compiled(fitted(network, loans), loans).equality
    agreed = (BATCH_SIZES, (200, 400, 1000, 1000, 1000), None)
    told = (record.batch_sizes, record.rows_in_batches, record.rows_per_call)
    assert told in (agreed, ((), (), 1))


def test_a_row_gives_the_same_bits_whatever_batch_it_stands_in(loans):
    predictor = load(compiled(fitted(FORESTS["boosted"], loans), loans))
    rows = columns_of(loans, PAID)
    whole = predictor.predict(rows)
    for size in (*BATCH_SIZES, 3, 33):
        again = predict_in_batches(predictor.predict, rows, size)
        assert again.probabilities.tobytes() == whole.probabilities.tobytes()
        assert again.choices.tobytes() == whole.choices.tobytes()


def test_null_and_the_text_none_are_told_apart(loans):
    """The encoder here keeps null as a level of its own, beside 'None', 'nan' and ''."""
    texts = OneHotEncoder(handle_unknown="ignore")
    model = fitted(prepared(DecisionTreeClassifier(random_state=0), texts=texts), loans)
    predictor = load(compiled(model, loans))
    rows = columns_of(loans, PAID)
    np.testing.assert_array_equal(
        predictor.predict(rows).probabilities, model.predict_proba(loans[NAMES])
    )
    for text in (None, "None", "nan", "", "Atlantis"):
        asked = loans[NAMES].assign(town=text).astype({"town": "str"})
        found = predictor.predict(columns_of(asked, PAID)).probabilities
        np.testing.assert_array_equal(found, model.predict_proba(asked))


@TREES_IN_ONNX
def test_a_model_of_polars_rows_is_compiled_the_same(loans):
    table = pl.from_pandas(loans)
    texts = make_pipeline(
        SimpleImputer(strategy="most_frequent", missing_values=None),
        OneHotEncoder(handle_unknown="ignore"),
    )
    model = prepared(RandomForestClassifier(10, random_state=0), texts=texts)
    model.fit(table[NAMES], table["paid"].to_numpy())
    result = compiled(model, table, frame="polars")
    assert result.equality.form == "trees on raw fields"
    found = load(result).predict(columns_of(table, PAID)).probabilities
    np.testing.assert_array_equal(found, model.predict_proba(table[NAMES]))


@TREES_IN_ONNX
def test_a_model_of_a_matrix_and_three_classes(loans):
    fields = tuple(field for field in FIELDS if field.name in ("amount", "years"))
    names = [field.name for field in fields]
    grades = np.array(["low", "mid", "top"])[np.digitize(loans["amount"], [2000, 4000])]
    output = Output(name="grade", task="multiclass", labels=("top", "mid", "low"))
    signature = Signature(fields=fields, output=output)
    model = RandomForestClassifier(12, max_depth=4, random_state=0)
    model.fit(loans[names].to_numpy(), grades)
    result = compiled(model, loans, signature, "numpy")
    assert result.equality.form == "trees on raw fields"
    answers = load(result, signature).predict(columns_of(loans, signature))
    in_signature_order = model.predict_proba(loans[names].to_numpy())[:, [2, 1, 0]]
    np.testing.assert_array_equal(answers.probabilities, in_signature_order)
    assert (
        np.array(output.labels)[answers.choices].tolist()
        == model.predict(loans[names].to_numpy()).tolist()
    )


@pytest.mark.parametrize(
    "final",
    [
        pytest.param(ExtraTreesRegressor(10, random_state=0), marks=TREES_IN_ONNX),
        pytest.param(
            HistGradientBoostingRegressor(max_iter=10, loss="poisson"), marks=TREES_IN_ONNX
        ),
        Ridge(),
    ],
    ids=str,
)
def test_regressors(final, loans):
    signature = Signature(fields=FIELDS, output=Output(name="cost", task="regression"))
    costs = loans.assign(cost=loans["amount"] * 2 + loans["years"])
    result = compiled(fitted(prepared(final), costs, "cost"), costs, signature)
    assert result.runtime == "onnx"
    values = load(result, signature).predict(columns_of(costs, signature)).values
    assert values.shape == (600,)
    assert result.equality.max_difference < 1e-12


@pytest.mark.parametrize(
    "final",
    [
        LogisticRegression(),
        LinearSVC(),
        RidgeClassifier(),
    ],
    ids=str,
)
def test_other_estimators_go_through_skl2onnx_behind_our_own_lowering(final, loans):
    result = compiled(fitted(prepared(final), loans), loans)
    assert result.runtime == "onnx"
    assert result.equality.form.startswith("converted by skl2onnx")
    assert result.equality.synthetic_kinds["nulls"] > 0
    assert (load(result).predict(columns_of(loans[:5], PAID)).probabilities is None) == (
        not hasattr(final, "predict_proba")
    )


@pytest.mark.parametrize(
    "final",
    [
        pytest.param(
            AdaBoostClassifier(n_estimators=5, random_state=0),
            marks=needs("scikit-learn", "1.6"),  # an older one warns of its own default
        ),
        BaggingClassifier(n_estimators=3, random_state=0),
        GaussianNB(),
        KNeighborsClassifier(),
        SVC(),
        make_pipeline(PCA(2), RandomForestClassifier(15, random_state=0)),
        make_pipeline(PCA(2), RandomForestRegressor(15, random_state=0)),
        make_pipeline(QuantileTransformer(n_quantiles=50), RandomForestClassifier(15)),
        make_pipeline(Binarizer(), LogisticRegression()),
    ],
    ids=lambda final: " ".join(str(final).split()),
)
def test_what_the_last_bits_could_change_is_served_by_scikit_learn(final):
    target = ROWS[:, 0] * 3 if "Regressor" in str(final) else SIGNS
    compiled, _ = numbers_only(final, ROWS, target)
    assert compiled.runtime == "sklearn"
    assert "may jump where the last bit of a number differs" in compiled.equality.reason


def test_what_onnx_does_not_hold_is_served_by_scikit_learn_with_the_reason(loans):
    numbers = make_pipeline(SimpleImputer(), PowerTransformer())
    model = fitted(prepared(LogisticRegression(), numbers=numbers), loans)
    result = compiled(model, loans)
    assert result.runtime == "sklearn"
    assert not result.equality.verified
    assert "PowerTransformer" in (result.equality.reason or "")
    found = load(result).predict(columns_of(loans[:20], PAID))
    np.testing.assert_allclose(found.probabilities, model.predict_proba(loans[NAMES][:20]), 1e-9)


@TREES_IN_ONNX
def test_an_unseen_level_that_the_model_refuses_is_refused_by_name(loans):
    texts = make_pipeline(SimpleImputer(strategy="most_frequent"), OneHotEncoder())
    predictor = load(
        compiled(fitted(prepared(DecisionTreeClassifier(), texts=texts), loans), loans)
    )
    rows = columns_of(loans[:3], PAID)
    rows.texts[1, 1] = "yacht"
    with pytest.raises(InvalidInput) as refused:
        predictor.predict(rows)
    (problem,) = refused.value.fields
    assert (problem.row, problem.field, problem.value) == (1, "purpose", "yacht")


def test_labels_that_are_not_the_models_are_an_error(loans):
    model = fitted(FORESTS["tree"], loans)
    wrong = Signature(fields=FIELDS, output=Output(name="paid", task="binary", labels=("0", "1")))
    with pytest.raises(InvalidInput, match="answers"):
        compiled(model, loans, wrong)


def test_a_model_with_a_function_of_ones_own_is_refused_with_the_way_out(loans):
    numbers = make_pipeline(SimpleImputer(), FunctionTransformer(_doubled))
    model = fitted(prepared(DecisionTreeClassifier(), numbers=numbers), loans)
    with pytest.raises(NotSupported, match="_doubled"):
        compiled(model, loans)


def test_the_model_that_was_given_is_not_changed(loans):
    model = fitted(prepared(RandomForestClassifier(5, random_state=0, n_jobs=2)), loans)
    compiled(model, loans)
    assert model[-1].n_jobs == 2


@TREES_IN_ONNX
def test_the_adult_forest_is_held_equal_bit_for_bit(adult):
    train, test = adult
    numeric = [n for n in train.columns[:-1] if train[n].dtype == "int64"]
    textual = [n for n in train.columns[:-1] if n not in numeric]
    fields = tuple(
        Field(name=n, kind="integer" if n in numeric else "category", nullable=n in textual)
        for n in train.columns[:-1]
    )
    output = Output(name="income", task="binary", labels=("<=50K", ">50K"))
    signature = Signature(fields=fields, output=output)
    scaled = make_pipeline(SimpleImputer(strategy="median"), StandardScaler())
    encoded = make_pipeline(
        SimpleImputer(strategy="most_frequent"), OneHotEncoder(handle_unknown="ignore")
    )
    transformer = ColumnTransformer([("n", scaled, numeric), ("t", encoded, textual)])
    model = make_pipeline(transformer, RandomForestClassifier(30, random_state=0))
    model.fit(train.drop(columns="income"), train["income"])
    result = compile_model(model, signature, test=test, train=train, frame="pandas")
    record = result.equality
    assert record.verified
    assert record.split_thresholds_tried == record.split_thresholds > 2000
    assert record.synthetic_kinds["split thresholds"] == record.split_thresholds * 5
    assert (record.flips, record.rows) == (0, 900)
    assert record.max_difference < 1e-15
    rows: Columns = take_rows(columns_of(test, signature), slice(0, 50))
    expected = model.predict_proba(test.drop(columns="income")[:50])
    found = load(result, signature).predict(rows).probabilities
    np.testing.assert_array_equal(found[:, 1], expected[:, 1])


def _doubled(x):
    return x * 2


def numbers_only(model, rows: np.ndarray, labels: np.ndarray):
    """Compile a model of two numbers."""
    table = pd.DataFrame(rows, columns=["a", "b"])
    fields = (Field(name="a", kind="number"), Field(name="b", kind="number"))
    names = tuple(sorted(set(labels.tolist())))
    task = "binary" if len(names) == 2 else "regression"
    output = Output(name="y", task=task, labels=names if task == "binary" else None)
    signature = Signature(fields=fields, output=output)
    fitted = model.fit(table, labels)
    return compile_model(fitted, signature, test=table, train=table, frame="pandas"), signature


DRAW = np.random.default_rng(3)
ROWS = DRAW.normal(size=(200, 2)) + 3.0
SIGNS = np.where(ROWS[:, 0] > ROWS[:, 1], "above", "below")


def test_a_form_that_fails_when_it_is_run_falls_back(monkeypatch):
    def fail(*_: object) -> None:
        raise RuntimeError("INVALID_ARGUMENT")

    monkeypatch.setattr(OnnxFamily, "load", lambda *_: FunctionPredictor(fail))
    compiled, _ = numbers_only(LogisticRegression(), ROWS, SIGNS)
    assert compiled.runtime == "sklearn"
    assert "it fails when it is run: INVALID_ARGUMENT" in compiled.equality.reason


def test_a_row_of_zeros_is_answered_as_the_model_answers_it():
    model = make_pipeline(Normalizer(), LogisticRegression())
    compiled, signature = numbers_only(model, ROWS, SIGNS)
    zeros = Columns(np.zeros((1, 2)), np.empty((1, 0), dtype=object))
    predictor = family_named(compiled.runtime).load(compiled.files, signature)
    found = predictor.predict(zeros).probabilities
    frame = pd.DataFrame({"a": [0.0], "b": [0.0]})
    np.testing.assert_allclose(found, model.predict_proba(frame), atol=1e-6)


LOADS = "clewline.model.families.onnx.family.OnnxFamily.load"


def hang(*_: object, **__: object) -> None:
    ctypes.PyDLL(None).sleep(600)  # holds the interpreter


def crash(*_: object, **__: object) -> None:
    ctypes.string_at(0)


def fill(*_: object, **__: object) -> None:
    np.ones(1 << 28)


@pytest.mark.parametrize("place", ["skl2onnx.convert_sklearn", LOADS])
@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        (hang, "the conversion did not end within 1 s"),
        (crash, "the conversion was ended by SIGSEGV"),
        (fill, "the conversion needs more than 1024 MiB of memory"),
    ],
)
def test_a_conversion_that_hangs_or_crashes_is_given_up(monkeypatch, place, fault, reason):
    monkeypatch.setattr(compiler, "CONVERSION_S", 1.0 if fault is hang else PATIENCE_S)
    monkeypatch.setattr(compiler, "CONVERSION_BYTES", 1 << 30)
    monkeypatch.setattr(place, fault)
    compiled, _ = numbers_only(LogisticRegression(), ROWS, SIGNS)
    assert compiled.runtime == "sklearn"
    assert reason in compiled.equality.reason


@pytest.mark.parametrize("cls", ["CatBoostClassifier", "CatBoostRegressor"])
def test_one_row_is_answered_though_the_model_drops_a_dimension(cls):
    """MiniBatchSparsePCA makes a vector of one row, and CatBoost answers it with a vector."""
    catboost = pytest.importorskip("catboost")
    final = getattr(catboost, cls)(iterations=3, verbose=0, allow_writing_files=False)
    model = make_pipeline(MiniBatchSparsePCA(2, max_iter=5, random_state=0), final)
    compiled, signature = numbers_only(model, ROWS, SIGNS if "Class" in cls else ROWS[:, 0] * 3)
    predictor = family_named(compiled.runtime).load(compiled.files, signature)
    found = predictor.predict(Columns(ROWS[:1].copy(), np.empty((1, 0), dtype=object)))
    frame = pd.DataFrame(ROWS[:3], columns=["a", "b"])
    if found.values is None:
        np.testing.assert_allclose(found.probabilities, model.predict_proba(frame)[:1], 1e-9)
    else:
        np.testing.assert_allclose(found.values, model.predict(frame)[:1], 1e-9)


def test_a_model_that_fails_on_single_rows_is_refused_with_the_way_out():
    """CatBoost takes the sparse matrix of distances of many rows, and not that of one."""
    catboost = pytest.importorskip("catboost")
    final = catboost.CatBoostClassifier(iterations=1, verbose=0, allow_writing_files=False)
    with pytest.raises(NotSupported, match="not in smaller calls") as refused:
        numbers_only(make_pipeline(RadiusNeighborsTransformer(), final), ROWS, SIGNS)
    assert "single rows" in refused.value.fix


@pytest.mark.parametrize("scoring", [None, "loss"])
def test_an_estimator_that_refers_to_itself_is_refused_with_the_way_out(scoring):
    boosted = HistGradientBoostingRegressor(max_iter=3, early_stopping=True, scoring=scoring)
    model = VotingRegressor([("a", boosted), ("b", KernelRidge())])
    if scoring:
        assert numbers_only(model, ROWS, ROWS[:, 0])[0].runtime == "sklearn"
        return
    with pytest.raises(NotSupported, match="refers to itself") as refused:
        numbers_only(model, ROWS, ROWS[:, 0])
    assert 'scoring="loss"' in refused.value.fix


def test_a_model_that_gives_several_answers_for_a_row_is_refused():
    """A classifier of labels that may stand together does not list the labels of each target."""
    both = np.column_stack([ROWS[:, 0] > 3, ROWS[:, 1] > 3]).astype(int)
    model = RidgeClassifier().fit(pd.DataFrame(ROWS, columns=["a", "b"]), both)
    table = pd.DataFrame({"a": ROWS[:, 0], "b": ROWS[:, 1], "y": both[:, 0]})
    with pytest.raises(NotSupported, match="400 answers for 200 rows") as refused:
        convert_model(model, train=table, target="y")
    assert refused.value.fix == "Register one model for each target."


def test_a_model_that_gives_several_answers_for_a_row_alone_is_refused():
    """MiniBatchSparsePCA makes a vector of one row, which the regressor takes for several rows."""
    model = make_pipeline(MiniBatchSparsePCA(3, max_iter=5, random_state=0), DummyRegressor())
    with pytest.raises(NotSupported, match="not in smaller calls"):
        numbers_only(model, ROWS, ROWS[:, 0])
