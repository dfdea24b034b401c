"""Functions whose result depends on neither arguments nor files are known by what they are."""

import datetime
import functools
import importlib
import multiprocessing
import os
import random
import secrets
import time
import uuid
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from clewline.flow.keys.impure_calls import FACTS, fact_of, unrepeatable
from clewline.flow.keys.step_key import function_parts, step_key

CLOCK_OR_CHANCE = [
    time.time,
    time.localtime,
    datetime.datetime.now,
    datetime.datetime.utcnow,
    datetime.date.today,
    pd.Timestamp.now,
    pd.Timestamp.today,
    os.urandom,
    uuid.uuid4,
    secrets.token_hex,
    secrets.choice,
    random.SystemRandom,
    random.SystemRandom().random,
    np.random.default_rng,
    np.random.RandomState,
    np.random.seed,
    random.seed,
    functools.partial(time.time),
    os.getpid,
    input,
]

REPEATABLE = [
    time.perf_counter,
    time.monotonic,
    datetime.datetime.fromisoformat,
    pd.Timestamp.fromisoformat,
    random.random,
    np.random.rand,
    uuid.uuid5,
    len,
    os.path.join,
    42,
]


@pytest.mark.parametrize(
    "call", CLOCK_OR_CHANCE, ids=lambda call: getattr(call, "__qualname__", repr(type(call)))
)
def test_the_clock_and_chance_are_known(call):
    assert unrepeatable(call, 0)


@pytest.mark.parametrize(
    "call", REPEATABLE, ids=lambda call: getattr(call, "__qualname__", repr(type(call)))
)
def test_other_functions_are_not(call):
    assert unrepeatable(call, 0) is None
    assert fact_of(call) is None


@pytest.mark.parametrize(
    "call",
    [np.random.default_rng, np.random.RandomState, random.seed],
    ids=["default_rng", "RandomState", "seed"],
)
def test_a_seed_makes_a_generator_repeatable(call):
    assert unrepeatable(call, 1) is None


@pytest.mark.parametrize(
    ("call", "fact"),
    [
        (os.cpu_count, "os.cpu_count()"),
        (multiprocessing.cpu_count, "os.cpu_count()"),
        (os.getcwd, "os.getcwd()"),
        (Path.cwd, "os.getcwd()"),
        (Path.home, "HOME"),
        (os.path.expanduser, "HOME"),
    ],
)
def test_a_fact_of_the_machine_is_named(call, fact):
    assert fact_of(call) == fact


def keyed(folder, monkeypatch, body, head=""):
    """The key of a step with this body."""
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.delitem(importlib.sys.modules, "asking", raising=False)
    (folder / "asking.py").write_text(f"{head}\n\ndef step():\n    {body}\n")
    importlib.invalidate_caches()
    parts = function_parts(importlib.import_module("asking").step, folder)
    monkeypatch.delitem(importlib.sys.modules, "asking")
    return step_key(parts, {}, {}, seed=0, env={})


@pytest.mark.parametrize(
    ("head", "body"),
    [
        ("import time", "return time.time()"),
        ("from time import time as now", "return now()"),
        ("", "import time\n    return time.time()"),
        ("", "from datetime import datetime\n    return datetime.now()"),
        ("from datetime import datetime", "return datetime.now()"),
        ("import datetime as dt", "return dt.datetime.now(dt.timezone.utc)"),
        ("import datetime\nNOW = datetime.datetime.now", "return NOW()"),
        ("import time\nASK = {'now': time.time}", "return ASK['now']()"),
        ("import numpy as np", "return np.random.default_rng().random()"),
        ("import numpy as np", "return np.random.default_rng(None).random()"),
        ("from numpy.random import default_rng", "return default_rng().random()"),
        ("import pandas as pd", "return pd.to_datetime('now')"),
        ("import numpy as np", "return np.datetime64('now', 'us')"),
        ("import polars as pl", "return pl.sql('SELECT * FROM people')"),
    ],
)
def test_a_step_that_asks_the_clock_or_chance_has_no_key(tmp_path, monkeypatch, head, body):
    key = keyed(tmp_path, monkeypatch, body, head)
    assert key.digest is None
    assert "asking.py" in key.uncacheable


@pytest.mark.parametrize(
    ("head", "body"),
    [
        ("import time", "return time.perf_counter()"),
        ("import numpy as np", "return np.random.default_rng(7).random()"),
        ("import datetime", "return datetime.datetime(2026, 1, 1).isoformat()"),
        ("import random", "return random.random()"),
        ("import polars as pl\npeople = 1", "return pl.sql('SELECT * FROM people')"),
        ("import polars as pl", "people = 1\n    return pl.sql('SELECT * FROM people')"),
        ("import polars as pl", "return pl.sql('WITH t AS (SELECT 1) SELECT * FROM t')"),
        ("import pandas as pd", "return pd.to_datetime('2026-01-01')"),
        ("import numpy as np\nimport pandas as pd", "return pd.Timestamp('2026-01-01')"),
    ],
)
def test_ordinary_code_keeps_its_key(tmp_path, monkeypatch, head, body):
    assert keyed(tmp_path, monkeypatch, body, head).digest is not None


@pytest.mark.parametrize(
    ("head", "body", "fact"),
    [
        ("import getpass", "return getpass.getuser()", "getpass.getuser()"),
        ("", "from datetime import datetime\n    return datetime.fromtimestamp(0)", "time.tzname"),
        ("from decimal import Decimal", "return Decimal(1) / 3", "decimal.getcontext()"),
    ],
)
def test_a_hidden_fact_is_part_of_the_key(tmp_path, monkeypatch, head, body, fact):
    assert fact in keyed(tmp_path, monkeypatch, body, head).parts["environ"]


def test_a_fact_of_the_machine_is_part_of_the_key(tmp_path, monkeypatch):
    body = "import os\n    return os.cpu_count()"
    old = keyed(tmp_path, monkeypatch, body)
    monkeypatch.setitem(FACTS, "os.cpu_count()", lambda: 10**6)
    new = keyed(tmp_path, monkeypatch, body)
    assert new.parts["environ"] == {"os.cpu_count()": "1000000"}
    assert new.digest not in (None, old.digest)
