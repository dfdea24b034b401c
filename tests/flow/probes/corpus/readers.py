"""Files that a step reads without being given them: by any library, in any process."""

from __future__ import annotations

from pathlib import Path

from flow.probes.probe import Probe, do, probe, write

CSV = {"in.csv": "x,y\n1,0\n2,1\n3,0\n4,1\n"}
OTHER_CSV = "x,y\n10,0\n20,1\n30,0\n40,1\n"


def table(path: Path, factor: int) -> None:
    """Write a table in the format of the path's suffix."""
    import pyarrow as pa
    import pyarrow.feather as feather
    import pyarrow.orc as orc
    import pyarrow.parquet as pq

    path.parent.mkdir(exist_ok=True)
    made = pa.table({"x": [1 * factor, 2 * factor, 3 * factor]})
    {".parquet": pq.write_table, ".feather": feather.write_feather, ".orc": orc.write_table}[
        path.suffix
    ](made, str(path))


def reads(name: str, body: str, head: str = "", **options: object) -> Probe:
    """A step that reads `in.csv`, which changes."""
    lines = "\n            ".join(body.splitlines())
    heads = "\n        ".join(head.splitlines())
    text = f"""
        {heads}

        @cl.step
        def work() -> float:
            {lines}
    """
    return probe("new", name, text, write("in.csv", OTHER_CSV), CSV, **options)


def reads_table(name: str, body: str, head: str, file: str = "in.parquet") -> Probe:
    """A step that reads a table in a binary format, which changes."""
    lines = "\n            ".join(body.splitlines())
    heads = "\n        ".join(head.splitlines())
    text = f"""
        {heads}

        @cl.step
        def work() -> float:
            {lines}
    """
    change = do(lambda root: table(root / file, 10))
    return probe("new", name, text, change, setup=lambda root: table(root / file, 1))


TRAIN = """
    import numpy as np
    import {library}

    X = np.arange(40.0).reshape(20, 2)

    @cl.step
    def work() -> float:
        {body}
"""


def xgboost_model(root: Path, sign: int) -> None:
    """Write a small XGBoost model."""
    import numpy as np
    import xgboost as xgb

    X = np.arange(40.0).reshape(20, 2)
    data = xgb.DMatrix(X, label=sign * X[:, 0])
    xgb.train({"max_depth": 2, "nthread": 1}, data, 3).save_model(root / "model.json")


def lightgbm_model(root: Path, sign: int) -> None:
    """Write a small LightGBM model."""
    import lightgbm as lgb
    import numpy as np

    X = np.arange(400.0).reshape(200, 2)
    lgb.train({"verbose": -1, "num_threads": 1}, lgb.Dataset(X, sign * X[:, 0]), 3).save_model(
        root / "model.txt"
    )


