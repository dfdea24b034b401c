"""The clock, the network, randomness, the environment, and what a file system says of files."""

from __future__ import annotations

import os
import sys
from typing import Any

from flow.probes.probe import (
    Change,
    Probe,
    do,
    environ,
    in_process,
    nothing,
    probe,
    remove,
    write,
)


def step(name: str, expected: Any, body: str, head: str, change: Change, **options: Any) -> Probe:
    """A single step with a body and what stands before it."""
    lines = "\n            ".join(body.splitlines())
    heads = "\n        ".join(head.splitlines())
    text = f"""
        {heads}

        @cl.step
        def work() -> str:
            {lines}
    """
    return probe(expected, name, text, change, **options)


def never(name: str, body: str, head: str = "", **options: Any) -> Probe:
    """A step whose result is another one each time."""
    return step(name, "never", body, head, nothing(), **options)


def variable(name: str, body: str, head: str = "", **options: Any) -> Probe:
    """A step that depends on the environment variable LEVEL, which changes."""
    return step(name, "new", body, head, environ(LEVEL="high"), environ={"LEVEL": "low"}, **options)


def metadata(name: str, body: str, change: Change, head: str = "", **options: Any) -> Probe:
    """A step that asks for more of a file than its content."""
    files = {"in.txt": "one", "data/a.txt": "one"}
    return step(name, "new", body, head, change, files=files, **options)


CLOCK = [
    never("datetime-now", "return str(datetime.now())", "from datetime import datetime"),
    never("datetime-module-now", "return str(datetime.datetime.now())", "import datetime"),
    never(
        "datetime-now-with-a-zone",
        "return str(datetime.now(timezone.utc))",
        "from datetime import datetime, timezone",
    ),
    never("date-today", "return str(date.today())", "from datetime import date"),
    never("time-time", "return str(time.time())", "import time"),
    never("from-time-import-time", "return str(time())", "from time import time"),
    never("time-strftime", 'return time.strftime("%H:%M:%S")', "import time"),
    never("time-localtime", "return str(time.localtime().tm_sec)", "import time"),
    never("pandas-timestamp-now", "return str(pd.Timestamp.now())", "import pandas as pd"),
    never("pandas-timestamp-today", "return str(pd.Timestamp.today())", "import pandas as pd"),
    never("pandas-to-datetime-now", 'return str(pd.to_datetime("now"))', "import pandas as pd"),
    never("numpy-datetime64-now", 'return str(np.datetime64("now", "us"))', "import numpy as np"),
    never(
        "clock-in-a-helper",
        "return helper()",
        "import time\ndef helper():\n    return str(time.time_ns())",
    ),
    never(
        "clock-by-another-name",
        "return str(now())",
        "from datetime import datetime\nnow = datetime.now",
    ),
    never(
        "clock-in-a-dataclass-factory",
        "return str(Row().at)",
        "import time\nfrom dataclasses import dataclass, field\n\n@dataclass\nclass Row:\n    at: float = field(default_factory=time.time)",
    ),
    step(
        "clock-at-import",
        "new",
        "return str(STARTED)",
        "import time\nSTARTED = time.time()",
        nothing(),
    ),
    step(
        "clock-in-a-default",
        "new",
        "return stamp()",
        "from datetime import datetime\ndef stamp(now=datetime.now()):\n    return str(now)",
        nothing(),
    ),
    step(
        "address-fetched-at-import",
        "new",
        "return str(X)",
        'import pandas as pd\nX = int(pd.read_csv("http://127.0.0.1:PROBE_PORT/t.csv")["x"][0])',
        nothing(),
    ),
]

