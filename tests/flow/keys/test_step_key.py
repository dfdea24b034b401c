"""Keys within one process: dependencies, refusals, reuse and changes."""

import importlib
import os
import sys
import textwrap
from pathlib import Path

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clewline.flow.keys.step_key import function_parts, key_changes, step_key
from clewline.store.changes import Change
from clewline.store.digest import Digest
from clewline.store.records import Artifact


@pytest.fixture
def project(tmp_path, monkeypatch):
    """Writes modules of a project, imports them, and forgets them at the end."""
    monkeypatch.syspath_prepend(str(tmp_path))

    def forget() -> None:
        for name, module in list(sys.modules.items()):
            if str(getattr(module, "__file__", "")).startswith(str(tmp_path)):
                del sys.modules[name]

    class Project:
        root = tmp_path

        def write(self, **modules: str) -> None:
            for name, text in modules.items():
                path = tmp_path / f"{name.replace('__', '/')}.py"
                path.parent.mkdir(exist_ok=True)
                path.write_text(textwrap.dedent(text))
            importlib.invalidate_caches()

        def load(self, name: str, **modules: str):
            self.write(**modules)
            forget()
            return importlib.import_module(name)

        def parts(self, name: str, **modules: str):
            return function_parts(self.load(name, **modules).step, tmp_path)

        def key(self, fn, **params):
            return step_key(function_parts(fn, tmp_path), params, {}, seed=0, env={})

    yield Project()
    forget()


DYNAMIC = {
    "getattr of an unknown object": "return getattr(table, name)",
    "getattr of the module": "import sys\n    return getattr(sys.modules[__name__], name)",
    "eval": "return eval(name)",
    "exec": "exec(name)",
    "globals": "return globals()[name]",
    "vars of the module": "return vars()[name]",
}


@pytest.mark.parametrize("body", DYNAMIC.values(), ids=DYNAMIC)
def test_code_that_looks_up_names_at_run_time_depends_on_its_module(project, body):
    text = f"def hidden():\n    return 1\n\n\ndef step(table=None, name=''):\n    {body}\n"
    old = project.parts("dynamic", dynamic=text)
    new = project.parts("dynamic", dynamic=text.replace("return 1", "return 22"))
    assert old.uncacheable is new.uncacheable is None
    assert old.code != new.code


@pytest.mark.parametrize(
    "body",
    [
        "return table.query('x > @LIMIT')",
        "return table.query(f'{name} > @LIMIT')",
        "return table.eval('x * LIMIT')",
        "return pl.sql('SELECT x FROM LIMIT').collect()",
        "text = 'x > @LIMIT'\n    return table.query(text)",
        "ask = table.query\n    return ask('x > @LIMIT')",
        "return table.query(expr='x > @LIMIT')",
        "return table.query(RULE)",
        "return table.query(name)",
        "return table.query(f'x > @{name}')",
        "return table.pipe(lambda each: each.query('x > @LIMIT'))",
        "return pl.SQLContext(register_globals=True).execute('SELECT x FROM LIMIT')",
        "return duckdb.sql('SELECT x FROM LIMIT')",
        "return duckdb.sql(f'SELECT x FROM {name}')",
    ],
)
def test_names_in_a_query_string_are_dependencies(project, body):
    head = "import polars as pl\n\nLIMIT = 1\nRULE = 'x > @LIMIT'\n\n\n"
    text = f"{head}def step(table=None, name=''):\n    {body}\n"
    old = project.parts("queries", queries=text)
    assert old.uncacheable is None
    new = project.parts("queries", queries=text.replace("LIMIT = 1", "LIMIT = 2"))
    assert old.constants != new.constants


@pytest.mark.parametrize(
    "body", ["return table.query('LIMIT > 1')", "return f'above LIMIT {name}'", "table.eval()"]
)
def test_other_words_in_a_string_are_no_dependencies(project, body):
    text = f"LIMIT = 1\n\n\ndef step(table=None, name=''):\n    {body}\n"
    old = project.parts("words", words=text)
    new = project.parts("words", words=text.replace("LIMIT = 1", "LIMIT = 2"))
    assert old == new


def test_getattr_with_a_constant_is_an_attribute_like_any_other(project):
    text = "def far():\n    return 1\n\n\ndef other():\n    return 2\n"
    step = "import far_off\n\n\ndef step():\n    return getattr(far_off, 'far')()\n"
    old = project.parts("near", near=step, far_off=text)
    assert project.parts("near", far_off=text.replace("2", "33")).code == old.code
    assert project.parts("near", far_off=text.replace("1", "44")).code != old.code


