"""Settings of the test run, and a project with several models that is cheap to copy."""

from __future__ import annotations

import os
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from projects import make_project, record_sealed

from clewline.project import Project

Shop = Callable[..., Project]

ROOT = Path(__file__).parent.parent

# Tests rewrite modules within a second; a compiled file of the earlier text would be taken for it.
sys.dont_write_bytecode = True

# How long an example takes says more about the machine than about the code.
settings.register_profile("clewline", deadline=None)
settings.load_profile("clewline")

# A shell starts background jobs with Ctrl-C ignored, and every child would inherit that.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def _no_option_chosen() -> Iterator[None]:
    """Forget what a test chose by --project, --json or --debug, which hold for the process."""
    yield
    os.environ.pop("CLEWLINE_PROJECT", None)
    if (output := sys.modules.get("clewline.cli.output")) is not None:
        output.Mode.json = output.Mode.debug = False


@pytest.fixture(scope="session")
def clients() -> Path:
    """Return the folder of programs in the environment with other projects' clients."""
    folder = ROOT / ".venv-clients"
    if not list(folder.glob(".installed-clients")):
        pytest.skip("other projects' clients are not installed: scripts/install clients")
    return folder / "bin"


@pytest.fixture(scope="session")
def shop() -> Shop:
    """
    Make a project whose graphs have something to be made of.

    `income@1` (alias champion) and `income@2` (challenger) answer two labels of age
    and hours, `visits@1` (champion) the same of age and visits, `price@1` (champion) a number,
    `grades@1` (champion) other labels; `odd@1` (champion) takes age as a text; `plain@1` (champion)
    tells the labels of income without probabilities, `vector@1` (champion) an array. Files are
    given as path → text.
    """
    packed = _packed()

    def convert_model(root: Path, files: dict[str, str] | None = None) -> Project:
        from clewline.model.registry import Registry
        from clewline.store.records import Alias
        from clewline.store.store import Store

        project = make_project(root, "shop")
        with Store.open(project.store_root) as store:
            registry = Registry(project, store)
            for content, about in packed:
                registry.add(dict(content), about)
            names = {about.name for _, about in packed}
            aliases = [Alias(name=n, alias="champion", number=1, moved=0.0) for n in names]
            aliases.append(Alias(name="income", alias="challenger", number=2, moved=0.0))
            record_sealed(project, store, *aliases)
        for path, text in (files or {}).items():
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            (root / path).write_text(text)
        return project

    return convert_model


def _packed() -> list[tuple[dict[str, bytes], Any]]:
    import numpy as np
    import polars as pl
    from sklearn.linear_model import LinearRegression, LogisticRegression
    from sklearn.svm import LinearSVC

    random = np.random.default_rng(7)
    table = pl.DataFrame(
        {"age": random.integers(17, 90, 200), "hours": random.uniform(1, 99, 200).round(2)}
    )
    visits = table.select("age", visits=random.integers(0, 9, 200))
    band = pl.when(pl.col("age") > 40).then(pl.lit("old")).otherwise(pl.lit("young"))
    odd = table.select("hours", age=band)
    money = table["age"].to_numpy() * 2.5 + random.normal(0, 9, 200)
    rich = np.where(money > 130, ">50K", "<=50K")
    grade = np.where(money > 130, "b", "a")
    late = np.where(money > 160, ">50K", "<=50K")
    return [
        _package("income", table, rich, LogisticRegression(), "binary"),
        _package("income", table, late, LogisticRegression(), "binary"),
        _package("visits", visits, rich, LogisticRegression(), "binary"),
        _package("price", table, money, LinearRegression(), "regression"),
        _package("grades", table, grade, LogisticRegression(), "binary"),
        _package("odd", odd, rich, LogisticRegression(), "binary"),
        _package("plain", table, rich, LinearSVC(random_state=0), "binary"),
        _vector(table),
    ]


def _vector(table: Any) -> Any:
    """A file of ONNX that answers its two fields doubled, as one array."""
    import msgspec
    import onnx
    from onnx import TensorProto, helper

    from clewline.model.package import PackageMetadata
    from clewline.model.register import convert_model

    pairs: list[str | int | None] = ["rows", 2]
    graph = helper.make_graph(
        [helper.make_node("Add", ["x", "x"], ["pair"])],
        "vector",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, pairs)],
        [helper.make_tensor_value_info("pair", TensorProto.FLOAT, pairs)],
    )
    opsets = [helper.make_opsetid("", 17)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=8)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "vector.onnx"
        onnx.save(model, path)
        made = convert_model(path, train=table.head(20))
    return made.files, PackageMetadata(
        name="vector",
        number=0,
        runtime=made.compiled.runtime,
        task=made.signature.output.task,
        target="pair",
        created=0.0,
        equality=msgspec.to_builtins(made.compiled.equality),
        versions={},
    )


