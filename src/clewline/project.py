"""The project: the folder with a `clewline.toml`, and where its parts lie."""

from __future__ import annotations

import os
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clewline.errors import InvalidConfig, NotFound, did_you_mean

FILE = "clewline.toml"
ALLOWED_HOSTS = "allowed_hosts"


@dataclass(frozen=True, slots=True)
class Project:
    """A project, as its `clewline.toml` describes it."""

    root: Path  # absolute
    name: str
    id: str
    public_key: str | None = None  # base64 of the raw Ed25519 public key
    allowed_hosts: tuple[str, ...] = ()  # names that its server answers to

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
    def explain_queue(self) -> Path:
        """The database of the predictions that wait to be explained in the background."""
        return self.store_root / "explain" / "queue.db"

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
        hosts = _allowed_hosts(path, text.get("server", {}))
        return Project(root.resolve(), project["name"], project["id"], keys.get("public"), hosts)
    except unreadable as error:
        raise InvalidConfig(
            f"{path} cannot be read as a project file: {error!r}.",
            'It needs [project] with name = "…" and id = "…"; '
            "`clewline init` in an empty folder shows one.",
        ) from error


def _allowed_hosts(path: Path, server: dict[str, Any]) -> tuple[str, ...]:
    """Read the names that the server answers to; it is the only setting of `[server]`."""
    unknown = sorted(server.keys() - {ALLOWED_HOSTS})
    if unknown:
        raise InvalidConfig(
            f"{path}: [server] has no setting {unknown[0]!r}.",
            did_you_mean(unknown[0], [ALLOWED_HOSTS]),
        )
    hosts = server.get(ALLOWED_HOSTS, [])
    # A port or a scheme would never match: the check is of the name alone.
    if not isinstance(hosts, list) or not all(
        isinstance(host, str) and host and not set(host) & set("/ @") and host.count(":") != 1
        for host in hosts
    ):
        raise InvalidConfig(
            f"{path}: {ALLOWED_HOSTS} is {hosts!r}.",
            f'Write a list of names without scheme and port: {ALLOWED_HOSTS} = ["ml.example.org"].',
        )
    return tuple(hosts)
