"""A saved value comes back equal and with the same digest, or it is refused."""

import datetime as dt
import decimal
import inspect
import io
import json
import subprocess
import sys
import zoneinfo
from dataclasses import dataclass

import msgspec
import numpy as np
import pandas as pd
import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from polars.testing import assert_frame_equal
from polars.testing.parametric import dataframes
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import (
    GradientBoostingRegressor,
    HistGradientBoostingClassifier,
    RandomForestClassifier,
)
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.naive_bayes import GaussianNB
from sklearn.neighbors import KNeighborsClassifier
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder, StandardScaler
from sklearn.svm import SVC

from clewline.errors import IntegrityError, NotFound, NotStorable, NotSupported
from clewline.flow import values
from clewline.flow.handle import StepOutput
from clewline.store import Store
from clewline.store.digest import digest_bytes
from clewline.store.doctor import check_store

KEEPS_HEIGHT = "height" in inspect.signature(pl.DataFrame).parameters
"""Whether a table without columns may have rows: with Polars 1.20 it has none."""

QUIET = settings(
    max_examples=60,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


@pytest.fixture
def blobs(tmp_path):
    with Store.create(tmp_path / "store") as store:
        yield store.blobs


@pytest.fixture
def shapes(tmp_path, monkeypatch):
    """A module of a project with data classes."""
    (tmp_path / "shapes.py").write_text(
        "import enum\nfrom dataclasses import dataclass\nimport msgspec\nimport polars as pl\n\n\n"
        "class Colour(enum.Enum):\n    RED = 1\n    BLUE = 2\n\n\n"
        "@dataclass(frozen=True)\nclass Point:\n    x: float\n    inner: object = None\n\n\n"
        "class Rule(msgspec.Struct):\n    name: str\n    points: list\n\n\n"
        "class Plain:\n    pass\n\n\n"
        "class Rights(enum.Flag):\n    READ = 1\n    WRITE = 2\n\n\n"
        "class Counted(msgspec.Struct):\n    n: int\n\n"
        "    def __post_init__(self):\n        self.n += 1\n\n\n"
        "class Open(msgspec.Struct, dict=True):\n    n: int\n\n\n"
        "@dataclass\nclass Derived:\n    n: int\n\n"
        "    def __post_init__(self):\n        self.twice = self.n * 2\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    import shapes

    yield shapes
    del sys.modules["shapes"]


def round_trip(value, blobs):
    artifact = values.save(value, blobs)
    loaded = values.load(artifact, blobs)
    assert values.digest(value) == artifact.digest == values.digest(loaded)
    assert type(loaded) is type(value)
    return loaded, artifact


# ── JSON values ─────────────────────────────────────────────────────────────

SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.complex_numbers()
    | st.text(st.characters())
    | st.binary()
    | st.binary().map(bytearray)
    | st.dates()
    | st.times()
    | st.datetimes(
        timezones=st.none() | st.just(dt.UTC) | st.just(zoneinfo.ZoneInfo("Europe/Oslo"))
    )
    | st.timedeltas()
    | st.decimals()
    | st.fractions()
    | st.uuids()
)
HASHABLE = st.none() | st.booleans() | st.integers() | st.text() | st.binary() | st.dates()
VALUES = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.lists(inner, max_size=4).map(tuple)
        | st.dictionaries(HASHABLE | st.just("$"), inner, max_size=4)
        | st.sets(HASHABLE, max_size=4)
        | st.frozensets(HASHABLE, max_size=4)
    ),
    max_leaves=10,
)


def described(value):
    """A text that tells types, signs, order of dicts; every NaN is one, sets are sorted."""
    if isinstance(value, list | tuple):
        return f"{type(value).__name__}{[described(part) for part in value]}"
    if isinstance(value, set | frozenset):
        return f"{type(value).__name__}{sorted(described(part) for part in value)}"
    if isinstance(value, dict):
        return f"dict{[(described(key), described(part)) for key, part in value.items()]}"
    return f"{type(value).__name__} {value!r}"


@given(VALUES)
@QUIET
def test_a_json_value_comes_back_the_same(blobs, value):
    loaded, artifact = round_trip(value, blobs)
    assert described(loaded) == described(value)
    assert artifact.kind == "json"