def _package(name: str, table: Any, target: Any, model: Any, task: str) -> Any:
    import msgspec
    import polars as pl
    from sklearn.compose import make_column_transformer
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder

    from clewline.model.compile.compiler import compile_model
    from clewline.model.families.packaging import with_probabilities
    from clewline.model.package import PackageMetadata
    from clewline.signature.infer import infer_signature

    texts = [each for each in table.columns if table.schema[each] == pl.String]
    if texts:
        encoder = OneHotEncoder(sparse_output=False)
        encode = make_column_transformer((encoder, texts), remainder="passthrough")
        model = make_pipeline(encode, model)
    model.fit(table, target)
    signature = with_probabilities(
        infer_signature(table.with_columns(target=target), target="target"),
        hasattr(model, "predict_proba"),
    )
    compiled = compile_model(model, signature, test=table[:50], train=table, frame="polars")
    files = {
        **compiled.files,
        "signature.json": msgspec.json.encode(signature),
        "background.json": table.head(20).write_json().encode(),
    }
    about = PackageMetadata(
        name=name,
        number=0,
        runtime=compiled.runtime,
        task=task,
        target="target",
        created=0.0,
        equality=msgspec.to_builtins(compiled.equality),
        versions={},
    )
    return files, about


class Loans:
    """A project with the model `income` in two versions, and the endpoint `income` on the first."""

    def __init__(self, root: Path, made: list[Any]) -> None:
        from clewline.model.package import PackageMetadata
        from clewline.model.registry import Registry
        from clewline.store.store import Store

        self.project = make_project(root)
        self.project.signatures.mkdir()
        with Store.open(self.project.store_root) as store:
            registry = Registry(self.project, store)
            for each in made:
                about = PackageMetadata(
                    name="income",
                    number=0,
                    runtime=each.compiled.runtime,
                    task="binary",
                    target="income",
                    created=0.0,
                )
                registry.add(each.files, about)
        self.apply("income@1")

    def apply(self, model: str, endpoint: str = "income", durability: str = "process") -> str:
        """Write an endpoint's file and make it live."""
        from clewline.serve import revision
        from clewline.serve.endpoint_file import read_endpoint
        from clewline.store.store import Store

        text = f"endpoint: {endpoint}\nmodel: {model}\nlog: {{durability: {durability}}}\n"
        (self.project.endpoints / f"{endpoint}.yaml").write_text(text)
        with Store.open(self.project.store_root) as store:
            applied = revision.apply(self.project, store, read_endpoint(self.project, endpoint))
        return applied.revision.ref


@pytest.fixture(scope="session")
def made() -> list[Any]:
    """Two small forests, registered from a table with a category and nulls."""
    import numpy as np
    import polars as pl
    from sklearn.compose import make_column_transformer
    from sklearn.ensemble import RandomForestClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder

    from clewline.model.register import convert_model

    random = np.random.default_rng(7)
    jobs = random.choice(np.array(["nurse", "smith", "clerk", None], dtype=object), 300)
    table = pl.DataFrame(
        {
            "age": random.integers(17, 90, 300),
            "hours": random.uniform(1, 99, 300).round(2),
            "job": pl.Series(jobs.tolist(), dtype=pl.String),
        }
    )
    target = np.where(table["age"].to_numpy() + random.normal(0, 9, 300) > 50, ">50K", "<=50K")
    encoder = OneHotEncoder(handle_unknown="ignore", sparse_output=False)
    found = []
    for seed in (0, 1):
        model = make_pipeline(
            make_column_transformer((encoder, ["job"]), remainder="passthrough"),
            RandomForestClassifier(10, random_state=seed),
        ).fit(table, target)
        train = table.with_columns(income=target)
        found.append(convert_model(model, train=train, test=train, target="income"))
    return found


@pytest.fixture(scope="session")
def make_loans(made: list[Any]) -> Callable[[Path], Loans]:
    """Make a project with the endpoint `income` in a folder."""
    return lambda root: Loans(root, made)


@pytest.fixture
def loans(tmp_path: Path, make_loans: Callable[[Path], Loans]) -> Loans:
    return make_loans(tmp_path)
