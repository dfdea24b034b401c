"""A project whose step reaches code and constants in every way that we know of."""

PROJECT = {
    "pipe.py": '''
"""Pipeline."""
import collections
import enum
import functools
import os
import re
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import polars as pl

import a.b
import clewline as cl
import helpers
import more
import pkg
import pkg.inner as inner
from helpers import renamed as called, Base, constant_text
from helpers import *
from pkg.sub import relative_user

NUMBER = 5
FLOAT = 0.0
LISTED = [1, 2, {"deep": {3, 4}}]
FROZEN = frozenset({"x", "y"})
MAPPED = {"one": 1, "two": 2}
WHERE = Path("data") / "in.csv"
HERE = Path(__file__).parent / "below"
PATTERN = re.compile("a+b")
PARTIAL = partial(helpers.for_partial, 3)
LAMBDA = lambda x: x + 1
ARRAY = np.array([1.0, 2.0])
FRAME = pl.DataFrame({"a": [1, 2]})
ACTIONS = {"go": helpers.from_dict}
POINT = collections.namedtuple("POINT", "x y")(1, 2)
FROM_ENV = os.environ.get("CLEWLINE_TEST_AT_IMPORT", "none")
UNUSED = 1
TYPED: "Annotated" = None


class Colour(enum.Enum):
    RED = 1


class Annotated:
    field: int = 1


class Signature:
    field: int = 1


@dataclass
class Config:
    depth: int = 3

    def doubled(self):
        """Doubles."""
        return self.depth * 2


CONFIG = Config(4)


class Derived(Base):
    attribute = [7]

    def method(self):
        return helpers.from_method() + super().method()

    @property
    def prop(self):
        return helpers.from_property()

    @classmethod
    def make(cls):
        return cls()


def unused(x):
    return x + 100


def nested_caller(x):
    def nested(y):
        return helpers.from_nested(y) + 11
    return [helpers.from_comprehension(i) + 12 for i in range(x)], nested(x)


def make_closure(cell):
    def closed():
        return cell
    return closed


CLOSED = make_closure(21)


@helpers.decorator
def decorated(x):
    return x + 31


@functools.lru_cache
def remembered(x):
    return x + 41


@helpers.manager
def managed():
    yield 51


@functools.singledispatch
def dispatched(x):
    return 61


@dispatched.register
def _(x: int):
    return 62


def defaulted(x, size=71, *, wide=helpers.default_value):
    return x


def recursive(n):
    return mutual(n - 1) if n else 81


def mutual(n):
    return recursive(n)


def global_state():
    global NUMBER
    return MAPPED["one"]


def uses_walrus(x):
    return [y := helpers.from_walrus(i) for i in x]


@cl.step(cache=True)
def step(table: pl.DataFrame = None, config: "Signature" = None, trees: int = 91):
    # a comment
    """Doc of the step."""
    local = NUMBER + FLOAT
    chosen = Colour.RED, POINT, FROM_ENV, Config.doubled, CONFIG
    values = LISTED, FROZEN, WHERE, HERE, PATTERN, ARRAY, FRAME
    a.b.far()
    called(constant_text)
    starred()
    inner.deep()
    pkg.reexported()
    relative_user()
    Derived().method()
    nested_caller(1)
    decorated(CLOSED() + LAMBDA(1) + PARTIAL())
    remembered(1), managed(), dispatched(1), defaulted(1), recursive(3), global_state()
    ACTIONS["go"]()
    os.environ["CLEWLINE_TEST_READ"], os.getenv("CLEWLINE_TEST_GET")
    uses_walrus([1])
    more.everything()
    from lazily import imported_inside
    return imported_inside(local, chosen, values)
''',
    "helpers.py": '''
"""Helpers."""
import contextlib
import functools

import warnings
warnings.filterwarnings("ignore", message="made at load")

constant_text = "text"
default_value = 101
VERSION = 1


def renamed(x):
    """Doc."""
    return second(x)


def second(x):
    return x + 102


def third_unused(x):
    return x + 103


def starred():
    return 104


def for_partial(x):
    return x + 105


def from_dict():
    return 106


def from_method():
    return 107


def from_property():
    return 108


def from_nested(y):
    return y + 109


def from_comprehension(i):
    return i + 110


def from_walrus(i):
    return i + 111


def decorator(fn):
    @functools.wraps(fn)
    def wrapper(*args):
        return fn(*args) + 112
    return wrapper


manager = contextlib.contextmanager


class Root(type):
    def __call__(cls, *args):
        return super().__call__(*args)


class Base(metaclass=Root):
    def method(self):
        return 113

    def unused_method(self):
        return VERSION + 114
''',
    "more.py": """
from __future__ import annotations

import enum
import functools
import json
import typing
from dataclasses import dataclass, field

import pkg
import sub_registry
from sub_registry import REGISTRY


class Counted:
    def __init__(self, fn):
        self.fn = fn

    def __call__(self, *args):
        return self.fn(*args) + 301


@Counted
def counted(x):
    return x + 302


def make_default():
    return [303]


@dataclass
class Settings:
    values: list = field(default_factory=make_default)
    noted: int = field(default=1, metadata={"how": lambda x: x + 304})

    @functools.cached_property
    def cached(self):
        return 305

    @staticmethod
    def static():
        return 306

    chosen = lambda self: 307
    loaded = json.loads("[308]")


class Level(enum.IntEnum):
    LOW = 1

    def label(self):
        return 309


class Only(typing.TypedDict):
    key_310: int


if json:
    def conditional():
        return 311
else:
    def conditional():
        return 312


class Meta(type):
    def __getitem__(cls, item):
        return 313


class Indexed(metaclass=Meta):
    pass


def patched(self):
    return 314


json.JSONDecoder.clewline_test = patched


class Holder:
    def __init__(self):
        self.inner = inner_helper


def inner_helper():
    return 315


HOLDER = Holder()


async def awaited():
    return 316


def adder(n):
    def add(x):
        return x + n
    return add


ADD_ONE, ADD_TWO = adder(1), adder(317)


def matched(value):
    match value:
        case Level.LOW:
            return low_case()
        case _:
            return 0


def low_case():
    return 318


def lazily():
    import pkg.late
    from pkg.sub import relative_user
    return pkg.late.late(), relative_user()


def local_class():
    class Inner(Holder):
        def run(self):
            return class_helper()
    return Inner().run()


def class_helper():
    return 319


def types(x):
    y: Annotation = x
    return typing.cast("Casted", y)


class Annotation:
    size = 320


class Casted:
    size = 321


def everything(only: Only = None):
    text = f"{formatted()!r:>{width()}}"
    HOLDER.inner()
    Indexed[0]
    [f for f in (ADD_ONE, ADD_TWO)]
    sub_registry.VALUE.deep.attribute
    return (text, counted(1), Settings(), Level.LOW.label(), conditional(), awaited, matched(1),
            lazily(), local_class(), REGISTRY["kind"](), types(1), pkg.provided)


def formatted():
    return 322


def width():
    return 323
""",
    "sub_registry.py": """
import types

REGISTRY = {}
VALUE = types.SimpleNamespace(deep=types.SimpleNamespace(attribute=331))


def register(fn):
    REGISTRY["kind"] = fn
    return fn


@register
def registered():
    return 332
""",
    "pkg/late.py": "def late():\n    return 341\n",
    "a/__init__.py": "",
    "a/b.py": "from a import c\n\n\ndef far():\n    return c.farther()\n",
    "a/c.py": "def farther():\n    return 121\n",
    "pkg/__init__.py": (
        "from pkg.exported import reexported\n\n\ndef __getattr__(name):\n    return name + '351'\n"
    ),
    "pkg/exported.py": "def reexported():\n    return 131\n",
    "pkg/inner.py": "from .sub import LEVEL\n\n\ndef deep():\n    return LEVEL\n",
    "pkg/sub.py": (
        "from . import exported\n\nLEVEL = 141\n\n\n"
        "def relative_user():\n    return exported.reexported() + 142\n"
    ),
    "lazily.py": (
        "import lazier\n\n\ndef imported_inside(*args):\n    return args, lazier.thing()\n"
    ),
    "lazier.py": "def thing():\n    return 151\n",
}