@given(VALUES, VALUES)
@QUIET
def test_values_share_a_digest_only_when_python_cannot_distinguish_them(one, two):
    assert (values.digest(one) == values.digest(two)) == (described(one) == described(two))


def test_tables_and_arrays_inside_of_json_values_are_stored_too(blobs):
    value = {"table": pl.DataFrame({"a": [1]}), "list": [np.arange(3)], "auc": 0.9}
    loaded, artifact = round_trip(value, blobs)
    assert_frame_equal(loaded["table"], value["table"])
    assert loaded["list"][0].tolist() == [0, 1, 2]
    inner = set(values.INSIDE["json"](blobs.get(artifact.blob)))
    assert len(inner) == 2
    assert all(blobs.has(digest) for digest in inner)


def test_a_stored_json_value_is_readable_json(blobs):
    artifact = values.save({"a": [1, "x", None, True, 0.5]}, blobs)
    assert json.loads(blobs.get(artifact.blob)) == {"a": [1, "x", None, True, 0.5]}


def test_the_doctor_reports_a_missing_part_of_a_stored_value(tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "part.txt").write_text("part")
    with Store.create(tmp_path / "store") as store:
        table = values.save({"table": pl.DataFrame({"a": [1]})}, store.blobs)
        folder = values.save(tmp_path / "folder", store.blobs)
        store.record(table, folder)
        listed = store.blobs.get(folder.blob)
        forged = listed.replace(digest_bytes(b"part").encode(), digest_bytes(b"gone").encode())
        broken = msgspec.structs.replace(
            folder, digest=digest_bytes(b"other"), blob=store.blobs.put(forged)
        )
        assert check_store(store.root, inside=values.INSIDE) == []
        store.record(broken)
    found = check_store(tmp_path / "store", inside=values.INSIDE)
    assert [finding.code for finding in found] == ["missing_blob"]


# ── arrays ──────────────────────────────────────────────────────────────────

DTYPES = (
    npst.boolean_dtypes()
    | npst.integer_dtypes(endianness="?")
    | npst.floating_dtypes(endianness="?", sizes=(16, 32, 64))
    | npst.complex_number_dtypes(sizes=(64, 128))
    | npst.datetime64_dtypes()
    | npst.unicode_string_dtypes()
)


@given(npst.arrays(DTYPES, npst.array_shapes(min_dims=0, min_side=0, max_side=4)))
@QUIET
def test_an_array_comes_back_the_same(blobs, array):
    loaded, _ = round_trip(array, blobs)
    np.testing.assert_array_equal(loaded, array)
    assert loaded.dtype == array.dtype
    assert loaded.shape == array.shape


@given(npst.arrays(np.float64, npst.array_shapes(min_dims=2, max_dims=3)))
@QUIET
def test_the_layout_in_memory_does_not_count(array):
    assert values.digest(np.asfortranarray(array)) == values.digest(array)
    assert values.digest(array[::-1][::-1]) == values.digest(array)


def test_bytes_between_the_fields_of_a_structured_array_do_not_count(blobs):
    dtype = np.dtype([("a", "i1"), ("b", "f8")], align=True)
    one, two = np.frombuffer(b"\0" * 32, dtype).copy(), np.frombuffer(b"\xff" * 32, dtype).copy()
    two["a"], two["b"] = 0, 0.0
    assert values.digest(one) == values.digest(two)
    round_trip(one, blobs)


@pytest.mark.parametrize(
    "scalar", [np.float64(1.5), np.int8(3), np.bool_(True), np.str_("x"), np.datetime64("2020")]
)
def test_a_numpy_scalar_comes_back_the_same(blobs, scalar):
    assert round_trip(scalar, blobs)[0] == scalar


# ── tables ──────────────────────────────────────────────────────────────────


FOREIGN = [pl.Extension] if hasattr(pl, "Extension") else []  # types of plug-ins: refused
if pl.Decimal(None, 0).precision is None:  # an old Polars reads the largest precision back
    FOREIGN.append(pl.Decimal)
FEW = settings(QUIET, max_examples=25)


@given(dataframes(max_cols=4, max_size=5, allow_chunks=True, excluded_dtypes=FOREIGN))
@FEW
def test_a_polars_table_comes_back_the_same(blobs, frame):
    loaded, artifact = round_trip(frame, blobs)
    assert_frame_equal(loaded, frame, categorical_as_str=True)
    assert (artifact.rows, artifact.columns) == frame.shape