# What libraries do on their own does not make a step uncacheable.
QUIET = [
    step(
        "same-duration-is-logged",
        "same",
        'start = time.perf_counter()\ncl.log_metric("seconds", time.perf_counter() - start)\nreturn "1"',
        "import time",
        nothing(),
    ),
    step(
        "same-logging",
        "same",
        'logging.getLogger("probe").warning("a line")\nreturn "1"',
        "import logging",
        nothing(),
    ),
    step("same-printing", "same", 'print("a line")\nreturn "1"', "", nothing()),
    step(
        "same-scratch-folder",
        "same",
        'with tempfile.TemporaryDirectory() as folder:\n    (Path(folder) / "a").write_text("x")\n    return (Path(folder) / "a").read_text()',
        "import tempfile",
        nothing(),
    ),
    step(
        "same-name-based-uuid",
        "same",
        'return str(uuid.uuid5(uuid.NAMESPACE_URL, "x"))',
        "import uuid",
        nothing(),
    ),
    step(
        "same-database-in-memory",
        "same",
        'return str(sqlite3.connect(":memory:").execute("SELECT 1").fetchone()[0])',
        "import sqlite3",
        nothing(),
    ),
    step(
        "same-train-test-split",
        "same",
        "return str(train_test_split(np.arange(9))[0].sum())",
        "import numpy as np\nfrom sklearn.model_selection import train_test_split",
        nothing(),
    ),
    step(
        "same-forest",
        "same",
        "X = np.arange(20.0).reshape(10, 2)\nreturn str(RandomForestRegressor(3).fit(X, X[:, 0]).predict(X).sum())",
        "import numpy as np\nfrom sklearn.ensemble import RandomForestRegressor",
        nothing(),
    ),
    step(
        "same-lightgbm-training",
        "same",
        'X = np.arange(80.0).reshape(40, 2)\nreturn str(lgb.train({"verbose": -1, "num_threads": 1}, lgb.Dataset(X, X[:, 0]), 2).num_trees())',
        "import lightgbm as lgb\nimport numpy as np",
        nothing(),
    ),
    step(
        "same-thread-pool",
        "same",
        "with ThreadPoolExecutor(2) as pool:\n    return str(sum(pool.map(abs, [1, 2])))",
        "from concurrent.futures import ThreadPoolExecutor",
        nothing(),
    ),
    step(
        "same-process-pool-that-computes",
        "same",
        "with ProcessPoolExecutor(1, get_context('fork')) as pool:\n    return str(pool.submit(abs, -1).result())",
        "from concurrent.futures import ProcessPoolExecutor\nfrom multiprocessing import get_context",
        nothing(),
    ),
    step(
        "same-polars-query",
        "same",
        'return str(pl.DataFrame({"x": [1, 2]}).lazy().filter(pl.col("x") > 1).collect()["x"][0])',
        "import polars as pl",
        nothing(),
    ),
    step(
        "same-table-in-memory",
        "same",
        'return str(pd.read_csv(io.StringIO("x\\n1\\n"))["x"][0])',
        "import io\nimport pandas as pd",
        nothing(),
    ),
    step(
        "same-library-imported-inside",
        "same",
        "from sklearn.tree import DecisionTreeRegressor\nreturn str(DecisionTreeRegressor().fit([[1]], [1]).get_depth())",
        "",
        nothing(),
    ),
    step(
        "same-output-folder-is-made",
        "same",
        'Path("out").mkdir(exist_ok=True)\n(Path("out") / "a.txt").write_text("x")\nreturn "1"',
        "",
        nothing(),
    ),
]

CHANCE = [
    never("os-urandom", "return os.urandom(8).hex()", "import os"),
    never("uuid4", "return str(uuid.uuid4())", "import uuid"),
    never("secrets-token", "return secrets.token_hex(8)", "import secrets"),
    never("system-random", "return str(random.SystemRandom().random())", "import random"),
    never(
        "numpy-default-rng-without-a-seed",
        "return str(np.random.default_rng().random())",
        "import numpy as np",
    ),
    never("random-random-without-a-seed", "return str(random.Random().random())", "import random"),
    never("process-id", "return str(os.getpid())", "import os"),
    step(
        "same-global-generators-are-seeded",
        "same",
        "return str((random.random(), np.random.rand()))",
        "import random\nimport numpy as np",
        nothing(),
    ),
    step(
        "same-numpy-rng-with-a-seed",
        "same",
        "return str(np.random.default_rng(3).random())",
        "import numpy as np",
        nothing(),
    ),
    step(
        "same-random-with-a-seed",
        "same",
        "return str(random.Random(3).random())",
        "import random",
        nothing(),
    ),
    step(
        "same-datetime-of-a-text",
        "same",
        'return str(datetime.fromisoformat("2026-01-01").date())',
        "from datetime import datetime",
        nothing(),
    ),
    step("same-sleep", "same", "time.sleep(0.001)\nreturn '1'", "import time", nothing()),
]

NETWORK = [
    never(
        "urllib-urlopen",
        'return urlopen("http://127.0.0.1:PROBE_PORT/").read().decode()',
        "from urllib.request import urlopen",
    ),
    never(
        "pandas-read-csv-of-an-address",
        'return str(pd.read_csv("http://127.0.0.1:PROBE_PORT/t.csv")["x"][0])',
        "import pandas as pd",
    ),
    never(
        "requests-get",
        'return requests.get("http://127.0.0.1:PROBE_PORT/").text',
        "import requests",
        needs=("requests",),
    ),
    never("httpx-get", 'return httpx.get("http://127.0.0.1:PROBE_PORT/").text', "import httpx"),
    never(
        "http-client",
        'c = http.client.HTTPConnection("127.0.0.1", PROBE_PORT)\nc.request("GET", "/")\nreturn c.getresponse().read().decode()',
        "import http.client",
    ),
    never(
        "socket-connection",
        's = socket.create_connection(("127.0.0.1", PROBE_PORT))\ns.sendall(b"GET / HTTP/1.0\\r\\n\\r\\n")\nreturn s.makefile().read()[-3:]',
        "import socket",
    ),
    never(
        "asyncio-connection",
        "return asyncio.run(fetch())",
        'import asyncio\n\nasync def fetch():\n    reader, writer = await asyncio.open_connection("127.0.0.1", PROBE_PORT)\n    writer.write(b"GET / HTTP/1.0\\r\\n\\r\\n")\n    return (await reader.read(-1)).decode()[-3:]',
    ),
]

