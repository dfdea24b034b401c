"""`explain_remote`: explain a row of a model that clewline does not host."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from clewline.errors import InvalidInput, NotFound, NotSupported
from clewline.explain.explained_model import ExplainedModel
from clewline.explain.explained_row import ExplainedRow, Explanation
from clewline.explain.explainer import Explainer, best_explainer
from clewline.explain.logged_rows import read_rows
from clewline.explain.remote_model import TIMEOUT_S, RemoteConnection, RemoteModel, remote_fields
from clewline.explainer_kinds import explainer_of, read_options
from clewline.model.families.sample_file import TrainingSample
from clewline.signature.check import Checker
from clewline.signature.field import Output, Signature
from clewline.store.digest import digest_bytes

MOST_ROWS = 1000
"""Background rows that are taken, drawn with a fixed seed: the model is asked about each."""


def explain_remote(
    url: str,
    row: Mapping[str, Any],
    background: Any,
    kind: str | None = None,
    options: Mapping[str, Any] | None = None,
    *,
    output: str | None = None,
    timeout_s: float = TIMEOUT_S,
    token: str | None = None,
    watch: Callable[[int, float], None] | None = None,
) -> Explanation:
    """
    Explain a row of any model behind the Open Inference Protocol over HTTP. Nothing is stored.

    Args:
        url: `http://host:port/v2/models/NAME`.
        row: Field → value.
        background: A Polars table of rows like those that the model is asked about; columns
            that it does not take are left out.
        kind: Of explanation; by default the one that suits the model best.
        options: Of the kind.
        output: The tensor that is explained; by default the probabilities, else the label, else
            the value.
        timeout_s: Limit of each call.
        token: Sent as a bearer token.
        watch: Called after each call, with its rows and the seconds they took.

    Raises:
        UsageError: It is no address of a model, or the model has no such output.
        InvalidInput: Row or background rows do not fit the model, or an option is wrong.
        NotSupported: The model takes or answers arrays, or there is no such kind.
        RemoteFault: The model does not answer in time, or with what cannot be used.
    """
    explainer: Explainer[Any] | None = None if kind is None else explainer_of(kind)
    connection = RemoteConnection(url, timeout_s=timeout_s, token=token)
    metadata = connection.metadata()
    fields = remote_fields(metadata, background, connection.url)
    known = {field.name for field in fields}
    fields = tuple(
        msgspec.structs.replace(field, nullable=True) if row.get(field.name, 0) is None else field
        for field in fields
    )
    signature = Signature(fields=fields, output=Output(name="", task="regression"))
    own = read_rows(signature, msgspec.json.encode([dict(row)]))
    drawn = np.random.default_rng(0).permutation(len(background))[:MOST_ROWS]
    checked = Checker(signature).table(
        background.select(name for name in background.columns if name in known)[np.sort(drawn)]
    )
    if checked.refused:
        first = checked.refused[0]
        raise InvalidInput(
            f"The background rows do not fit {connection.url}: row {first.row}, field "
            f"{first.field!r} must be {first.expected}.",
            None,
            tuple(checked.refused),
        )
    remote = RemoteModel(connection, signature, metadata, output)
    answers = remote.learn_output(checked.columns)
    sample = TrainingSample(checked.columns, None, answers, of_rows=len(background))
    model = ExplainedModel(
        connection.url,
        remote.signature,
        lambda: remote,
        lambda: sample,
        source="the background rows that were given",
    )
    model.watch = watch
    answered = model.predict(own)
    labels = remote.signature.output.labels
    if labels is None:
        assert answered.values is not None, "a regression answers with values"
        answer: dict[str, Any] = {"value": float(answered.values[0])}
    else:
        assert answered.choices is not None, "a classifier answers with labels"
        answer = {"label": labels[int(answered.choices[0])]}
    seed = int(digest_bytes(msgspec.json.encode(dict(row), order="sorted"))[:16], 16)
    explained = ExplainedRow(
        model=model,
        columns=own,
        values=dict(row),
        answer=answer,
        seed=seed,
    )
    explainer = explainer or best_explainer(model)
    return explainer.explain(explained, read_options(explainer, options or {}))


def read_background(path: Path) -> Any:
    """
    Read a table of background rows: Parquet, CSV, or JSON with a list of rows.

    Raises:
        NotFound: There is no such file.
        NotSupported: Its name ends otherwise.
        InvalidInput: It cannot be read, or is empty.
    """
    import polars as pl

    readers: dict[str, Callable[[Path], pl.DataFrame]] = {
        ".parquet": pl.read_parquet,
        ".csv": pl.read_csv,
        ".json": pl.read_json,
        ".jsonl": pl.read_ndjson,
        ".ndjson": pl.read_ndjson,
    }
    if not path.is_file():
        raise NotFound(f"There is no file {path}.", "Check the path.")
    if path.suffix not in readers:
        raise NotSupported(
            f"{path} is no table that can be read.", f"Use one of {', '.join(readers)}."
        )
    try:
        table = readers[path.suffix](path)
    except (pl.exceptions.PolarsError, OSError) as error:
        raise InvalidInput(f"{path} cannot be read: {error}.", "Check its content.") from error
    if not len(table):
        raise InvalidInput(f"{path} has no rows.", "Give some rows like those that are asked.")
    return table