@given(
    dataframes(
        min_cols=1, max_cols=3, min_size=2, max_size=5, allow_chunks=False, excluded_dtypes=FOREIGN
    ),
    st.data(),
)
@FEW
def test_chunks_do_not_count(frame, data):
    at = data.draw(st.integers(1, frame.height - 1))
    parts = pl.concat([frame[:at], frame[at:]], rechunk=False)
    assert values.digest(parts) == values.digest(frame)
    assert values.digest(frame[:at]) != values.digest(frame)


def test_the_codes_of_categories_do_not_count():
    forth = pl.Series("c", ["a", "b", None]).cast(pl.Categorical)
    back = pl.concat([pl.Series("c", ["b", "a"]), pl.Series("c", ["b", None])]).cast(pl.Categorical)
    assert values.digest(back[1:]) == values.digest(forth)


def test_values_under_a_null_do_not_count():
    mask = pl.Series([True, False])
    one = pl.DataFrame({"x": [1.0, 2.0]}).select(pl.when(mask).then("x"))
    two = pl.DataFrame({"x": [1.0, 3.0]}).select(pl.when(mask).then("x"))
    assert values.digest(one) == values.digest(two)


def test_the_bits_of_a_nan_do_not_count_but_null_is_no_nan():
    bits = np.array([0x7FF8000000000001, 0xFFF8000000000000], "u8").view("f8")
    plain = pl.DataFrame({"x": [float("nan")] * 2})
    assert values.digest(pl.DataFrame({"x": bits})) == values.digest(plain)
    assert values.digest(pl.DataFrame({"x": [None, None]}, {"x": pl.Float64})) != values.digest(
        plain
    )


LOOK_ALIKES = [
    pl.DataFrame({"a": [1, 2]}),
    pl.DataFrame({"a": [1.0, 2.0]}),
    pl.DataFrame({"a": ["1", "2"]}),
    pl.DataFrame({"b": [1, 2]}),
    pl.DataFrame({"a": [2, 1]}),
    pl.DataFrame({"a": [1, None]}),
    pl.DataFrame({"a": [1, 0]}),
    pl.DataFrame({"a": [1, 2], "b": [1, 2]}),
    pl.DataFrame({"b": [1, 2], "a": [1, 2]}),
    pl.DataFrame({"a": ["12", ""]}),
    pl.DataFrame({"a": ["1", "2"]}, {"a": pl.Enum(["1", "2"])}),
    pl.DataFrame({"a": ["1", "2"]}, {"a": pl.Enum(["2", "1"])}),
    pl.DataFrame({"a": [[1], [2]]}),
    pl.DataFrame({"a": [[1, 2], []]}),
    pl.DataFrame({"a": [[1, 2], None]}),
    pl.DataFrame({"a": [0.0]}),
    pl.DataFrame({"a": [-0.0]}),
    pl.DataFrame({"a": []}),
    pl.DataFrame(),
    *([pl.DataFrame(height=2)] if KEEPS_HEIGHT else []),
    pd.DataFrame({"a": [1, 2]}),
    pd.DataFrame({"a": [1, 2]}, index=[1, 2]),
    pd.DataFrame({"a": [1, 2]}, index=pd.Index([0, 1], name="i")),
    pl.Series("a", [1, 2]),
    pd.Series([1, 2], name="a"),
    np.array([1, 2]),
    [1, 2],
]


def test_tables_that_differ_have_different_digests():
    assert len({values.digest(table) for table in LOOK_ALIKES}) == len(LOOK_ALIKES)