ENVIRONMENT = [
    variable("environ-index", 'return os.environ["LEVEL"]', "import os"),
    variable("environ-get", 'return os.environ.get("LEVEL", "")', "import os"),
    variable("os-getenv", 'return os.getenv("LEVEL")', "import os"),
    variable("from-os-import-environ", 'return environ["LEVEL"]', "from os import environ"),
    variable(
        "from-os-import-getenv-by-another-name",
        'return read("LEVEL")',
        "from os import getenv as read",
    ),
    variable("environ-membership", 'return str("high" in os.environ.values())', "import os"),
    variable("environ-copied", 'return dict(os.environ)["LEVEL"]', "import os"),
    variable("environ-name-in-a-constant", "return os.environ[NAME]", 'import os\nNAME = "LEVEL"'),
    variable("environ-name-computed", 'return os.environ["LEV" + "el".upper()]', "import os"),
    variable(
        "environ-in-a-comprehension", 'return str([os.environ[n] for n in ("LEVEL",)])', "import os"
    ),
    variable(
        "environ-by-a-partial",
        "return level()",
        'import functools\nimport os\nlevel = functools.partial(os.getenv, "LEVEL", "")',
    ),
    variable(
        "environ-by-a-lambda", "return level()", 'import os\nlevel = lambda: os.environ["LEVEL"]'
    ),
    variable("environ-by-a-bound-method", 'return get("LEVEL")', "import os\nget = os.environ.get"),
    variable(
        "environ-by-an-item-getter",
        "return read(os.environ)",
        'import operator\nimport os\nread = operator.itemgetter("LEVEL")',
    ),
    variable(
        "environ-in-a-method",
        "return Settings().level()",
        'import os\n\nclass Settings:\n    def level(self):\n        return os.environ["LEVEL"]',
    ),
    variable(
        "environ-in-a-property",
        "return Settings().level",
        'import os\n\nclass Settings:\n    @property\n    def level(self):\n        return os.environ["LEVEL"]',
    ),
    variable(
        "environ-in-a-dataclass-factory",
        "return Settings().level",
        'import os\nfrom dataclasses import dataclass, field\n\n@dataclass\nclass Settings:\n    level: str = field(default_factory=lambda: os.environ["LEVEL"])',
    ),
    variable(
        "environ-in-a-default",
        "return level()",
        'import os\n\ndef level(found=os.environ["LEVEL"]):\n    return found',
    ),
    variable("environ-at-import", "return LEVEL", 'import os\nLEVEL = os.environ["LEVEL"]'),
    variable(
        "environ-at-import-of-another-module",
        "from settings import LEVEL\nreturn LEVEL",
        files={"settings.py": 'import os\nLEVEL = os.environ["LEVEL"]\n'},
    ),
    variable("environ-expandvars", 'return os.path.expandvars("$LEVEL")', "import os"),
    variable(
        "environ-of-a-child",
        'return subprocess.run(["sh", "-c", "echo $LEVEL"], capture_output=True, text=True).stdout',
        "import subprocess",
    ),
    variable("environ-of-posix", 'return posix.environ[b"LEVEL"].decode()', "import posix"),
    step(
        "home-by-path",
        "new",
        "return str(Path.home())",
        "",
        environ(HOME="/tmp/second"),
        environ={"HOME": "/tmp/first"},
    ),
    step(
        "home-by-expanduser",
        "new",
        'return os.path.expanduser("~/data")',
        "import os",
        environ(HOME="/tmp/second"),
        environ={"HOME": "/tmp/first"},
    ),
    step(
        "path-expanduser",
        "new",
        'return str(Path("~/data").expanduser())',
        "",
        environ(HOME="/tmp/second"),
        environ={"HOME": "/tmp/first"},
    ),
    step(
        "user-by-getpass",
        "new",
        "return getpass.getuser()",
        "import getpass",
        environ(LOGNAME="second"),
        environ={"LOGNAME": "first"},
    ),
    step(
        "time-zone",
        "new",
        "time.tzset()\nreturn str(datetime.fromtimestamp(0).hour)",
        "import time\nfrom datetime import datetime",
        environ(TZ="Asia/Tokyo"),
        environ={"TZ": "UTC"},
    ),
    step(
        "thread-count-of-the-environment",
        "new",
        'return os.environ.get("OMP_NUM_THREADS", "")',
        "import os",
        environ(OMP_NUM_THREADS="2"),
    ),
    step(
        "working-directory",
        "new",
        "return os.getcwd()[-3:]",
        "import os",
        in_process(lambda root: ((root / "sub").mkdir(), os.chdir(root / "sub"))),
    ),
    step(
        "working-directory-by-path",
        "new",
        "return Path.cwd().name",
        "",
        in_process(lambda root: ((root / "sub").mkdir(), os.chdir(root / "sub"))),
    ),
    step(
        "program-arguments",
        "new",
        "return str(len(sys.argv))",
        "import sys",
        in_process(lambda root: sys.argv.append("--more")),
    ),
    step(
        "decimal-context",
        "new",
        "return str(Decimal(1) / 3)",
        "from decimal import Decimal",
        in_process(lambda root: setattr(__import__("decimal").getcontext(), "prec", 5)),
    ),
    step(
        "same-other-variable",
        "same",
        'return os.environ["LEVEL"]',
        "import os",
        environ(OTHER="2"),
        environ={"LEVEL": "low"},
    ),
    step(
        "same-no-variable-is-read",
        "same",
        "return '1'",
        "import os",
        environ(LEVEL="high"),
        environ={"LEVEL": "low"},
    ),
    probe(
        "same",
        "same-declared-variable",
        'import os\n\n@cl.step(env=["LEVEL"])\ndef work() -> str:\n    return os.environ["LEV" + "EL"]\n',
        environ(OTHER="2"),
        environ={"LEVEL": "low"},
    ),
    probe(
        "new",
        "declared-variable",
        'import os\n\n@cl.step(env=["LEVEL"])\ndef work() -> str:\n    return os.environ["LEV" + "EL"]\n',
        environ(LEVEL="high"),
        environ={"LEVEL": "low"},
    ),
]