CHANGES = [
    ("pipe.py", "NUMBER = 5", "NUMBER = 6"),
    ("pipe.py", "NUMBER = 5", "NUMBER = 5.0"),
    ("pipe.py", "NUMBER = 5", "NUMBER = True"),
    ("pipe.py", "NUMBER = 5", "NUMBER = '5'"),
    ("pipe.py", "FLOAT = 0.0", "FLOAT = -0.0"),
    ("pipe.py", "FLOAT = 0.0", "FLOAT = float('nan')"),
    ("pipe.py", "{3, 4}", "{3, 5}"),
    ("pipe.py", "LISTED = [1, 2,", "LISTED = [2, 1,"),
    ("pipe.py", '"x", "y"', '"x", "z"'),
    ("pipe.py", 'MAPPED = {"one": 1', 'MAPPED = {"one": 3'),
    ("pipe.py", '"in.csv"', '"other.csv"'),
    ("pipe.py", '"below"', '"beyond"'),
    ("pipe.py", "a+b", "a*b"),
    ("pipe.py", "for_partial, 3", "for_partial, 4"),
    ("pipe.py", "x: x + 1", "x: x + 2"),
    ("pipe.py", "[1.0, 2.0]", "[1.0, 2.5]"),
    ("pipe.py", "[1.0, 2.0]", "[1, 2]"),
    ("pipe.py", '"a": [1, 2]', '"a": [1, 3]'),
    ("pipe.py", '"x y")(1, 2)', '"x y")(1, 3)'),
    ("pipe.py", "RED = 1", "RED = 2"),
    ("pipe.py", "class Signature:\n    field: int = 1", "class Signature:\n    field: float = 1"),
    ("pipe.py", "depth: int = 3", "depth: int = 4"),
    ("pipe.py", "self.depth * 2", "self.depth * 3"),
    ("pipe.py", "Config(4)", "Config(5)"),
    ("pipe.py", "attribute = [7]", "attribute = [8]"),
    ("pipe.py", "return cls()", "return cls() or None"),
    ("pipe.py", "class Derived(Base)", "class Derived(Base, object)"),
    ("pipe.py", "from_nested(y) + 11", "from_nested(y) + 13"),
    ("pipe.py", "+ 12 for i", "+ 14 for i"),
    ("pipe.py", "make_closure(21)", "make_closure(22)"),
    ("pipe.py", "return x + 31", "return x + 32"),
    ("pipe.py", "return x + 41", "return x + 42"),
    ("pipe.py", "yield 51", "yield 52"),
    ("pipe.py", "return 61", "return 63"),
    ("pipe.py", "return 62", "return 64"),
    ("pipe.py", "size=71", "size=72"),
    ("pipe.py", "else 81", "else 82"),
    ("pipe.py", "return recursive(n)", "return recursive(n) + 1"),
    ("pipe.py", "trees: int = 91", "trees: int = 92"),
    ("pipe.py", "trees: int = 91", "trees: float = 91"),
    ("pipe.py", "local = NUMBER + FLOAT", "local = NUMBER - FLOAT"),
    ("helpers.py", '"text"', '"texts"'),
    ("helpers.py", "default_value = 101", "default_value = 201"),
    ("helpers.py", "VERSION = 1", "VERSION = 2"),
    ("helpers.py", "x + 102", "x + 202"),
    ("helpers.py", "return 104", "return 204"),
    ("helpers.py", "x + 105", "x + 205"),
    ("helpers.py", "return 106", "return 206"),
    ("helpers.py", "return 107", "return 207"),
    ("helpers.py", "return 108", "return 208"),
    ("helpers.py", "y + 109", "y + 209"),
    ("helpers.py", "i + 110", "i + 210"),
    ("helpers.py", "i + 111", "i + 211"),
    ("helpers.py", "+ 112", "+ 212"),
    ("helpers.py", "return 113", "return 213"),
    ("helpers.py", "+ 114", "+ 214"),
    ("helpers.py", "super().__call__(*args)", "super().__call__(*args) or None"),
    ("helpers.py", "made at load", "done at load"),
    ("a/c.py", "121", "221"),
    ("a/b.py", "return c.farther()", "return c.farther() + 1"),
    ("pkg/exported.py", "131", "231"),
    ("pkg/__init__.py", "import reexported", "import reexported\n\n\nprint('loads')"),
    ("pkg/sub.py", "141", "241"),
    ("pkg/sub.py", "142", "242"),
    *(("more.py", str(number), str(number + 100)) for number in range(301, 312)),
    *(("more.py", str(number), str(number + 100)) for number in range(313, 321)),
    *(("more.py", str(number), str(number + 100)) for number in (322, 323)),
    ("more.py", "def __call__(self, *args)", "def __call__(self, *args, extra=1)"),
    ("more.py", "ADD_ONE, ADD_TWO = adder(1)", "ADD_ONE, ADD_TWO = adder(2)"),
    ("sub_registry.py", "331", "431"),
    ("sub_registry.py", "332", "432"),
    ("pkg/late.py", "341", "441"),
    ("pkg/__init__.py", "351", "451"),
    ("lazily.py", "return args", "return list(args)"),
    ("lazier.py", "151", "251"),
]
"""Edits of what the step reaches."""