PANDAS = {
    "numbers": pd.DataFrame({"a": [1, 2], "b": [0.5, np.nan]}),
    "texts": pd.DataFrame({"a": ["x", None, "z"]}),
    "object texts": pd.DataFrame({"a": np.array(["x", None], object)}),
    "a column of objects": pd.DataFrame(
        {"a": pd.Series(["x", None], dtype=object), "b": ["p", "q"]}
    ),
    "categories": pd.DataFrame(
        {"c": pd.Categorical(["b", None, "a"], ["b", "a", "unused"], ordered=True)}
    ),
    "nullable": pd.DataFrame(
        {"i": pd.array([1, None], "Int64"), "b": pd.array([True, None], "boolean")}
    ),
    "times": pd.DataFrame({"t": pd.to_datetime(["2020-01-01", None], utc=True)}),
    "named index": pd.DataFrame({"a": [1, 2]}, index=pd.Index(["x", "y"], name="id")),
    "date index": pd.DataFrame({"a": [1, 2]}, index=pd.date_range("2020", periods=2, freq="D")),
    "two levels": pd.DataFrame({"a": [1, 2]}, index=[["x", "y"], [1, 2]]),
    "numbered columns": pd.DataFrame([[1, 2], [3, 4]]),
    "empty": pd.DataFrame({"a": pd.Series([], dtype="int64")}),
}


@pytest.mark.parametrize("frame", PANDAS.values(), ids=PANDAS)
def test_a_pandas_table_comes_back_the_same(blobs, frame):
    loaded, artifact = round_trip(frame, blobs)
    pd.testing.assert_frame_equal(loaded, frame)
    assert artifact.rows == len(frame)


def test_a_series_comes_back_the_same(blobs):
    for series in (pl.Series("s", [1, None]), pl.Series([b"x"])):
        assert round_trip(series, blobs)[0].equals(series, null_equal=True)
    for series in (pd.Series([1.5, None], name="s"), pd.Series(["a"], name=("x", 1))):
        pd.testing.assert_series_equal(round_trip(series, blobs)[0], series)


# ── objects of the project ──────────────────────────────────────────────────


def test_data_classes_of_the_project_come_back_the_same(blobs, shapes):
    value = shapes.Rule("r", [shapes.Point(0.5, shapes.Colour.BLUE), shapes.Point(-0.0)])
    loaded, artifact = round_trip(value, blobs)
    assert loaded == value
    assert artifact.meta["types"] == ["shapes:Colour", "shapes:Point", "shapes:Rule"]


def test_flags_come_back_the_same_even_none_or_several(blobs, shapes):
    for value in (shapes.Rights.READ, shapes.Rights.READ | shapes.Rights.WRITE, shapes.Rights(0)):
        assert round_trip([value], blobs)[0] == [value]


def test_a_struct_comes_back_as_it_was_whatever_its_constructor_does(blobs, shapes):
    assert round_trip(shapes.Counted(1), blobs)[0].n == 2


@pytest.mark.parametrize("name", ["Derived", "Open"])
def test_extra_attributes_of_an_object_come_back(blobs, shapes, name):
    value = getattr(shapes, name)(3)
    value.twice = 7
    loaded, _ = round_trip(value, blobs)
    assert (loaded.n, loaded.twice) == (3, 7)
    value.twice = 8
    assert values.digest(value) != values.digest(loaded)


def test_a_class_that_is_no_data_class_is_refused(blobs, shapes):
    with pytest.raises(NotStorable, match=r"shapes\.Plain.*store_output=False"):
        values.save(shapes.Plain(), blobs)


@pytest.mark.parametrize("path", ["os:system", "subprocess:Popen", "shapes:Plain", "nowhere:Thing"])
def test_a_stored_value_cannot_name_a_class_that_is_not_the_projects_own(blobs, shapes, path):
    artifact = values.save(shapes.Point(1.0), blobs)
    forged = blobs.get(artifact.blob).replace(b"shapes:Point", path.encode())
    false = msgspec.structs.replace(artifact, blob=blobs.put(forged))
    with pytest.raises(IntegrityError):
        values.load(false, blobs)


# ── models ──────────────────────────────────────────────────────────────────

RANDOM = np.random.default_rng(0)
X = RANDOM.normal(size=(60, 3))
Y = (X[:, 0] > 0).astype(int)