@pytest.mark.parametrize(
    "body",
    [
        "import os\n    return os.environ['CLEWLINE_X']",
        "from os import getenv as ask\n    return ask('CLEWLINE_X')",
        "return ASK()",
        "return LATER['ask']()",
    ],
)
def test_a_variable_is_known_however_it_is_reached(project, body):
    head = "import functools, os\n\nASK = functools.partial(os.getenv, 'CLEWLINE_X')\n"
    parts = project.parts(
        "asks", asks=f"{head}LATER = {{'ask': ASK}}\n\n\ndef step():\n    {body}\n"
    )
    assert parts.environ == ("CLEWLINE_X",)


@pytest.mark.parametrize(
    "body",
    [
        "return people.__globals__['LIMIT']",
        "import sys\n    return sys._getframe().f_globals['LIMIT']",
        "import inspect\n    return inspect.currentframe().f_globals['LIMIT']",
        "import sys\n    return vars(sys.modules[__name__])['LIMIT']",
        "import pydoc\n    return pydoc.locate('frames.LIMIT')",
    ],
)
def test_code_that_reads_the_names_of_a_module_depends_on_it(project, body):
    text = f"LIMIT = 1\n\n\ndef people():\n    pass\n\n\ndef step():\n    {body}\n"
    old = project.parts("frames", frames=text)
    new = project.parts("frames", frames=text.replace("LIMIT = 1", "LIMIT = 2"))
    assert old.uncacheable is None
    assert (old.code, old.constants) != (new.code, new.constants)


def test_getattr_of_a_library_does_not_widen(project):
    parts = project.parts(
        "libs", libs="import math\n\n\ndef step(name):\n    return getattr(math, name)\n"
    )
    assert list(parts.code) == ["libs.py:step"]


@pytest.mark.parametrize(
    "call",
    [
        "importlib.import_module(name)",
        "__import__(name)",
        "sys.modules[name]",
        "importlib.util.find_spec(name)",
        "pkgutil.resolve_name(name)",
        "runpy.run_path(name)",
        "resolve_name(name)",
    ],
)
def test_a_module_named_at_run_time_widens_to_every_file_of_the_project(project, call):
    imports = "import importlib.util, pkgutil, runpy, sys\nfrom pkgutil import resolve_name\n"
    step = f"{imports}\n\ndef step(name):\n    return {call}\n"
    old = project.parts("chooser", chooser=step, plugins__one="ONE = 1\n")
    new = project.parts("chooser", plugins__one="ONE = 2\n")
    assert old.uncacheable is None
    assert old.code != new.code


def test_lambdas_of_one_line_are_distinguished(project):
    old = project.parts("both", both="step, other = (lambda: 1), (lambda: 2)\n")
    new = project.parts("both", both="other, step = (lambda: 1), (lambda: 2)\n")
    assert old.code != new.code


@pytest.mark.parametrize(
    "body", ["help_of.__doc__", "inspect.getsource(help_of)", "inspect.currentframe().f_lineno"]
)
def test_a_step_that_reads_source_or_docstrings_is_uncacheable(project, body):
    helper = 'def help_of():\n    """One."""\n'
    parts = project.parts(
        "asks", asks=f"import inspect\n\n\n{helper}\n\ndef step():\n    return {body}\n"
    )
    assert "leave out comments and docstrings" in parts.uncacheable


def test_a_decorator_may_hand_a_docstring_on(project):
    wrap = (
        "def wrap(f):\n    def g():\n        return f()\n    g.__doc__ = f.__doc__\n    return g\n"
    )
    parts = project.parts("hand", hand=f"{wrap}\n\n@wrap\ndef step():\n    return 1\n")
    assert parts.uncacheable is None


def test_a_text_with_variables_expanded_reads_the_environment_by_a_computed_name(project):
    parts = project.parts(
        "home", home="import os\n\n\ndef step(t):\n    return os.path.expandvars(t)\n"
    )
    assert parts.environ == ("?home.py:step",)


def test_a_module_used_as_a_value_counts_as_a_whole(project):
    step = "import whole\n\n\ndef step():\n    chosen = whole\n    return chosen.thing()\n"
    text = "def thing():\n    return helper()\n\n\ndef helper():\n    return 1\n"
    old = project.parts("taker", taker=step, whole=text)
    assert project.parts("taker", whole=text.replace("1", "2")).code != old.code


