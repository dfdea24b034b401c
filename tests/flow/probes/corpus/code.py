"""Modules, classes, closures, settings and values that a step reaches by its code."""

from __future__ import annotations

import sys
from typing import Any

from flow.probes.probe import Change, Probe, edit, given, in_process, probe, write

ONE_TWO = edit("ONE = 1", "ONE = 2")


def constant(name: str, body: str, head: str = "", expected: Any = "new", **options: Any) -> Probe:
    """A step that depends on a constant of its module, which changes from 1 to 2."""
    lines = "\n            ".join(body.splitlines())
    heads = "\n        ".join(head.splitlines())
    text = f"""
        ONE = 1
        {heads}

        @cl.step
        def work() -> int:
            {lines}
    """
    return probe(expected, name, text, ONE_TWO, **options)


def helper(
    name: str, head: str, body: str, text: str, change: Change, expected: Any = "new"
) -> Probe:
    """A step that uses a module of the project, `helpers.py`, which changes."""
    lines = "\n            ".join(body.splitlines())
    heads = "\n        ".join(head.splitlines())
    pipelines = f"""
        {heads}

        @cl.step
        def work() -> int:
            {lines}
    """
    return probe(expected, name, pipelines, change, {"helpers.py": text})


def settings(name: str, file: str, text: str, new: str, load: str, *, inside: bool = True) -> Probe:
    """A settings module that reads a file at import, and that the pipeline imported before."""
    head = "import settings"
    body = (
        "from settings import CONFIG\nreturn CONFIG['depth']"
        if inside
        else "return settings.CONFIG['depth']"
    )
    lines = "\n            ".join(body.splitlines())
    pipelines = f"""
        {head}

        @cl.step
        def work() -> int:
            {lines}
    """
    return probe("new", name, pipelines, write(file, new), {file: text, "settings.py": load})