REST = [
    ("pipe.py", "# a comment", "# another comment"),
    ("pipe.py", '"""Doc of the step."""', '"""Other words."""'),
    ("pipe.py", '"""Pipeline."""', '"""Another text."""\n\n\n# and lines'),
    ("pipe.py", '"""Doubles."""', '"""Twice."""'),
    ("pipe.py", "local = NUMBER + FLOAT", "local = (\n        NUMBER\n        + FLOAT\n    )"),
    ("pipe.py", "return x + 100", "return x + 300"),
    ("pipe.py", "UNUSED = 1", "UNUSED = 2"),
    ("pipe.py", "cache=True", "cache=True, name='other'"),
    ("pipe.py", "class Annotated:\n    field: int = 1", "class Annotated:\n    field: int = 2"),
    ("pipe.py", '"x", "y"', '"y", "x"'),
    ("more.py", "return 312", "return 412"),
    ("more.py", "size = 321", "size = 421"),
    ("helpers.py", '"""Helpers."""', ""),
    ("helpers.py", '"""Doc."""', ""),
    ("helpers.py", "return x + 103", "return x + 303"),
    ("helpers.py", '"text"', "'text'"),
    ("pkg/sub.py", "LEVEL = 141\n", "LEVEL = 141  # the level\n"),
    ("lazily.py", "import lazier\n", "import lazier  # late\n"),
]
"""Edits of what does not count."""