METADATA = [
    metadata("path-exists", 'return str(Path("in.txt").exists())', remove("in.txt")),
    metadata("path-exists-of-a-new-file", 'return str(Path("flag").exists())', write("flag", "")),
    metadata("path-is-file", 'return str(Path("in.txt").is_file())', remove("in.txt")),
    metadata(
        "path-is-dir-of-a-new-folder", 'return str(Path("more").is_dir())', write("more/a.txt", "")
    ),
    metadata(
        "os-path-exists", 'return str(os.path.exists("flag"))', write("flag", ""), "import os"
    ),
    metadata("os-access", 'return str(os.access("flag", os.R_OK))', write("flag", ""), "import os"),
    metadata(
        "os-stat-size",
        'return str(os.stat("in.txt").st_size)',
        write("in.txt", "longer"),
        "import os",
    ),
    metadata(
        "path-stat-time",
        'return str(Path("in.txt").stat().st_mtime)',
        do(lambda root: os.utime(root / "in.txt", (1, 1))),
    ),
    metadata(
        "os-path-getsize",
        'return str(os.path.getsize("in.txt"))',
        write("in.txt", "longer"),
        "import os",
    ),
    metadata(
        "os-path-getmtime",
        'return str(os.path.getmtime("in.txt"))',
        do(lambda root: os.utime(root / "in.txt", (1, 1))),
        "import os",
    ),
    metadata(
        "os-readlink",
        'return os.readlink("now")',
        do(lambda root: ((root / "now").unlink(), (root / "now").symlink_to("b"))),
        "import os",
        setup=lambda root: (root / "now").symlink_to("a"),
    ),
    metadata(
        "path-resolve-of-a-link",
        'return Path("now").resolve().name',
        do(lambda root: ((root / "now").unlink(), (root / "now").symlink_to("b"))),
        setup=lambda root: (root / "now").symlink_to("a"),
    ),
    metadata(
        "open-of-a-missing-file",
        'try:\n    return Path("flag").read_text()\nexcept FileNotFoundError:\n    return "none"',
        write("flag", "made"),
    ),
    metadata(
        "exists-at-import", "return str(THERE)", write("flag", ""), 'THERE = Path("flag").exists()'
    ),
    metadata(
        "shutil-disk-of-a-folder",
        "return str(sum(f.stat().st_size for f in Path('data').iterdir()))",
        write("data/a.txt", "longer"),
    ),
    metadata("glob-exists", 'return str(glob.glob("in.*"))', write("in.csv", ""), "import glob"),
]

PROBES = [*CLOCK, *QUIET, *CHANCE, *NETWORK, *ENVIRONMENT, *METADATA]