CONSTANTS = [
    constant("global-number", "return ONE"),
    constant("global-in-a-list", "return LIST[0]", "LIST = [ONE]"),
    constant("global-in-a-comprehension", "return sum(x + ONE for x in range(3))"),
    constant("global-in-a-lambda", "return f()", "f = lambda: ONE"),
    constant("global-in-a-nested-function", "def inner():\n    return ONE\nreturn inner()"),
    constant(
        "global-in-a-closure",
        "return f()",
        "def make(x):\n    def inner():\n        return x\n    return inner\nf = make(ONE)",
    ),
    constant("global-in-a-default-argument", "return f()", "def f(x=ONE):\n    return x"),
    constant("global-in-a-keyword-default", "return f()", "def f(*, x=ONE):\n    return x"),
    constant(
        "global-in-a-partial",
        "return f()",
        "import functools\ndef g(x):\n    return x\nf = functools.partial(g, ONE)",
    ),
    constant(
        "global-in-a-decorator",
        "return f()",
        "def add(n):\n    def wrap(fn):\n        return lambda: fn() + n\n    return wrap\n\n@add(ONE)\ndef f():\n    return 1",
    ),
    constant("global-in-a-class-attribute", "return Config.x", "class Config:\n    x = ONE"),
    constant(
        "global-in-an-inherited-attribute",
        "return Child().x",
        "class Base:\n    x = ONE\nclass Child(Base):\n    pass",
    ),
    constant(
        "global-in-a-method", "return C().f()", "class C:\n    def f(self):\n        return ONE"
    ),
    constant(
        "global-in-a-super-call",
        "return D().f()",
        "class C:\n    def f(self):\n        return ONE\nclass D(C):\n    def f(self):\n        return super().f()",
    ),
    constant(
        "global-in-a-property",
        "return C().f",
        "class C:\n    @property\n    def f(self):\n        return ONE",
    ),
    constant(
        "global-in-a-static-method",
        "return C.f()",
        "class C:\n    @staticmethod\n    def f():\n        return ONE",
    ),
    constant(
        "global-in-a-class-method",
        "return C.f()",
        "class C:\n    @classmethod\n    def f(cls):\n        return ONE",
    ),
    constant(
        "global-in-a-dataclass",
        "return C().x",
        "from dataclasses import dataclass\n@dataclass\nclass C:\n    x: int = ONE",
    ),
    constant(
        "global-in-a-dataclass-factory",
        "return C().x[0]",
        "from dataclasses import dataclass, field\n@dataclass\nclass C:\n    x: list = field(default_factory=lambda: [ONE])",
    ),
    constant(
        "global-in-post-init",
        "return C().x",
        "from dataclasses import dataclass\n@dataclass\nclass C:\n    x: int = 0\n    def __post_init__(self):\n        self.x = ONE",
    ),
    constant(
        "global-in-an-enum", "return E.A.value", "import enum\nclass E(enum.Enum):\n    A = ONE"
    ),
    constant(
        "global-in-a-named-tuple",
        "return P().x",
        "from typing import NamedTuple\nclass P(NamedTuple):\n    x: int = ONE",
    ),
    constant(
        "global-in-an-instance", "return C.x", "import types\nC = types.SimpleNamespace(x=ONE)"
    ),
    constant(
        "global-in-a-callable-object",
        "return f()",
        "class F:\n    def __init__(self, n):\n        self.n = n\n    def __call__(self):\n        return self.n\nf = F(ONE)",
    ),
    constant(
        "global-in-an-operator",
        "return (V() + V())",
        "class V:\n    def __add__(self, other):\n        return ONE",
    ),
    constant(
        "global-in-a-context-manager",
        "with C() as x:\n    return x",
        "class C:\n    def __enter__(self):\n        return ONE\n    def __exit__(self, *_):\n        pass",
    ),
    constant(
        "global-in-an-iterator",
        "return sum(C())",
        "class C:\n    def __iter__(self):\n        yield ONE",
    ),
    constant(
        "global-in-a-descriptor",
        "return C().x",
        "class D:\n    def __get__(self, instance, owner):\n        return ONE\nclass C:\n    x = D()",
    ),
    constant(
        "global-in-getattr-of-a-class",
        "return C().anything",
        "class C:\n    def __getattr__(self, name):\n        return ONE",
    ),
    constant(
        "global-in-a-metaclass",
        "return C.x",
        "class M(type):\n    @property\n    def x(cls):\n        return ONE\nclass C(metaclass=M):\n    pass",
    ),
    constant(
        "global-in-init-subclass",
        "return C.x",
        "class B:\n    def __init_subclass__(cls):\n        cls.x = ONE\nclass C(B):\n    pass",
    ),
    constant(
        "global-in-single-dispatch",
        "return f(1)",
        "import functools\n@functools.singledispatch\ndef f(x):\n    return 0\n@f.register\ndef _(x: int):\n    return ONE",
    ),
    constant(
        "global-in-a-cached-function",
        "return f()",
        "import functools\n@functools.cache\ndef f():\n    return ONE",
    ),
    constant(
        "global-in-a-context-decorator",
        "with f() as x:\n    return x",
        "import contextlib\n@contextlib.contextmanager\ndef f():\n    yield ONE",
    ),
    constant(
        "global-in-a-registry",
        "return REGISTRY['f']()",
        "REGISTRY = {}\ndef register(fn):\n    REGISTRY[fn.__name__] = fn\n    return fn\n@register\ndef f():\n    return ONE",
    ),
    constant(
        "global-in-a-match",
        "match ONE:\n    case 1:\n        return 10\n    case _:\n        return 20",
    ),
    constant("global-in-a-walrus", "return (x := ONE) + x"),
    constant("global-in-an-f-string", 'return int(f"{ONE}5")'),
    constant(
        "global-in-a-sort-key", "return sorted([1, 2, 3], key=lambda x: x * (3 - 2 * ONE))[0]"
    ),
    constant("global-in-map", "return sum(map(f, [1, 2]))", "def f(x):\n    return x + ONE"),
    constant(
        "global-in-reduce",
        "return functools.reduce(f, [1, 2, 3])",
        "import functools\ndef f(a, b):\n    return a + b * ONE",
    ),
    constant(
        "global-in-an-async-function",
        "return asyncio.run(f())",
        "import asyncio\nasync def f():\n    return ONE",
    ),
    constant(
        "global-in-pandas-apply",
        "return int(pd.Series([1, 2]).apply(f).sum())",
        "import pandas as pd\ndef f(x):\n    return x + ONE",
    ),
    constant(
        "global-in-pandas-assign",
        'return int(pd.DataFrame({"x": [1]}).assign(y=lambda d: d.x + ONE)["y"][0])',
        "import pandas as pd",
    ),
    constant(
        "global-in-polars-map-elements",
        "return int(pl.Series([1, 2]).map_elements(f, return_dtype=pl.Int64).sum())",
        "import polars as pl\ndef f(x):\n    return x + ONE",
    ),
    constant(
        "global-polars-expression",
        'return int(pl.DataFrame({"x": [1]}).select(RULE).item())',
        'import polars as pl\nRULE = pl.col("x") + ONE',
    ),
    constant(
        "global-numpy-array", "return int(A.sum())", "import numpy as np\nA = np.full(3, ONE)"
    ),
    constant(
        "global-pandas-frame",
        'return int(DF["x"].sum())',
        'import pandas as pd\nDF = pd.DataFrame({"x": [ONE, 2]})',
    ),
    constant(
        "global-polars-frame",
        'return int(DF["x"].sum())',
        'import polars as pl\nDF = pl.DataFrame({"x": [ONE, 2]})',
    ),
    constant(
        "global-pattern", 'return len(P.findall("aab"))', 'import re\nP = re.compile("a" * ONE)'
    ),
    constant("global-path-in-a-set", "return len(next(iter(S)))", "S = {'x' * ONE}"),
    constant(
        "global-sklearn-pipeline",
        "return MODEL.named_steps['ridge'].alpha",
        "from sklearn.linear_model import Ridge\nfrom sklearn.pipeline import make_pipeline\nfrom sklearn.preprocessing import StandardScaler\nMODEL = make_pipeline(StandardScaler(), Ridge(alpha=ONE))",
    ),
    constant(
        "global-sklearn-function-transformer",
        "return int(F.transform(np.ones(2)).sum())",
        "import numpy as np\nfrom sklearn.preprocessing import FunctionTransformer\ndef f(x):\n    return x + ONE\nF = FunctionTransformer(f)",
    ),
    constant(
        "monkeypatched-library-function",
        "return int(math.floor(1.5))",
        "import math\nmath.floor = lambda x: ONE",
    ),
    constant(
        "monkeypatched-own-class",
        "return C().f()",
        "class C:\n    def f(self):\n        return 0\nC.f = lambda self: ONE",
    ),
    constant(
        "monkeypatched-builtin",
        "return ascii(1)",
        "import builtins\nbuiltins.ascii = lambda x: ONE",
    ),
    constant(
        "library-option-set-at-import",
        'return int(pd.get_option("display.max_rows"))',
        'import pandas as pd\npd.set_option("display.max_rows", ONE)',
    ),
    constant("attribute-by-setattr", "return C.x", "class C:\n    pass\nsetattr(C, 'x', ONE)"),
    constant("name-by-globals-update", "return MADE", "globals().update(MADE=ONE)"),
    constant("pydoc-locate", "return pydoc.locate('pipelines.ONE')", "import pydoc"),
    constant(
        "pkgutil-resolve-name", "return pkgutil.resolve_name('pipelines:ONE')", "import pkgutil"
    ),
    constant("import-of-the-own-module", "import pipelines\nreturn pipelines.ONE"),
    constant("sys-modules-of-the-own-module", "import sys\nreturn sys.modules['pipelines'].ONE"),
    constant(
        "method-caller",
        "return operator.methodcaller('f')(C())",
        "import operator\nclass C:\n    def f(self):\n        return ONE",
    ),
    constant(
        "getattr-by-a-name-in-a-list",
        "return sum(getattr(C(), n)() for n in ['f'])",
        "class C:\n    def f(self):\n        return ONE",
    ),
    constant(
        "class-found-by-its-subclasses",
        "return Base.__subclasses__()[0]().f()",
        "class Base:\n    pass\nclass Found(Base):\n    def f(self):\n        return ONE",
    ),
    constant("unrelated-constant", "return 1", "", "same"),
    constant("constant-of-an-unused-function", "return 1", "def unused():\n    return ONE", "same"),
    constant("constant-of-an-unused-class", "return 1", "class Unused:\n    x = ONE", "same"),
    constant("constant-that-a-local-hides", "ONE = 5\nreturn ONE", "", "same"),
]