REFUSED = {
    "an open file": "open(__file__)",
    "a generator": "(i for i in range(3))",
    "an object that does not say what it holds": "Closed()",
}


@pytest.mark.parametrize("value", REFUSED.values(), ids=REFUSED)
def test_a_global_without_content_makes_the_step_uncacheable_and_is_named(project, value):
    text = f"""
        class Closed:
            def __reduce_ex__(self, protocol):
                raise TypeError("no")

        HELD = {value}

        def step():
            return HELD
    """
    module = project.load("holder", holder=text)
    key = project.key(module.step)
    assert key.digest is None
    assert "holder.py:HELD" in key.uncacheable
    getattr(module.HELD, "close", bool)()


INERT = {
    "a logger": "import logging\nHELD = logging.getLogger(__name__)",
    "a lock": "import threading\nHELD = threading.Lock()",
    "a console": "import rich.console\nHELD = rich.console.Console()",
    "a polars expression": "import polars as pl\nHELD = pl.col('a') + 1",
    "a polars schema": "import polars as pl\nHELD = {'a': pl.Int64, 'b': pl.Datetime('us')}",
    "a type alias": "import typing\nHELD = dict[str, typing.Literal['a', 'b'] | None]",
    "a type variable": "import typing\nHELD = typing.TypeVar('T')",
    "a named tuple": "import typing\nclass HELD(typing.NamedTuple):\n    x: int = 1",
    "a struct": "import msgspec\nclass HELD(msgspec.Struct):\n    x: int = 1",
    "an abstract class": (
        "import abc\nclass HELD(abc.ABC):\n    @abc.abstractmethod\n    def f(self): ..."
    ),
    "a protocol": "import typing\nclass HELD(typing.Protocol):\n    def f(self) -> int: ...",
    "a generator of numbers": "import numpy\nHELD = numpy.random.default_rng(3)",
    "a ufunc": "from numpy import log1p as HELD",
    "a numpy function": "from numpy import mean as HELD",
    "a compiled function": "from pandas._libs.lib import infer_dtype as HELD",
    "an estimator": "from sklearn.linear_model import Ridge\nHELD = Ridge(alpha=2)",
    "a bound method": "HELD = 'x'.join",
    "an item getter": "import operator\nHELD = operator.itemgetter(1)",
    "a default dict": "import collections\nHELD = collections.defaultdict(list, a=[1])",
}


@pytest.mark.parametrize("text", INERT.values(), ids=INERT)
def test_a_global_of_the_usual_kinds_can_be_keyed(project, text):
    module = project.load("usual", usual=f"{text}\n\n\ndef step():\n    return HELD\n")
    first, second = project.key(module.step), project.key(module.step)
    assert first.uncacheable is None
    assert first.digest == second.digest


def test_a_global_that_changes_while_the_process_lives_changes_the_key(project):
    module = project.load(
        "living",
        living="""
        LIST = [1]
        NUMBER = 1
        class Settings:
            depth = 1
        def helper():
            return 1
        def step(x=1):
            return LIST, NUMBER, Settings.depth, helper()
        """,
    )
    seen = {project.key(module.step).digest}
    for change in (
        lambda: module.LIST.append(2),
        lambda: setattr(module, "NUMBER", 2),
        lambda: setattr(module.Settings, "depth", 2),
        lambda: setattr(module, "helper", lambda: 3),
        lambda: setattr(module.step, "__defaults__", (2,)),
    ):
        change()
        digest = project.key(module.step).digest
        assert digest is not None
        assert digest not in seen
        seen.add(digest)


def test_a_file_edited_after_its_import_makes_the_step_uncacheable(project):
    text = "def helper():\n    return 1\n\n\ndef step():\n    return helper()\n"
    module = project.load("stale", stale=text)
    (project.root / "stale.py").write_text(text.replace("1", "2"))
    key = project.key(module.step)
    assert key.digest is None
    assert "stale.py:helper was edited on disk" in key.uncacheable


def test_lines_that_moved_after_the_import_do_not_matter(project):
    text = "def helper():\n    return 1\n\n\ndef step():\n    return helper()\n"
    module = project.load("moved", moved=text)
    (project.root / "moved.py").write_text("# new\n\n" + text)
    assert project.key(module.step).uncacheable is None


def test_a_function_without_source_is_known_by_its_compiled_code(project):
    module = project.load("maker", maker="K = 1\nexec('def step():\\n    return K')\n")
    one = project.key(module.step)
    module.K = 2
    two = project.key(module.step)
    assert one.uncacheable is two.uncacheable is None
    assert one.digest != two.digest


