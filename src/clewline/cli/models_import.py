"""`clewline models import`: register a model from a file of this machine, a hub or a server."""

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
    Register a model from a file: ONNX, or a booster in its library's own format.

    A file is fetched once, and must have the pinned digest. Without --digest an address is
    refused, and the error names the digest that was found.

    Parameters
    ----------
    source
        A path, hf:OWNER/REPO/PATH/FILE[@REVISION], or https://HOST/FILE.
    name
        The name of the model.
    digest
        The digest of the file: sha256: and 64 hex characters.
    signature
        A JSON or YAML file with fields and output, as in a package's signature.json.
    sample
        Input rows (CSV or Parquet): give kinds, levels and bounds of the fields.
    train
        The training table (CSV or Parquet): as --sample, and the reference profile.
    test
        Rows that the model has not seen, to evaluate it on.
    target
        The column that the model predicts.
    max_size
        The largest file to accept.
    """
    from clewline.hub.download import DownloadLimits
    from clewline.hub.import_model import ModelImport, import_model
    from clewline.hub.input_files import read_rows

    if train is not None and sample is not None:
        raise UsageError("--train and --sample are both given.", "Leave --sample out.")
    tables: dict[str, Any] = {} if target is None else {"target": target}
    tables |= {
        key: read_rows(path) for key, path in (("train", train), ("test", test)) if path is not None
    }
    project = find()
    wanted = ModelImport(
        source=source, name=name, digest=digest, signature=signature, sample=sample, tables=tables
    )
    limits = DownloadLimits(size_bytes=parse_size(max_size))
    with Store.open(project.store_root) as store:
        registered = import_model(project, store, wanted, limits)
    emit(msgspec.to_builtins(registered), lambda _: print_message(f"registered {registered.ref}"))