MODULES = [
    helper(
        "function-of-another-module",
        "import helpers",
        "return helpers.f()",
        "def f():\n    return 1\n",
        edit("return 1", "return 2", "helpers.py"),
    ),
    helper(
        "function-imported-by-name",
        "from helpers import f",
        "return f()",
        "def f():\n    return 1\n",
        edit("return 1", "return 2", "helpers.py"),
    ),
    helper(
        "function-imported-by-a-star",
        "from helpers import *",
        "return f()",
        "def f():\n    return 1\n",
        edit("return 1", "return 2", "helpers.py"),
    ),
    helper(
        "function-imported-inside",
        "",
        "from helpers import f\nreturn f()",
        "def f():\n    return 1\n",
        edit("return 1", "return 2", "helpers.py"),
    ),
    helper(
        "function-imported-by-importlib",
        "import importlib",
        "return importlib.import_module('helpers').f()",
        "def f():\n    return 1\n",
        edit("return 1", "return 2", "helpers.py"),
    ),
    helper(
        "function-imported-by-a-computed-name",
        "import importlib",
        "return importlib.import_module('help' + 'ers').f()",
        "def f():\n    return 1\n",
        edit("return 1", "return 2", "helpers.py"),
    ),
    helper(
        "function-of-a-plug-in-folder",
        "import importlib",
        "return sum(importlib.import_module(p.stem).f() for p in Path('.').glob('helpers.py'))",
        "def f():\n    return 1\n",
        edit("return 1", "return 2", "helpers.py"),
    ),
    helper(
        "function-by-runpy",
        "import runpy",
        "return runpy.run_path('helpers.py')['f']()",
        "def f():\n    return 1\n",
        edit("return 1", "return 2", "helpers.py"),
    ),
    helper(
        "function-by-exec-of-a-file",
        "",
        "space = {}\nexec(Path('helpers.py').read_text(), space)\nreturn space['f']()",
        "def f():\n    return 1\n",
        edit("return 1", "return 2", "helpers.py"),
    ),
    helper(
        "function-by-a-text-pydoc-locate",
        "import pydoc",
        "return pydoc.locate('helpers.f')()",
        "def f():\n    return 1\n",
        edit("return 1", "return 2", "helpers.py"),
    ),
    helper(
        "class-of-another-module",
        "from helpers import C",
        "return C().f()",
        "class C:\n    def f(self):\n        return 1\n",
        edit("return 1", "return 2", "helpers.py"),
    ),
    helper(
        "effect-of-an-import",
        "import helpers\nimport decimal",
        "return int(decimal.getcontext().prec)",
        "import decimal\ndecimal.getcontext().prec = 10\n",
        edit("10", "12", "helpers.py"),
    ),
    helper(
        "same-comment",
        "import helpers",
        "return helpers.f()",
        "def f():\n    return 1\n",
        write("helpers.py", "# A comment.\n\n\ndef f():\n    return 1  # one\n"),
        "same",
    ),
    helper(
        "same-docstring",
        "import helpers",
        "return helpers.f()",
        "def f():\n    return 1\n",
        write("helpers.py", 'def f():\n    """Return one."""\n    return 1\n'),
        "same",
    ),
    helper(
        "same-formatting",
        "import helpers",
        "return helpers.f()",
        "def f():\n    return [1, 2][0]\n",
        write("helpers.py", "def f():\n    return [\n        1,\n        2,\n    ][0]\n"),
        "same",
    ),
    helper(
        "same-new-function-in-the-module",
        "import helpers",
        "return helpers.f()",
        "def f():\n    return 1\n",
        write("helpers.py", "def g():\n    return 5\n\n\ndef f():\n    return 1\n"),
        "same",
    ),
    helper(
        "same-unrelated-module",
        "",
        "return 1",
        "def f():\n    return 1\n",
        edit("return 1", "return 2", "helpers.py"),
        "same",
    ),
    helper("same-new-file", "", "return 1", "", write("new.py", "x = 1\n"), "same"),
    settings(
        "settings-of-json-inside",
        "conf.json",
        '{"depth": 1}',
        '{"depth": 2}',
        'import json\nCONFIG = json.load(open("conf.json"))\n',
    ),
    settings(
        "settings-of-json",
        "conf.json",
        '{"depth": 1}',
        '{"depth": 2}',
        'import json\nCONFIG = json.load(open("conf.json"))\n',
        inside=False,
    ),
    settings(
        "settings-of-toml-inside",
        "conf.toml",
        "depth = 1\n",
        "depth = 2\n",
        'import tomllib\nfrom pathlib import Path\nCONFIG = tomllib.loads(Path("conf.toml").read_text())\n',
    ),
    settings(
        "settings-of-toml",
        "conf.toml",
        "depth = 1\n",
        "depth = 2\n",
        'import tomllib\nfrom pathlib import Path\nCONFIG = tomllib.loads(Path("conf.toml").read_text())\n',
        inside=False,
    ),
    settings(
        "settings-of-yaml-inside",
        "conf.yaml",
        "depth: 1\n",
        "depth: 2\n",
        'import yaml\nwith open("conf.yaml") as file:\n    CONFIG = yaml.safe_load(file)\n',
    ),
    settings(
        "settings-of-ini-inside",
        "conf.ini",
        "[a]\ndepth = 1\n",
        "[a]\ndepth = 2\n",
        'import configparser\nparser = configparser.ConfigParser()\nparser.read("conf.ini")\nCONFIG = {"depth": parser.getint("a", "depth")}\n',
    ),
    settings(
        "settings-of-csv-inside",
        "conf.csv",
        "depth\n1\n",
        "depth\n2\n",
        'import polars as pl\nCONFIG = {"depth": pl.read_csv("conf.csv")["depth"][0]}\n',
    ),
    settings(
        "settings-of-pickle-inside",
        "conf.txt",
        "1",
        "2",
        'import json\nfrom pathlib import Path\nCONFIG = {"depth": json.loads(Path(__file__).with_name("conf.txt").read_text())}\n',
    ),
    probe(
        "new",
        "settings-of-an-own-import-inside",
        "\n    @cl.step\n    def work() -> int:\n        from settings import CONFIG\n        return CONFIG['depth']\n",
        write("conf.json", '{"depth": 2}'),
        {
            "conf.json": '{"depth": 1}',
            "settings.py": 'import json\nCONFIG = json.load(open("conf.json"))\n',
        },
    ),
    probe(
        "new",
        "settings-through-another-module",
        "\n    import middle\n\n    @cl.step\n    def work() -> int:\n        from middle import depth\n        return depth()\n",
        write("conf.json", '{"depth": 2}'),
        {
            "conf.json": '{"depth": 1}',
            "settings.py": 'import json\nCONFIG = json.load(open("conf.json"))\n',
            "middle.py": "import settings\n\ndef depth():\n    return settings.CONFIG['depth']\n",
        },
    ),
    probe(
        "new",
        "settings-of-a-package-inside",
        "\n    import conf\n\n    @cl.step\n    def work() -> int:\n        from conf.values import DEPTH\n        return DEPTH\n",
        write("conf/depth.txt", "2"),
        {
            "conf/__init__.py": "from conf import values\n",
            "conf/values.py": "from pathlib import Path\nDEPTH = int((Path(__file__).parent / 'depth.txt').read_text())\n",
            "conf/depth.txt": "1",
        },
    ),
    probe(
        "new",
        "settings-by-importlib-resources",
        "\n    import conf\n    from importlib import resources\n\n    @cl.step\n    def work() -> int:\n        return int(resources.files('conf').joinpath('depth.txt').read_text())\n",
        write("conf/depth.txt", "2"),
        {"conf/__init__.py": "", "conf/depth.txt": "1"},
    ),
    probe(
        "new",
        "settings-object-with-a-cached-loader",
        "\n    import settings\n\n    @cl.step\n    def work() -> int:\n        return settings.load()['depth']\n\n    @cl.pipeline\n    def main():\n        settings.load()\n        work()\n",
        write("conf.json", '{"depth": 2}'),
        {
            "conf.json": '{"depth": 1}',
            "settings.py": 'import functools\nimport json\n\n@functools.cache\ndef load():\n    return json.load(open("conf.json"))\n',
        },
    ),
]