def test_an_environment_variable_read_by_a_computed_name_must_be_declared(project):
    module = project.load(
        "asks", asks="import os\n\n\ndef step(name):\n    return os.environ[name]\n"
    )
    parts = function_parts(module.step, project.root)
    assert "computed name" in step_key(parts, {}, {}, seed=0, env={}).uncacheable
    one = step_key(parts, {}, {}, seed=0, env={"A": "1"})
    two = step_key(parts, {}, {}, seed=0, env={"A": "2"})
    assert None not in (one.digest, two.digest)
    assert one.digest != two.digest


def test_a_function_given_as_a_parameter_counts_by_its_code(project):
    text = "def step(how):\n    return how()\n\n\ndef chosen():\n    return 1\n"
    old = project.load("given", given=text)
    one = project.key(old.step, how=old.chosen)
    new = project.load("given", given=text.replace("1", "2"))
    two = project.key(new.step, how=new.chosen)
    assert None not in (one.digest, two.digest)
    assert one.digest != two.digest


def test_a_closure_given_as_a_parameter_does_not_hide_one_that_the_step_reaches(project):
    text = """
        def adder(n):
            def add(x):
                return x + n
            return add

        REACHED = adder(1)
        GIVEN = adder(2)

        def step(how):
            return how(REACHED(0))
    """
    digests = set()
    for version in (text, text.replace("adder(1)", "adder(3)"), text.replace("(2)", "(4)")):
        module = project.load("closures", closures=version)
        digests.add(project.key(module.step, how=module.GIVEN).digest)
    assert len(digests) == 3


def test_values_bound_to_a_partial_or_an_object_count(project):
    text = """
        import functools

        class Scale:
            def __init__(self, by):
                self.by = by

            def apply(self, x):
                return x * self.by

        def plain(by, x):
            return x * by

        PARTIAL = functools.partial(plain, 2)
        METHOD = Scale(2).apply
    """
    module = project.load("bound", bound=text)
    old = [project.key(fn).digest for fn in (module.PARTIAL, module.METHOD)]
    module = project.load("bound", bound=text.replace("2)", "3)"))
    new = [project.key(fn).digest for fn in (module.PARTIAL, module.METHOD)]
    assert len({*old, *new}) == 4


def test_the_value_that_a_built_in_method_is_bound_to_counts(project):
    text = """
        JOIN = ", ".join
        KNOWN = {"a": 1}.get
        SIZE = len

        def joined(words):
            return JOIN(words)

        def known(word):
            return KNOWN(word)

        def size(words):
            return SIZE(words)
    """
    changed = text.replace(", ", "; ").replace("1}", "2}")
    steps = ("joined", "known", "size")
    module = project.load("joining", joining=text)
    old = {name: project.key(getattr(module, name)).digest for name in steps}
    module = project.load("joining", joining=changed)
    new = {name: project.key(getattr(module, name)).digest for name in steps}
    assert [old[name] != new[name] for name in steps] == [True, True, False]


def test_a_transformer_of_the_project_counts_by_its_code(project):
    text = """
        from sklearn.base import BaseEstimator, TransformerMixin

        class Clip(TransformerMixin, BaseEstimator):
            def __init__(self, top=1.0):
                self.top = top

            def fit(self, X, y=None, sample_weight=None):
                return self

            def transform(self, X):
                return X.clip(0, self.top)

        def step(table):
            return Clip().fit(table)
    """
    old = project.parts("clip", clip=text)
    new = project.parts("clip", clip=text.replace("clip(0", "clip(1"))
    assert old.uncacheable is None
    assert old.code != new.code


def test_an_input_of_a_class_of_the_project_counts_with_the_code_of_the_class(project):
    text = """
        from dataclasses import dataclass
        @dataclass
        class Rule:
            x: int
            def apply(self):
                return self.x + 1
        def step(rule):
            return rule.apply()
    """
    digests = set()
    for version in (text, text.replace("+ 1", "+ 2")):
        module = project.load("rules", rules=version)
        artifact = Artifact(
            digest=Digest("0" * 64),
            kind="json",
            format="json",
            blob=Digest("0" * 64),
            size_bytes=1,
            meta={"types": ["rules:Rule"]},
            created=0.0,
        )
        parts = function_parts(module.step, project.root)
        digests.add(step_key(parts, {}, {"rule": artifact}, seed=0, env={}).digest)
    assert len(digests) == 2
    assert None not in digests