def onnx_model(root: Path, addend: int) -> None:
    """Write an ONNX model that adds a number."""
    import numpy as np
    from onnx import TensorProto, helper, numpy_helper, save

    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        [helper.make_node("Add", ["x", "c"], ["y"])],
        "add",
        [value("x", TensorProto.FLOAT, [1])],
        [value("y", TensorProto.FLOAT, [1])],
        [numpy_helper.from_array(np.array([addend], np.float32), "c")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    save(model, root / "model.onnx")


def sqlite_table(root: Path, count: int) -> None:
    """Add rows to a table of a SQLite file."""
    import sqlite3

    with sqlite3.connect(root / "in.db") as database:
        database.execute("CREATE TABLE IF NOT EXISTS t (x INTEGER)")
        database.executemany("INSERT INTO t VALUES (?)", [(each,) for each in range(count)])
    database.close()


def pickled(root: Path, value: int) -> None:
    """Write a pickle, a joblib file and a numpy file."""
    import pickle

    import joblib
    import numpy as np

    (root / "in.pkl").write_bytes(pickle.dumps({"x": value}))
    joblib.dump({"x": value}, root / "in.joblib")
    np.save(root / "in.npy", np.array([value]))
    np.savez(root / "in.npz", x=np.array([value]))


def pickle_probe(name: str, body: str, head: str) -> Probe:
    """A step that reads a file of `pickled`."""
    text = f"\n        {head}\n\n        @cl.step\n        def work() -> int:\n            {body}\n"
    change = do(lambda root: pickled(root, 2))
    return probe("new", name, text, change, setup=lambda root: pickled(root, 1))


PYTHON = [
    reads("open-and-read", 'with open("in.csv") as file:\n    return float(len(file.read()))'),
    reads("path-read-text", 'return float(len(Path("in.csv").read_text()))'),
    reads(
        "os-open",
        'import os\nfd = os.open("in.csv", os.O_RDONLY)\nreturn float(len(os.read(fd, 99)))',
    ),
    reads(
        "mmap-of-a-file",
        'import mmap\nwith open("in.csv", "rb") as f:\n    return float(len(mmap.mmap(f.fileno(), 0, access=mmap.ACCESS_READ)))',
    ),
    reads(
        "csv-reader",
        'with open("in.csv") as f:\n    return float(list(csv.DictReader(f))[0]["x"])',
        "import csv",
    ),
    reads(
        "file-relative-to-the-module",
        'return float(len((Path(__file__).parent / "in.csv").read_text()))',
    ),
    reads(
        "fileinput",
        'import fileinput\nwith fileinput.input("in.csv") as f:\n    return float(sum(len(line) for line in f))',
    ),
    reads("linecache", 'import linecache\nreturn float(len(linecache.getline("in.csv", 2)))'),
    reads(
        "shutil-copy-then-read",
        'import shutil\nshutil.copy("in.csv", "copy.csv")\nreturn float(len(Path("copy.csv").read_text()))',
    ),
    reads(
        "os-sendfile",
        'import os\nsource = os.open("in.csv", os.O_RDONLY)\ntarget = os.open("out.csv", os.O_RDWR | os.O_CREAT | os.O_TRUNC)\nos.sendfile(target, source, 0, 99)\nreturn float(os.lseek(target, 0, os.SEEK_END))',
    ),
    reads(
        "file-opened-at-import",
        "FILE.seek(0)\nreturn float(len(FILE.read()))",
        'FILE = open("in.csv")',
    ),
    reads("text-read-at-import", "return float(len(TEXT))", 'TEXT = Path("in.csv").read_text()'),
    reads(
        "rows-read-at-import-in-a-class",
        "return Settings.first",
        'class Settings:\n    first = float(Path("in.csv").read_text().split()[1].split(",")[0])',
    ),
    reads(
        "cached-read",
        "return load()",
        'import functools\n\n@functools.lru_cache\ndef load():\n    return float(len(Path("in.csv").read_text()))',
    ),
    reads(
        "cached-property",
        "return Data().text",
        'import functools\n\nclass Data:\n    @functools.cached_property\n    def text(self):\n        return float(len(Path("in.csv").read_text()))',
    ),
    reads(
        "generator-that-reads",
        "return sum(rows())",
        'def rows():\n    with open("in.csv") as file:\n        for line in file:\n            yield float(len(line))',
    ),
    reads(
        "default-argument-names-the-file",
        "return load()",
        'def load(path=Path("in.csv")):\n    return float(len(path.read_text()))',
    ),
    reads(
        "partial-of-open",
        "with read() as file:\n    return float(len(file.read()))",
        'import functools\nread = functools.partial(open, "in.csv")',
    ),
    reads(
        "path-text-in-a-parameter",
        "return load('in.csv')",
        "def load(path: str):\n    return float(len(open(path).read()))",
    ),
    reads(
        "tarfile",
        'import tarfile\nwith tarfile.open("t.tar", "w") as t:\n    t.add("in.csv")\nreturn float(len(Path("in.csv").read_bytes()))',
    ),
]

LIBRARIES = [
    reads(
        "pandas-read-csv", 'return float(pd.read_csv("in.csv")["x"].sum())', "import pandas as pd"
    ),
    reads(
        "pandas-read-csv-by-arrow",
        'return float(pd.read_csv("in.csv", engine="pyarrow")["x"].sum())',
        "import pandas as pd",
    ),
    reads(
        "from-pandas-import-read-csv",
        'return float(read_csv("in.csv")["x"].sum())',
        "from pandas import read_csv",
    ),
    reads(
        "pandas-read-table",
        'return float(pd.read_table("in.csv", sep=",")["x"].sum())',
        "import pandas as pd",
    ),
    reads(
        "numpy-loadtxt",
        'return float(np.loadtxt("in.csv", delimiter=",", skiprows=1).sum())',
        "import numpy as np",
    ),
    reads(
        "numpy-genfromtxt",
        'return float(np.genfromtxt("in.csv", delimiter=",", skip_header=1).sum())',
        "import numpy as np",
    ),
    reads(
        "numpy-fromfile",
        'return float(np.fromfile("in.csv", dtype="u1").sum())',
        "import numpy as np",
    ),
    reads(
        "numpy-memmap",
        'return float(np.memmap("in.csv", dtype="u1", mode="r").sum())',
        "import numpy as np",
    ),
    reads(
        "polars-read-csv", 'return float(pl.read_csv("in.csv")["x"].sum())', "import polars as pl"
    ),
    reads(
        "from-polars-import-read-csv",
        'return float(read_csv("in.csv")["x"].sum())',
        "from polars import read_csv",
    ),
    reads(
        "from-polars-import-scan-csv",
        'return float(scan_csv("in.csv").collect()["x"].sum())',
        "from polars import scan_csv",
    ),
    reads(
        "script-from-polars-import-read-csv",
        'return float(read_csv("in.csv")["x"].sum())',
        "from polars import read_csv",
        script=True,
    ),
    reads(
        "script-from-polars-import-scan-csv",
        'return float(scan_csv("in.csv").collect()["x"].sum())',
        "from polars import scan_csv",
        script=True,
    ),
    reads(
        "polars-read-csv-in-the-function",
        'from polars import read_csv\nreturn float(read_csv("in.csv")["x"].sum())',
    ),
    reads(
        "polars-reader-in-a-dict",
        'return float(READ["csv"]("in.csv")["x"].sum())',
        'import polars as pl\nREAD = {"csv": pl.read_csv}',
    ),
    reads(
        "script-polars-reader-in-a-dict",
        'return float(READ["csv"]("in.csv")["x"].sum())',
        'import polars as pl\nREAD = {"csv": pl.read_csv}',
        script=True,
    ),
    reads(
        "polars-scan-csv-in-the-step",
        'return float(pl.scan_csv("in.csv").collect()["x"].sum())',
        "import polars as pl",
    ),
    reads(
        "polars-scan-csv-of-the-module",
        'return float(LF.collect()["x"].sum())',
        'import polars as pl\nLF = pl.scan_csv("in.csv")',
    ),
    reads(
        "script-polars-scan-csv-of-the-module",
        'return float(LF.collect()["x"].sum())',
        'import polars as pl\nLF = pl.scan_csv("in.csv")',
        script=True,
    ),
    reads(
        "polars-scan-csv-in-a-default",
        'return float(load()["x"].sum())',
        'import polars as pl\ndef load(lf=pl.scan_csv("in.csv")):\n    return lf.collect()',
    ),
    reads(
        "polars-sql-context-of-a-scan",
        'return float(CTX.execute("SELECT * FROM t", eager=True)["x"].sum())',
        'import polars as pl\nCTX = pl.SQLContext(t=pl.scan_csv("in.csv"))',
    ),
    reads(
        "polars-read-csv-batched",
        'return float(pl.scan_csv("in.csv").select(pl.len()).collect().item() + pl.read_csv("in.csv", n_rows=1)["x"][0])',
        "import polars as pl",
    ),
    reads(
        "polars-read-lines-as-bytes",
        'return float(pl.read_csv(open("in.csv", "rb"))["x"].sum())',
        "import polars as pl",
    ),
    reads(
        "arrow-csv",
        'return float(pc.read_csv("in.csv")["x"].to_pandas().sum())',
        "import pyarrow.csv as pc",
    ),
    reads(
        "from-arrow-csv-import",
        'return float(read_csv("in.csv")["x"].to_pandas().sum())',
        "from pyarrow.csv import read_csv",
    ),
    reads(
        "script-from-arrow-csv-import",
        'return float(read_csv("in.csv")["x"].to_pandas().sum())',
        "from pyarrow.csv import read_csv",
        script=True,
    ),
    reads(
        "arrow-memory-map", 'return float(pa.memory_map("in.csv").size())', "import pyarrow as pa"
    ),
    reads("arrow-os-file", 'return float(pa.OSFile("in.csv").size())', "import pyarrow as pa"),
    reads(
        "arrow-input-stream",
        'return float(len(pa.input_stream("in.csv").read()))',
        "import pyarrow as pa",
    ),
    reads(
        "arrow-file-system",
        'with fs.LocalFileSystem().open_input_file("in.csv") as f:\n    return float(len(f.read()))',
        "from pyarrow import fs",
    ),
    reads(
        "arrow-file-info",
        'return float(fs.LocalFileSystem().get_file_info("in.csv").size)',
        "from pyarrow import fs",
    ),
    reads(
        "arrow-dataset-of-csv",
        'return float(ds.dataset("in.csv", format="csv").to_table()["x"].to_pandas().sum())',
        "import pyarrow.dataset as ds",
    ),
    reads(
        "arrow-dataset-of-the-module",
        'return float(DATA.to_table()["x"].to_pandas().sum())',
        'import pyarrow.dataset as ds\nDATA = ds.dataset("in.csv", format="csv")',
    ),
    reads(
        "lightgbm-dataset-of-a-file",
        'data = lgb.Dataset("in.csv", params={"header": True, "verbose": -1, "min_data_in_bin": 1, "num_threads": 1, "feature_pre_filter": False}).construct()\nbooster = lgb.train({"objective": "regression", "verbose": -1, "min_data_in_leaf": 1, "num_threads": 1}, data, 1)\nreturn float(booster.predict([[1.0]])[0])',
        "import lightgbm as lgb",
    ),
    reads(
        "xgboost-matrix-of-a-file",
        'return float(xgb.DMatrix("in.csv?format=csv").get_data().toarray().sum())',
        "import xgboost as xgb",
    ),
    reads(
        "sklearn-load-files-of-a-folder",
        'return float(sum(len(text) for text in load_files(".", categories=["texts"]).data))',
        "from sklearn.datasets import load_files",
        setup=lambda root: (
            (root / "texts").mkdir(),
            (root / "texts" / "a.txt").symlink_to("../in.csv"),
        ),
    ),
    reads(
        "yaml-safe-load",
        'return float(len(str(yaml.safe_load(Path("in.csv").read_text()))))',
        "import yaml",
    ),
    reads_table(
        "pandas-read-parquet",
        'return float(pd.read_parquet("in.parquet")["x"].sum())',
        "import pandas as pd",
    ),
    reads_table(
        "polars-read-parquet",
        'return float(pl.read_parquet("in.parquet")["x"].sum())',
        "import polars as pl",
    ),
    reads_table(
        "from-polars-import-read-parquet",
        'return float(read_parquet("in.parquet")["x"].sum())',
        "from polars import read_parquet",
    ),
    reads_table(
        "polars-scan-parquet-of-the-module",
        'return float(LF.collect()["x"].sum())',
        'import polars as pl\nLF = pl.scan_parquet("in.parquet")',
    ),
    reads_table(
        "polars-read-parquet-schema",
        'return float(pl.read_parquet("in.parquet").select(pl.col("x").max()).item())',
        "import polars as pl",
    ),
    reads_table(
        "arrow-read-table",
        'return float(pq.read_table("in.parquet")["x"].to_pandas().sum())',
        "import pyarrow.parquet as pq",
    ),
    reads_table(
        "from-arrow-parquet-import-read-table",
        'return float(read_table("in.parquet")["x"].to_pandas().sum())',
        "from pyarrow.parquet import read_table",
    ),
    reads_table(
        "arrow-parquet-file",
        'return float(pq.ParquetFile("in.parquet").read()["x"].to_pandas().sum())',
        "import pyarrow.parquet as pq",
    ),
    reads_table(
        "arrow-parquet-file-of-the-module",
        'return float(FILE.read()["x"].to_pandas().sum())',
        'import pyarrow.parquet as pq\nFILE = pq.ParquetFile("in.parquet")',
    ),
    reads_table(
        "arrow-parquet-dataset",
        'return float(pq.ParquetDataset("in.parquet").read()["x"].to_pandas().sum())',
        "import pyarrow.parquet as pq",
    ),
    reads_table(
        "arrow-parquet-statistics",
        'return float(pq.ParquetFile("in.parquet").metadata.row_group(0).column(0).statistics.max)',
        "import pyarrow.parquet as pq",
    ),
    reads_table(
        "arrow-read-metadata",
        'return float(pq.read_metadata("in.parquet").row_group(0).column(0).statistics.max)',
        "import pyarrow.parquet as pq",
    ),
    reads_table(
        "arrow-feather",
        'return float(feather.read_table("in.feather")["x"].to_pandas().sum())',
        "import pyarrow.feather as feather",
        "in.feather",
    ),
    reads_table(
        "polars-read-ipc",
        'return float(pl.read_ipc("in.feather")["x"].sum())',
        "import polars as pl",
        "in.feather",
    ),
    reads_table(
        "arrow-ipc-open-file",
        'with pa.memory_map("in.feather") as source:\n    return float(pa.ipc.open_file(source).read_all()["x"].to_pandas().sum())',
        "import pyarrow as pa",
        "in.feather",
    ),
    reads_table(
        "arrow-orc-file",
        'return float(orc.ORCFile("in.orc").read()["x"].to_pandas().sum())',
        "import pyarrow.orc as orc",
        "in.orc",
    ),
    reads_table(
        "parquet-folder-by-pandas",
        'return float(pd.read_parquet("parts")["x"].sum())',
        "import pandas as pd",
        "parts/a.parquet",
    ),
    reads_table(
        "parquet-folder-by-glob",
        'return float(pl.read_parquet("parts/*.parquet")["x"].sum())',
        "import polars as pl",
        "parts/a.parquet",
    ),
    reads_table(
        "parquet-folder-of-a-dataset",
        'return float(ds.dataset("parts").to_table()["x"].to_pandas().sum())',
        "import pyarrow.dataset as ds",
        "parts/a.parquet",
    ),
    pickle_probe(
        "pickle-load", 'return pickle.loads(Path("in.pkl").read_bytes())["x"]', "import pickle"
    ),
    pickle_probe(
        "pandas-read-pickle", 'return pd.read_pickle("in.pkl")["x"]', "import pandas as pd"
    ),
    pickle_probe("joblib-load", 'return joblib.load("in.joblib")["x"]', "import joblib"),
    pickle_probe(
        "joblib-load-memory-mapped",
        'return joblib.load("in.joblib", mmap_mode="r")["x"]',
        "import joblib",
    ),
    pickle_probe("numpy-load", 'return int(np.load("in.npy")[0])', "import numpy as np"),
    pickle_probe(
        "numpy-load-memory-mapped",
        'return int(np.load("in.npy", mmap_mode="r")[0])',
        "import numpy as np",
    ),
    pickle_probe(
        "numpy-load-archive", 'return int(np.load("in.npz")["x"][0])', "import numpy as np"
    ),
    probe(
        "new",
        "xgboost-load-model",
        TRAIN.format(
            library="xgboost as xgb",
            body='booster = xgb.Booster()\n        booster.load_model("model.json")\n        return float(booster.predict(xgb.DMatrix(X)).sum())',
        ),
        do(lambda root: xgboost_model(root, -1)),
        setup=lambda root: xgboost_model(root, 1),
    ),
    probe(
        "new",
        "xgboost-model-file",
        TRAIN.format(
            library="xgboost as xgb",
            body='return float(xgb.Booster(model_file="model.json").predict(xgb.DMatrix(X)).sum())',
        ),
        do(lambda root: xgboost_model(root, -1)),
        setup=lambda root: xgboost_model(root, 1),
    ),
    probe(
        "new",
        "xgboost-regressor-load-model",
        TRAIN.format(
            library="xgboost as xgb",
            body='model = xgb.XGBRegressor()\n        model.load_model("model.json")\n        return float(model.predict(X).sum())',
        ),
        do(lambda root: xgboost_model(root, -1)),
        setup=lambda root: xgboost_model(root, 1),
    ),
    probe(
        "new",
        "lightgbm-model-file",
        TRAIN.format(
            library="lightgbm as lgb",
            body='return float(lgb.Booster(model_file="model.txt").predict(X).sum())',
        ),
        do(lambda root: lightgbm_model(root, -1)),
        setup=lambda root: lightgbm_model(root, 1),
    ),
    probe(
        "new",
        "onnxruntime-session",
        TRAIN.format(
            library="onnxruntime as ort",
            body='session = ort.InferenceSession("model.onnx")\n        return float(session.run(None, {"x": np.ones(1, np.float32)})[0][0])',
        ),
        do(lambda root: onnx_model(root, 5)),
        setup=lambda root: onnx_model(root, 1),
    ),
    probe(
        "new",
        "onnxruntime-session-by-keyword",
        TRAIN.format(
            library="onnxruntime as ort",
            body='session = ort.InferenceSession(path_or_bytes="model.onnx", providers=["CPUExecutionProvider"])\n        return float(session.run(None, {"x": np.ones(1, np.float32)})[0][0])',
        ),
        do(lambda root: onnx_model(root, 5)),
        setup=lambda root: onnx_model(root, 1),
    ),
    probe(
        "new",
        "onnx-load",
        TRAIN.format(
            library="onnx",
            body='return float(onnx.load("model.onnx").graph.initializer[0].raw_data[2])',
        ),
        do(lambda root: onnx_model(root, 5)),
        setup=lambda root: onnx_model(root, 1),
    ),
    probe(
        "new",
        "sqlite-connect",
        '\n    import sqlite3\n\n    @cl.step\n    def work() -> int:\n        return sqlite3.connect("in.db").execute("SELECT count(*) FROM t").fetchone()[0]\n',
        do(lambda root: sqlite_table(root, 3)),
        setup=lambda root: sqlite_table(root, 2),
    ),
    probe(
        "new",
        "sqlite-connection-of-the-module",
        '\n    import sqlite3\n\n    DB = sqlite3.connect("in.db")\n\n    @cl.step\n    def work() -> int:\n        return DB.execute("SELECT count(*) FROM t").fetchone()[0]\n',
        do(lambda root: sqlite_table(root, 3)),
        setup=lambda root: sqlite_table(root, 2),
    ),
    probe(
        "new",
        "pandas-read-sql",
        '\n    import sqlite3\n    import pandas as pd\n\n    @cl.step\n    def work() -> int:\n        with sqlite3.connect("file:in.db?mode=ro", uri=True) as db:\n            return len(pd.read_sql("SELECT * FROM t", db))\n',
        do(lambda root: sqlite_table(root, 3)),
        setup=lambda root: sqlite_table(root, 2),
    ),
    probe(
        "new",
        "sqlite-attach",
        '\n    import sqlite3\n\n    @cl.step\n    def work() -> int:\n        db = sqlite3.connect(":memory:")\n        db.execute("ATTACH \'in.db\' AS other")\n        return db.execute("SELECT count(*) FROM other.t").fetchone()[0]\n',
        do(lambda root: sqlite_table(root, 3)),
        setup=lambda root: sqlite_table(root, 2),
    ),
]

CHILDREN = [
    reads(
        "process-pool",
        "with ProcessPoolExecutor(1, get_context('fork')) as pool:\n    return pool.submit(load).result()",
        'from concurrent.futures import ProcessPoolExecutor\nfrom multiprocessing import get_context\n\ndef load():\n    return float(len(Path("in.csv").read_text()))',
    ),
    reads(
        "process-pool-that-polars-reads",
        "with ProcessPoolExecutor(1, get_context('fork')) as pool:\n    return pool.submit(load).result()",
        'from concurrent.futures import ProcessPoolExecutor\nfrom multiprocessing import get_context\nimport pyarrow as pa\n\ndef load():\n    return float(pa.OSFile("in.csv").size())',
    ),
    reads(
        "multiprocessing-pool",
        "with get_context('fork').Pool(1) as pool:\n    return pool.map(load, ['in.csv'])[0]",
        "from multiprocessing import get_context\n\ndef load(path):\n    return float(len(open(path).read()))",
    ),
    reads(
        "multiprocessing-process",
        "context = get_context('fork')\nqueue = context.SimpleQueue()\nchild = context.Process(target=load, args=(queue,))\nchild.start()\nfound = queue.get()\nchild.join()\nreturn found",
        'from multiprocessing import get_context\n\ndef load(queue):\n    queue.put(float(len(open("in.csv").read())))',
    ),
    reads(
        "os-fork",
        'out, into = os.pipe()\nif os.fork() == 0:\n    os.write(into, str(len(open("in.csv").read())).encode())\n    os._exit(0)\nos.wait()\nreturn float(os.read(out, 99))',
        "import os",
    ),
    reads(
        "joblib-parallel-by-loky",
        "return sum(Parallel(n_jobs=2)(delayed(load)(p) for p in ['in.csv', 'in.csv']))",
        "from joblib import Parallel, delayed\n\ndef load(path):\n    return float(len(open(path).read()))",
    ),
    reads(
        "joblib-threads",
        "return sum(Parallel(n_jobs=2, prefer='threads')(delayed(load)(p) for p in ['in.csv', 'in.csv']))",
        "from joblib import Parallel, delayed\n\ndef load(path):\n    return float(len(open(path).read()))",
    ),
    reads(
        "thread-pool",
        "with ThreadPoolExecutor(1) as pool:\n    return pool.submit(load).result()",
        'from concurrent.futures import ThreadPoolExecutor\n\ndef load():\n    return float(len(Path("in.csv").read_text()))',
    ),
    reads(
        "subprocess-run",
        "import subprocess\nreturn float(len(subprocess.run(['cat', 'in.csv'], stdout=subprocess.PIPE).stdout))",
    ),
    reads(
        "subprocess-check-output-of-a-shell",
        "import subprocess\nreturn float(subprocess.check_output('wc -c < in.csv', shell=True))",
    ),
    reads("os-popen", "import os\nreturn float(os.popen('wc -c < in.csv').read())"),
    reads(
        "os-system",
        "import os\nos.system('cp in.csv out.csv')\nreturn float(os.path.getsize('out.csv'))",
    ),
    reads(
        "asyncio-thread",
        "return asyncio.run(asyncio.to_thread(load))",
        'import asyncio\n\ndef load():\n    return float(len(open("in.csv").read()))',
    ),
    reads(
        "asyncio-subprocess",
        "return asyncio.run(load())",
        "import asyncio\n\nasync def load():\n    child = await asyncio.create_subprocess_exec('cat', 'in.csv', stdout=-1)\n    return float(len((await child.communicate())[0]))",
    ),
]

INPUTS = [
    probe(
        "new",
        "declared-file",
        "\n    @cl.step\n    def work(data: Path = Path('in.csv')) -> int:\n        return len(data.read_text())\n",
        write("in.csv", OTHER_CSV),
        CSV,
    ),
    probe(
        "same",
        "declared-file-touched",
        "\n    @cl.step\n    def work(data: Path = Path('in.csv')) -> int:\n        return len(data.read_text())\n",
        do(lambda root: (root / "in.csv").touch()),
        CSV,
    ),
    probe(
        "same",
        "declared-file-with-a-neighbour",
        "\n    @cl.step\n    def work(data: Path = Path('in.csv')) -> int:\n        return len(data.read_text())\n",
        write("other.csv", "x\n"),
        CSV,
    ),
    probe(
        "same",
        "declared-file-read-by-polars",
        "\n    import polars as pl\n\n    @cl.step\n    def work(data: Path = Path('in.csv')) -> int:\n        return len(pl.read_csv(data))\n",
        write("other.csv", "x\n"),
        CSV,
    ),
    probe(
        "same",
        "declared-file-read-by-a-process-pool",
        "\n    from concurrent.futures import ProcessPoolExecutor\n    from multiprocessing import get_context\n\n    def load(path):\n        return len(path.read_text())\n\n    @cl.step\n    def work(data: Path = Path('in.csv')) -> int:\n        with ProcessPoolExecutor(1, get_context('fork')) as pool:\n            return pool.submit(load, data).result()\n",
        write("other.csv", "x\n"),
        CSV,
    ),
    probe(
        "new",
        "declared-folder-gets-a-file",
        "\n    @cl.step\n    def work(data: Path = Path('data')) -> int:\n        return sum(len(f.read_text()) for f in sorted(data.iterdir()))\n",
        write("data/b.txt", "more"),
        {"data/a.txt": "one"},
    ),
    probe(
        "new",
        "declared-folder-file-edited",
        "\n    @cl.step\n    def work(data: Path = Path('data')) -> int:\n        return sum(len(f.read_text()) for f in data.rglob('*.txt'))\n",
        write("data/deep/a.txt", "longer"),
        {"data/deep/a.txt": "one"},
    ),
    probe(
        "new",
        "declared-folder-file-renamed",
        "\n    @cl.step\n    def work(data: Path = Path('data')) -> str:\n        return min(f.name for f in data.iterdir())\n",
        do(lambda root: (root / "data/a.txt").rename(root / "data/z.txt")),
        {"data/a.txt": "one"},
    ),
    probe(
        "new",
        "declared-symlink-gets-another-target",
        "\n    @cl.step\n    def work(data: Path = Path('now')) -> int:\n        return len(data.read_text())\n",
        do(lambda root: ((root / "now").unlink(), (root / "now").symlink_to("b.txt"))),
        {"a.txt": "one", "b.txt": "three"},
        setup=lambda root: (root / "now").symlink_to("a.txt"),
    ),
    probe(
        "new",
        "undeclared-symlink-gets-another-target",
        "\n    @cl.step\n    def work() -> int:\n        return len(Path('now').read_text())\n",
        do(lambda root: ((root / "now").unlink(), (root / "now").symlink_to("b.txt"))),
        {"a.txt": "one", "b.txt": "three"},
        setup=lambda root: (root / "now").symlink_to("a.txt"),
    ),
    probe(
        "new",
        "glob-finds-another-file",
        "\n    import glob\n\n    @cl.step\n    def work() -> int:\n        return len(glob.glob('data/*.txt'))\n",
        write("data/b.txt", "more"),
        {"data/a.txt": "one"},
    ),
    probe(
        "new",
        "glob-of-the-module",
        "\n    FILES = sorted(Path('data').glob('*.txt'))\n\n    @cl.step\n    def work() -> int:\n        return len(FILES)\n",
        write("data/b.txt", "more"),
        {"data/a.txt": "one"},
    ),
    probe(
        "new",
        "os-walk",
        "\n    import os\n\n    @cl.step\n    def work() -> int:\n        return sum(len(names) for _, _, names in os.walk('data'))\n",
        write("data/b.txt", "more"),
        {"data/a.txt": "one"},
    ),
    probe(
        "new",
        "file-of-equal-size-and-time",
        "\n    @cl.step\n    def work(data: Path = Path('in.txt')) -> str:\n        return data.read_text()\n",
        do(lambda root: same_stamp(root / "in.txt", "bbb")),
        {"in.txt": "aaa"},
    ),
    probe(
        "new",
        "file-outside-of-the-project",
        "\n    @cl.step\n    def work() -> int:\n        return len((Path(__file__).parents[1] / 'outside-of-it.txt').read_text())\n",
        do(lambda root: (root.parent / "outside-of-it.txt").write_text("longer")),
        setup=lambda root: (root.parent / "outside-of-it.txt").write_text("one"),
    ),
    probe(
        "new",
        "several-declared-files",
        "\n    @cl.step\n    def work(parts: list) -> int:\n        return sum(len(p.read_text()) for p in parts)\n\n    @cl.pipeline\n    def main():\n        work([Path('a.txt'), Path('b.txt')])\n",
        write("b.txt", "longer"),
        {"a.txt": "one", "b.txt": "two"},
    ),
    probe(
        "same",
        "file-that-the-step-writes-first",
        "\n    @cl.step\n    def work() -> int:\n        Path('out.txt').write_text('made')\n        return len(Path('out.txt').read_text())\n",
        write("out.txt", "edited"),
    ),
    probe(
        "new",
        "file-appended-and-read",
        "\n    @cl.step\n    def work() -> int:\n        with open('log.txt', 'a+') as log:\n            log.seek(0)\n            return len(log.read())\n",
        write("log.txt", "longer"),
        {"log.txt": "one"},
    ),
]


def same_stamp(path: Path, text: str) -> None:
    """Rewrite a file in place, and give it the time that it had."""
    import os

    before = path.stat()
    with open(path, "r+") as file:
        file.write(text)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


PROBES = [*PYTHON, *LIBRARIES, *CHILDREN, *INPUTS]