LIVE = [
    probe(
        "new",
        "global-rebound-in-the-process",
        "\n    X = 1\n\n    @cl.step\n    def work() -> int:\n        return X\n",
        in_process(lambda root: setattr(sys.modules["pipelines"], "X", 2)),
    ),
    probe(
        "new",
        "global-list-mutated",
        "\n    X = [1]\n\n    @cl.step\n    def work() -> int:\n        return sum(X)\n",
        in_process(lambda root: sys.modules["pipelines"].X.append(2)),
    ),
    probe(
        "new",
        "global-deep-dict-mutated",
        "\n    X = {'a': {'b': [1]}}\n\n    @cl.step\n    def work() -> int:\n        return sum(X['a']['b'])\n",
        in_process(lambda root: sys.modules["pipelines"].X["a"]["b"].append(2)),
    ),
    probe(
        "new",
        "global-array-mutated",
        "\n    import numpy as np\n    X = np.ones(3)\n\n    @cl.step\n    def work() -> float:\n        return float(X.sum())\n",
        in_process(lambda root: sys.modules["pipelines"].X.__setitem__(0, 5)),
    ),
    probe(
        "new",
        "global-frame-mutated",
        "\n    import pandas as pd\n    X = pd.DataFrame({'x': [1, 2]})\n\n    @cl.step\n    def work() -> int:\n        return int(X['x'].sum())\n",
        in_process(lambda root: sys.modules["pipelines"].X.__setitem__("x", [5, 6])),
    ),
    probe(
        "new",
        "class-attribute-rebound",
        "\n    class C:\n        x = 1\n\n    @cl.step\n    def work() -> int:\n        return C.x\n",
        in_process(lambda root: setattr(sys.modules["pipelines"].C, "x", 2)),
    ),
    probe(
        "new",
        "instance-attribute-rebound",
        "\n    class C:\n        x = 1\n    c = C()\n\n    @cl.step\n    def work() -> int:\n        return c.x\n",
        in_process(lambda root: setattr(sys.modules["pipelines"].c, "x", 2)),
    ),
    probe(
        "new",
        "default-argument-rebound",
        "\n    def f(x=1):\n        return x\n\n    @cl.step\n    def work() -> int:\n        return f()\n",
        in_process(lambda root: setattr(sys.modules["pipelines"].f, "__defaults__", (2,))),
    ),
    probe(
        "new",
        "function-replaced",
        "\n    def f():\n        return 1\n\n    @cl.step\n    def work() -> int:\n        return f()\n",
        in_process(
            lambda root: setattr(
                sys.modules["pipelines"], "f", eval("lambda: 2", vars(sys.modules["pipelines"]))
            )
        ),
    ),
    probe(
        "new",
        "code-of-a-function-replaced",
        "\n    def f():\n        return 1\n\n    def g():\n        return 2\n\n    @cl.step\n    def work() -> int:\n        return f()\n",
        in_process(
            lambda root: setattr(
                sys.modules["pipelines"].f, "__code__", sys.modules["pipelines"].g.__code__
            )
        ),
    ),
    probe(
        "new",
        "closure-cell-changed",
        "\n    def make():\n        n = 1\n        def get():\n            return n\n        def put(x):\n            nonlocal n\n            n = x\n        return get, put\n    get, put = make()\n\n    @cl.step\n    def work() -> int:\n        return get()\n",
        in_process(lambda root: sys.modules["pipelines"].put(2)),
    ),
    probe(
        "new",
        "library-option-changed",
        "\n    import pandas as pd\n\n    @cl.step\n    def work() -> int:\n        return int(pd.get_option('display.max_rows'))\n",
        in_process(lambda root: __import__("pandas").set_option("display.max_rows", 7)),
    ),
    probe(
        "new",
        "context-variable-set",
        "\n    import contextvars\n    V = contextvars.ContextVar('V', default=1)\n\n    @cl.step\n    def work() -> int:\n        return V.get()\n",
        in_process(lambda root: sys.modules["pipelines"].V.set(2) and None),
    ),
    probe(
        "new",
        "file-edited-between-two-runs-of-a-process",
        "\n    @cl.step\n    def work() -> int:\n        return 1\n",
        in_process(
            lambda root: (root / "pipelines.py").write_text(
                (root / "pipelines.py").read_text().replace("return 1", "return 22")
            )
        ),
    ),
    probe(
        "new",
        "helper-edited-between-two-runs-of-a-process",
        "\n    import helpers\n\n    @cl.step\n    def work() -> int:\n        return helpers.f()\n",
        in_process(lambda root: (root / "helpers.py").write_text("def f():\n    return 22\n")),
        {"helpers.py": "def f():\n    return 1\n"},
    ),
]