def test_an_extension_module_of_the_project_counts_by_its_bytes(project):
    module = project.load("calls", calls="native = None\n\n\ndef step():\n    return native\n")
    (project.root / "native.so").write_bytes(b"one")
    module.native = type(sys)("native")
    module.native.__file__ = str(project.root / "native.so")
    old = function_parts(module.step, project.root)
    (project.root / "native.so").write_bytes(b"two!")
    new = function_parts(module.step, project.root)
    assert old.uncacheable is None
    assert old.code != new.code


def test_the_changed_parts_of_a_key_are_listed(project):
    text = "K = 1\n\n\ndef helper():\n    return K\n\n\ndef step(n):\n    return helper()\n"
    old = project.load("chatty", chatty=text)
    one = project.key(old.step, n=1)
    new = project.load(
        "chatty", chatty=text.replace("K = 1", "K = 2").replace("return K", "return -K")
    )
    two = project.key(new.step, n=2.0)
    code, *others = key_changes(one.parts, two.parts)
    assert (code.part, code.name, code.kind) == ("code", "chatty.py:helper", "changed")
    assert others == [
        Change("constant", "chatty.py:K", "changed", "1 (int)", "2 (int)"),
        Change("parameter", "n", "changed", "1 (int)", "2.0 (float)"),
    ]
    assert key_changes(one.parts, one.parts) == []


def test_packages_are_in_the_key_with_all_that_they_require(project):
    parts = project.parts(
        "trains", trains="import sklearn\n\n\ndef step():\n    return sklearn.show_versions()\n"
    )
    assert {"scikit-learn", "numpy", "scipy", "joblib", "threadpoolctl"} <= parts.packages.keys()
    assert "pytest" not in parts.packages


def test_a_package_imported_inside_counts_the_same_before_and_after_it_was_loaded(project):
    step = "def step():\n    import wave\n    import cyclopts\n    return cyclopts\n"
    assert "cyclopts" in project.parts("late", late=step).packages


def test_parts_can_be_stored_as_json(project):
    module = project.load("plain", plain="def step(n):\n    return n\n")
    key = project.key(module.step, n=[1, {"a": np.arange(3)}])
    assert msgspec.json.decode(msgspec.json.encode(key.parts)) == key.parts


SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text()
    | st.binary()
    | st.dates()
    | st.decimals(allow_nan=False)
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.lists(inner, max_size=4).map(tuple)
        | st.dictionaries(st.text() | st.integers(), inner, max_size=4)
    ),
    max_leaves=12,
)


def plain_step(value):
    return value


def keyed(value):
    parts = function_parts(plain_step, Path(__file__).parent)
    return step_key(parts, {"value": value}, {}, seed=0, env={}).digest


@given(VALUES)
def test_equal_values_of_equal_types_have_equal_keys(value):
    import copy

    assert keyed(value) == keyed(copy.deepcopy(value))


@given(VALUES, VALUES)
def test_values_have_equal_keys_only_when_python_cannot_distinguish_them(one, two):
    assert (keyed(one) == keyed(two)) == (described(one) == described(two))


def described(value):
    """A value as a text that tells types, signs and order; every NaN is one."""
    return f"{type(value).__name__} {value!r}".replace("-nan", "nan")


DISTINCT = [
    0.0, -0.0, 0, False, None, "", b"", [], (), {}, set(), frozenset(), 1, 1.0, True, "1", b"1",
    [1], (1,), {1: 1}, {"1": 1}, {1}, float("nan"), float("inf"), [[], []], [[[]]], [()], "None",
    {"a": 1, "b": 2}, {"b": 2, "a": 1}, np.float64(1), np.float32(1), np.array(1), np.array([1]),
    np.array([[1]]), np.array([1], "i4"), bytearray(b"1"), 1 + 0j, range(1), 2**70, -(2**70),
]  # fmt: skip


def test_look_alikes_differ():
    assert len({keyed(value) for value in DISTINCT}) == len(DISTINCT)


def test_every_nan_is_the_same_one():
    import struct

    other = struct.unpack(">d", bytes.fromhex("fff8000000000001"))[0]
    assert keyed(other) == keyed(float("nan"))
    assert keyed(np.array([other])) == keyed(np.array([float("nan")]))


def test_the_working_directory_does_not_count(project, monkeypatch):
    module = project.load("where", where="def step():\n    return 1\n")
    one = project.key(module.step).digest
    monkeypatch.chdir(os.sep)
    assert project.key(module.step).digest == one