MODELS = {
    "forest": lambda: RandomForestClassifier(5, random_state=0).fit(X, Y),
    "boosting": lambda: GradientBoostingRegressor(n_estimators=3, random_state=0).fit(X, Y),
    "histograms": lambda: HistGradientBoostingClassifier(max_iter=3, random_state=0).fit(X, Y),
    "linear": lambda: LogisticRegression().fit(X, Y),
    "bayes": lambda: GaussianNB().fit(X, Y),
    "neighbours": lambda: KNeighborsClassifier(3).fit(X, Y),
    "vectors": lambda: SVC(random_state=0).fit(X, Y),
    "network": lambda: MLPClassifier((4,), max_iter=400, tol=1, random_state=0).fit(X, Y),
    "pipeline": lambda: make_pipeline(
        ColumnTransformer(
            [
                ("n", make_pipeline(SimpleImputer(), StandardScaler()), [0, 1]),
                ("c", OneHotEncoder(), [2]),
            ]
        ),
        FunctionTransformer(np.log1p, validate=False),
    ).fit(np.abs(np.round(X))),
    "not fitted": lambda: RandomForestClassifier(7),
}


@pytest.mark.parametrize("make", MODELS.values(), ids=MODELS)
def test_a_model_comes_back_with_its_digest_and_two_fits_share_it(blobs, make):
    model = make()
    loaded, artifact = round_trip(model, blobs)
    assert values.digest(make()) == artifact.digest
    if hasattr(model, "predict_proba") and hasattr(model, "classes_"):
        assert (loaded.predict_proba(X) == model.predict_proba(X)).all()


def test_models_that_differ_have_different_digests():
    models = [
        RandomForestClassifier(5, random_state=0).fit(X, Y),
        RandomForestClassifier(5, random_state=1).fit(X, Y),
        RandomForestClassifier(5, random_state=0).fit(X[:50], Y[:50]),
        RandomForestClassifier(5, random_state=0),
        RandomForestClassifier(6, random_state=0),
    ]
    assert len({values.digest(model) for model in models}) == len(models)


FIT = """
import numpy as np
from sklearn.ensemble import RandomForestClassifier
from clewline.flow import values
from clewline.flow.handle import StepOutput
x = np.random.default_rng(0).normal(size=(60, 3))
print(values.digest(RandomForestClassifier(5, random_state=0).fit(x, (x[:, 0] > 0).astype(int))))
"""


def test_a_model_has_the_same_digest_in_another_process():
    done = subprocess.run(
        [sys.executable, "-c", FIT], capture_output=True, text=True, check=True,
        env={"PYTHONHASHSEED": "77", "PATH": ""},
    )  # fmt: skip
    assert done.stdout.strip() == values.digest(RandomForestClassifier(5, random_state=0).fit(X, Y))


def test_a_model_with_code_of_the_user_in_it_is_refused_with_the_ways_out(blobs, shapes):
    shapes.Plain.fit = lambda self, x, y=None: self
    model = make_pipeline(FunctionTransformer(shapes.Point))
    with pytest.raises(NotStorable, match=r"shapes\.Point.*store_output=False"):
        values.save(model, blobs)


# ── files, figures, refusals ────────────────────────────────────────────────


def test_a_file_and_a_folder_are_known_by_their_content(blobs, tmp_path):
    folder = tmp_path / "folder"
    (folder / "empty").mkdir(parents=True)
    (folder / "deep").mkdir()
    (folder / "deep" / "tool").write_text("x")
    (folder / "deep" / "tool").chmod(0o755)
    (folder / "data.csv").write_text("a,b\n")
    artifact = values.save(folder, blobs)
    values.restore(artifact, blobs, tmp_path / "again")
    assert values.digest(tmp_path / "again") == artifact.digest == values.digest(folder)
    assert (tmp_path / "again" / "deep" / "tool").stat().st_mode & 0o100
    (tmp_path / "again" / "empty").rmdir()
    assert values.digest(tmp_path / "again") != artifact.digest
    loaded = values.load(values.save(folder / "data.csv", blobs), blobs)
    assert loaded.read_text() == "a,b\n"
    assert loaded.name == "data.csv"
    assert set(values.INSIDE["tree"](blobs.get(artifact.blob)))


def test_a_link_that_leads_back_is_refused_and_a_missing_file_is_named(blobs, tmp_path):
    (tmp_path / "loop").mkdir()
    (tmp_path / "loop" / "back").symlink_to(tmp_path / "loop")
    with pytest.raises(NotStorable, match="back is a link"):
        values.save(tmp_path / "loop", blobs)
    with pytest.raises(NotFound, match="nothing-here"):
        values.save(tmp_path / "nothing-here", blobs)