def passed(
    name: str, body: str, before: str, after: str, head: str = "", expected: Any = "new"
) -> Probe:
    """A step that gets a value, made by an expression that changes."""
    lines = "\n            ".join(body.splitlines())
    heads = "\n        ".join(head.splitlines())
    text = f"""
        {heads}

        @cl.step
        def work(given) -> str:
            {lines}

        @cl.pipeline
        def main():
            work({before})
    """
    return probe(expected, name, text, edit(f"work({before})", f"work({after})"))


NUMPY, PANDAS, POLARS = "import numpy as np", "import pandas as pd", "import polars as pl"
FRAME = 'pd.DataFrame({"x": [1, 2]})'
ATTRS = "def named(frame, value):\n    frame.attrs['unit'] = value\n    return frame"

VALUES = [
    passed("integer-or-float", "return repr(given)", "1", "1.0"),
    passed("boolean-or-integer", "return repr(given)", "True", "1"),
    passed("negative-zero", "return repr(given)", "0.0", "-0.0"),
    passed("text-or-bytes", "return repr(given)", "'a'", "b'a'"),
    passed("tuple-or-list", "return repr(given)", "(1, 2)", "[1, 2]"),
    passed("order-of-a-dict", "return repr(list(given))", "{'a': 1, 'b': 2}", "{'b': 2, 'a': 1}"),
    passed("order-of-a-list", "return repr(given)", "[1, 2]", "[2, 1]"),
    passed(
        "array-dtype",
        "return str(given.dtype)",
        "np.array([1, 2], 'i4')",
        "np.array([1, 2], 'i8')",
        NUMPY,
    ),
    passed(
        "array-byte-order",
        "return str(given.dtype)",
        "np.array([1, 2], '<i4')",
        "np.array([1, 2], '>i4')",
        NUMPY,
    ),
    passed("array-shape", "return str(given.shape)", "np.ones((2, 3))", "np.ones((3, 2))", NUMPY),
    passed(
        "same-array-memory-order",
        "return str(given.flags.f_contiguous)",
        "np.ones((2, 3))",
        "np.asfortranarray(np.ones((2, 3)))",
        NUMPY,
        "same",
    ),
    passed(
        "same-array-read-only",
        "return str(given.flags.writeable)",
        "np.ones(3)",
        "np.broadcast_to(1.0, 3)",
        NUMPY,
        "same",
    ),
    passed(
        "frame-index",
        "return str(list(given.index))",
        FRAME,
        'pd.DataFrame({"x": [1, 2]}, index=[5, 6])',
        PANDAS,
    ),
    passed(
        "frame-index-name",
        "return str(given.index.name)",
        FRAME,
        'pd.DataFrame({"x": [1, 2]}).rename_axis("id")',
        PANDAS,
    ),
    passed(
        "frame-column-order",
        "return str(list(given))",
        'pd.DataFrame({"x": [1], "y": [2]})',
        'pd.DataFrame({"y": [2], "x": [1]})',
        PANDAS,
    ),
    passed(
        "frame-column-name", "return str(list(given))", FRAME, 'pd.DataFrame({"z": [1, 2]})', PANDAS
    ),
    passed(
        "frame-columns-axis-name",
        "return str(given.columns.name)",
        FRAME,
        'pd.DataFrame({"x": [1, 2]}).rename_axis(columns="c")',
        PANDAS,
    ),
    passed(
        "frame-dtype",
        "return str(given.dtypes.iloc[0])",
        FRAME,
        'pd.DataFrame({"x": [1, 2]}, dtype="float64")',
        PANDAS,
    ),
    passed(
        "frame-categories",
        "return str(list(given['x'].cat.categories))",
        'pd.DataFrame({"x": pd.Categorical(["a"], ["a", "b"])})',
        'pd.DataFrame({"x": pd.Categorical(["a"], ["b", "a"])})',
        PANDAS,
    ),
    passed(
        "frame-category-order",
        "return str(given['x'].cat.ordered)",
        'pd.DataFrame({"x": pd.Categorical(["a"], ["a", "b"])})',
        'pd.DataFrame({"x": pd.Categorical(["a"], ["a", "b"], ordered=True)})',
        PANDAS,
    ),
    passed(
        "frame-time-unit",
        "return str(given.dtypes.iloc[0])",
        'pd.DataFrame({"x": pd.to_datetime(["2026-01-01"]).as_unit("s")})',
        'pd.DataFrame({"x": pd.to_datetime(["2026-01-01"]).as_unit("ns")})',
        PANDAS,
    ),
    passed(
        "frame-time-zone",
        "return str(given.dtypes.iloc[0])",
        'pd.DataFrame({"x": pd.to_datetime(["2026-01-01"], utc=True)})',
        'pd.DataFrame({"x": pd.to_datetime(["2026-01-01"], utc=True).tz_convert("Asia/Tokyo")})',
        PANDAS,
    ),
    passed(
        "frame-missing-value",
        "return str(given['x'].isna().sum())",
        'pd.DataFrame({"x": [1.0, 2.0]})',
        'pd.DataFrame({"x": [1.0, None]})',
        PANDAS,
    ),
    passed(
        "frame-attributes",
        "return str(given.attrs)",
        'named(pd.DataFrame({"x": [1]}), "m")',
        'named(pd.DataFrame({"x": [1]}), "km")',
        f"{PANDAS}\n{ATTRS}",
    ),
    passed(
        "frame-row-order",
        "return str(given['x'].iloc[0])",
        FRAME,
        'pd.DataFrame({"x": [2, 1]})',
        PANDAS,
    ),
    passed(
        "frame-library",
        "return type(given).__module__",
        FRAME,
        'pl.DataFrame({"x": [1, 2]})',
        f"{PANDAS}\n{POLARS}",
    ),
    passed(
        "series-or-frame",
        "return type(given).__name__",
        FRAME,
        'pd.Series([1, 2], name="x")',
        PANDAS,
    ),
    passed(
        "series-name",
        "return str(given.name)",
        'pd.Series([1, 2], name="x")',
        'pd.Series([1, 2], name="y")',
        PANDAS,
    ),
    passed(
        "polars-dtype",
        "return str(given.dtypes[0])",
        'pl.DataFrame({"x": [1, 2]})',
        'pl.DataFrame({"x": [1, 2]}, schema={"x": pl.Int8})',
        POLARS,
    ),
    passed(
        "polars-sorted-flag",
        "return str(given['x'].flags['SORTED_ASC'])",
        'pl.DataFrame({"x": [1, 2]})',
        'pl.DataFrame({"x": [1, 2]}).sort("x")',
        POLARS,
    ),
    passed(
        "polars-enum-order",
        "return str(given['x'].dtype.categories.to_list())",
        'pl.DataFrame({"x": ["a"]}, schema={"x": pl.Enum(["a", "b"])})',
        'pl.DataFrame({"x": ["a"]}, schema={"x": pl.Enum(["b", "a"])})',
        POLARS,
    ),
    passed("function-as-an-argument", "return str(given(2))", "abs", "float"),
    passed("lambda-as-an-argument", "return str(given(2))", "lambda x: x + 1", "lambda x: x + 2"),
    passed("class-as-an-argument", "return given.__name__", "int", "float"),
    passed("none-or-missing", "return repr(given)", "None", "False"),
    passed(
        "same-equal-array",
        "return str(given.sum())",
        "np.array([1.0, 2.0])",
        "np.arange(1.0, 3.0)",
        NUMPY,
        "same",
    ),
    passed(
        "same-equal-frame",
        "return str(given['x'].sum())",
        FRAME,
        'pd.DataFrame({"x": [0, 1]}) + 1',
        PANDAS,
        "same",
    ),
    passed("same-equal-text", "return given", "'ab'", "'a' + 'b'", "", "same"),
]

