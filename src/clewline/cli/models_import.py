"""`clewline models import`: register a model from a file, of a disk, a hub or a server."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import msgspec
from cyclopts import Parameter

from clewline.cli.output import emit, print_message
from clewline.cli.parameters import parse_size
from clewline.errors import UsageError
from clewline.project import find
from clewline.store.store import Store


def import_(
    source: str,
    /,
    *,
    name: Annotated[str, Parameter(name="--name")],
    digest: str | None = None,
    signature: Path | None = None,
    sample: Path | None = None,
    train: Path | None = None,
    test: Path | None = None,
    target: str | None = None,
    max_size: str = "1GiB",
) -> None:
    """
    Register a model from a file: ONNX as it is, or a booster in its library's own format.

    What is fetched must have the digest that is pinned; it is fetched once. Without --digest
    an address is refused, and the error tells the digest that was found.

    Parameters
    ----------
    source
        A path, hf:OWNER/REPO/PATH/FILE[@REVISION], or https://HOST/FILE.
    name
        Of the model.
    digest
        Of the file: sha256: and 64 hex characters.
    signature
        A JSON or YAML file with fields and output, as signature.json of a package has them.
    sample
        Rows that it takes (CSV or Parquet): kinds, levels and bounds of the fields, and the
        background sample.
    train
        The table that it was trained on (CSV or Parquet): as --sample, and the profile.
    test
        Rows that it has not seen, to evaluate it on.
    target
        The column that it predicts.
    max_size
        The largest file that is taken.
    """
    from clewline.hub.import_model import ModelImport, import_model
    from clewline.hub.web import DownloadLimits

    if train is not None and sample is not None:
        raise UsageError("--train and --sample are both given.", "Leave --sample out.")
    project = find()
    wanted = ModelImport(
        source=source,
        name=name,
        digest=digest,
        signature=signature,
        sample=sample,
        tables=_tables(train, test, target),
    )
    with Store.open(project.store_root) as store:
        registered = import_model(
            project, store, wanted, DownloadLimits(size_bytes=parse_size(max_size))
        )
    emit(msgspec.to_builtins(registered), lambda _: print_message(f"registered {registered.ref}"))


def _tables(train: Path | None, test: Path | None, target: str | None) -> dict[str, Any]:
    from clewline.hub.input_files import table

    given: dict[str, Any] = {} if target is None else {"target": target}
    if train is not None:
        given["train"] = table(train)
    if test is not None:
        given["test"] = table(test)
    return given