def test_a_figure_is_stored_as_it_was_drawn(blobs):
    import matplotlib.figure

    digests = set()
    for _ in range(2):
        figure = matplotlib.figure.Figure()
        figure.subplots().plot([1, 2, 3])
        artifact = values.save(figure, blobs)
        digests.add(artifact.digest)
    loaded = values.load(artifact, blobs)
    assert loaded.data.startswith(b"\x89PNG")
    assert digests == {values.digest(loaded)}


REFUSED = {
    "a function": lambda: test_a_figure_is_stored_as_it_was_drawn,
    "an object": object,
    "a generator": lambda: (i for i in range(3)),
    "an open file": io.BytesIO,
    "objects in an array": lambda: np.array([object()]),
    "objects in a table": lambda: pl.DataFrame({"a": [object()]}, {"a": pl.Object}),
    "mixed values in a column": lambda: pd.DataFrame({"a": [1, "x"]}),
    "mixed column names": lambda: pd.DataFrame({1: [1], "b": [2]}),
    "dates as column names": lambda: pd.DataFrame([[1]], columns=[dt.date(2020, 1, 1)]),
    "a column name twice": lambda: pd.DataFrame([[1, 2]], columns=["a", "a"]),
    "a lazy table": lambda: pl.LazyFrame({"a": [1]}),
    "a wide float": lambda: np.longdouble(1),
    "a list of functions": lambda: [len, print],
    "a foreign object": lambda: decimal.Context(),
    "a local class": lambda: local_class()(),
    "a strange time zone": lambda: dt.datetime(2020, 1, 1, tzinfo=Zone()),
    "a masked array": lambda: np.ma.masked_array([1, 2], [True, False]),
}


class Zone(dt.tzinfo):
    def utcoffset(self, when):
        return dt.timedelta(hours=1)


def local_class():
    @dataclass
    class Local:
        x: int = 1

    return Local


@pytest.mark.parametrize("make", REFUSED.values(), ids=REFUSED)
def test_a_value_without_a_safe_format_is_refused_with_the_ways_out(blobs, make):
    with pytest.raises(NotStorable) as caught:
        values.save(make(), blobs)
    assert caught.value.fix


def test_a_list_that_contains_itself_is_refused(blobs):
    loop: list = []
    loop.append(loop)
    with pytest.raises(NotStorable):
        values.save(loop, blobs)


def test_an_artifact_that_points_to_other_bytes_is_noticed(blobs):
    one, two = values.save([1, 2], blobs), values.save([1, 3], blobs)
    with pytest.raises(IntegrityError, match="another value"):
        values.load(msgspec.structs.replace(one, blob=two.blob), blobs)


@pytest.mark.parametrize("name", ["npy", "polars-ipc", "pandas-ipc", "skops", "json"])
def test_bytes_that_are_not_of_their_format_are_an_integrity_error(blobs, name):
    good = values.save([1], blobs)
    bad = msgspec.structs.replace(good, format=name, blob=blobs.put(b"\x80\x04pickle?."))
    with pytest.raises(IntegrityError):
        values.load(bad, blobs)


def test_an_unknown_format_is_refused(blobs):
    artifact = msgspec.structs.replace(values.save([1], blobs), format="pickle")
    with pytest.raises(NotSupported, match="pickle"):
        values.load(artifact, blobs)


def test_the_attributes_of_a_pandas_table_are_content(blobs):
    frame = pd.DataFrame({"a": [1]})
    plain = values.digest(frame)
    frame.attrs = {"unit": "kg", "at": dt.date(2026, 1, 1)}
    for value in (frame, frame["a"]):
        loaded, _ = round_trip(value, blobs)
        assert loaded.attrs == {"unit": "kg", "at": dt.date(2026, 1, 1)}
    assert values.digest(frame) != plain
    frame.attrs = {"unit": object()}
    with pytest.raises(NotStorable):
        values.save(frame, blobs)


def test_a_step_sees_the_layout_that_a_stored_array_has(blobs):
    """The layout is not content, so that what a step gets must not depend on it."""
    array = np.asfortranarray(np.arange(6.0).reshape(2, 3))
    loaded, artifact = round_trip(array, blobs)
    given = StepOutput(blobs, artifact, array).value()
    assert loaded.flags.c_contiguous
    assert given.flags.c_contiguous
    assert np.array_equal(given, array)