PARAMETERS = [
    probe(
        "new",
        "pipeline-parameter",
        "\n    @cl.step\n    def work(n: int) -> int:\n        return n\n\n    @cl.pipeline\n    def main(n: int = 1):\n        work(n)\n",
        given(n=2),
    ),
    probe(
        "new",
        "pipeline-parameter-through-a-step",
        "\n    @cl.step\n    def load(n: int) -> int:\n        return n\n\n    @cl.step\n    def work(x: int) -> int:\n        return x + 1\n\n    @cl.pipeline\n    def main(n: int = 1):\n        work(load(n))\n",
        given(n=2),
    ),
    probe(
        "same",
        "same-unused-pipeline-parameter",
        "\n    @cl.step\n    def work() -> int:\n        return 1\n\n    @cl.pipeline\n    def main(n: int = 1):\n        work()\n",
        given(n=2),
    ),
    probe(
        "new",
        "step-default",
        "\n    @cl.step\n    def work(n: int = 1) -> int:\n        return n\n",
        edit("n: int = 1", "n: int = 2"),
    ),
    probe(
        "new",
        "step-body",
        "\n    @cl.step\n    def work() -> int:\n        return 1\n",
        edit("return 1", "return 2"),
    ),
    probe(
        "same",
        "same-step-comment",
        "\n    @cl.step\n    def work() -> int:\n        return 1\n",
        edit("return 1", "return 1  # one"),
    ),
    probe(
        "same",
        "same-step-moved-down",
        "\n    @cl.step\n    def work() -> int:\n        return 1\n",
        edit("@cl.step", "# Moved.\n\n\n@cl.step"),
    ),
    probe(
        "same",
        "same-other-step-edited",
        "\n    @cl.step\n    def work() -> int:\n        return 1\n\n    @cl.step\n    def other() -> int:\n        return 5\n",
        edit("return 5", "return 6"),
    ),
    probe(
        "new",
        "local-variable-of-the-pipeline",
        "\n    @cl.step\n    def work(f) -> int:\n        return f()\n\n    @cl.pipeline\n    def main():\n        n = 1\n        work(lambda: n)\n",
        edit("n = 1", "n = 2"),
    ),
    probe(
        "new",
        "step-called-through-a-partial",
        "\n    import functools\n\n    @cl.step\n    def work(n: int, m: int) -> int:\n        return n + m\n\n    @cl.pipeline\n    def main():\n        functools.partial(work, 1)(2)\n",
        edit("(work, 1)", "(work, 5)"),
    ),
]

PROBES = [*CONSTANTS, *MODULES, *LIVE, *VALUES, *PARAMETERS]
