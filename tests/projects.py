"""Projects and data that tests of several folders start from."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from clewline.model import registry_chain, seal
from clewline.project import Project
from clewline.store.records import Record
from clewline.store.store import Store

if TYPE_CHECKING:
    import pandas as pd

ADULT = (
    "age workclass fnlwgt education education-num marital-status occupation relationship race sex "
    "capital-gain capital-loss hours-per-week native-country income"
)


def make_project(root: Path, name: str = "loans") -> Project:
    """Make a project with an empty store and a key, as `clewline init` leaves it."""
    store = root / ".clewline"
    Store.create(store).close()
    public = seal.make_keys(store / "keys" / "seal.key")
    project = Project(root, name, "0123456789abcdef", public)
    project.endpoints.mkdir()
    (root / "clewline.toml").write_text(
        f'[project]\nname = "{name}"\nid = "{project.id}"\n\n[keys]\npublic = "{public}"\n'
    )
    return project


def record_sealed(project: Project, store: Store, *records: Record) -> None:
    """Record records with a link of the signed chain, as every command does."""
    with store.catalog.transaction() as transaction:
        transaction.record(*records)
        sealer = seal.Sealer.of(project)
        registry_chain.append_link(transaction, registry_chain.SEALED, {}, sealer, *records)


def read_adult(name: str, **options: Any) -> pd.DataFrame:
    """Read a file of UCI Adult from CLEWLINE_DATA, or from the folder beside the repository."""
    import pandas as pd

    beside = Path(__file__).parents[2] / "shared" / "data"
    path = Path(os.environ.get("CLEWLINE_DATA", beside)) / "adult" / name
    if not path.exists():
        pytest.skip(f"there is no {path}: set CLEWLINE_DATA to the folder with adult/{name}")
    table = pd.read_csv(
        path, names=ADULT.split(), skipinitialspace=True, na_values="?", comment="|", **options
    )
    return table.assign(income=table["income"].str.rstrip("."))
