"""The project: the folder with a `clewline.toml`, and where its parts lie."""

from __future__ import annotations

import os
import tomllib
from dataclasses import dataclass
from pathlib import Path

from clewline.errors import InvalidConfig, NotFound

FILE = "clewline.toml"


@dataclass(frozen=True, slots=True)
class Project:
    """A project, as its `clewline.toml` describes it."""

    root: Path  # absolute
    name: str
    id: str
    public_key: str | None = None  # base64 of the raw Ed25519 public key

    @property
    def store_root(self) -> Path:
        """The store: catalog, blobs, packages, prediction log, keys."""
        return self.root / ".clewline"

    @property
    def packages(self) -> Path:
        """Sealed packages, one folder `NAME/NUMBER` each."""
        return self.store_root / "models"

    @property
    def log(self) -> Path:
        """The folder of the prediction log."""
        return self.store_root / "log"

    @property
    def shadow(self) -> Path:
        """The folder of the log in which the answers of shadows stand."""
        return self.store_root / "shadow"

    @property
    def private_key(self) -> Path:
        """The file of the project's private key, mode 0600."""
        return self.store_root / "keys" / "seal.key"

    @property
    def endpoints(self) -> Path:
        """The folder with `NAME.yaml` of each endpoint."""
        return self.root / "endpoints"

    @property
    def signatures(self) -> Path:
        """The folder with `NAME.yaml` of each model: the bounds that a person has accepted."""
        return self.root / "signatures"

    @property
    def gate(self) -> Path:
        """The file with the rules that a version must pass before an alias moves to it."""
        return self.root / "gate.yaml"


def find(start: Path | None = None) -> Project:
    """
    Find the project that a folder belongs to: in the folder, or in one above it.

    Args:
        start: The folder; by default the one that CLEWLINE_PROJECT names, or the current one.

    Raises:
        NotFound: There is no such folder, or none from it upwards has a `clewline.toml`.
        InvalidConfig: The file cannot be read as a project file.
    """
    begin = Path(start or os.environ.get("CLEWLINE_PROJECT") or os.getcwd()).resolve()
    if not begin.exists():
        # A folder above may have a project, but not the one that was meant.
        raise NotFound(f"There is no folder {begin}.", "Name the folder of a project.")
    for folder in (begin, *begin.parents):
        if (folder / FILE).is_file():
            return load(folder)
    raise NotFound(
        f"{begin} is not inside a clewline project: no {FILE} there or in any folder above.",
        "Create one with `clewline init`, or change into a project.",
    )


def load(root: Path) -> Project:
    """
    Read the `clewline.toml` of a folder.

    Raises:
        InvalidConfig: The file cannot be read as a project file.
    """
    path = root / FILE
    unreadable = (tomllib.TOMLDecodeError, UnicodeDecodeError, KeyError, TypeError, AttributeError)
    try:
        text = tomllib.loads(path.read_text("utf-8"))
        project, keys = text["project"], text.get("keys", {})
        return Project(root.resolve(), project["name"], project["id"], keys.get("public"))
    except unreadable as error:
        raise InvalidConfig(
            f"{path} cannot be read as a project file: {error!r}.",
            'It needs [project] with name = "…" and id = "…"; '
            "`clewline init` in an empty folder shows one.",
        ) from error
