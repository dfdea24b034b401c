"""The files that a Python model is given, as paths, written from verified bytes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from clewline.errors import IntegrityError
from clewline.model.runtime.private_folder import PrivateFolder
from clewline.model.runtime.python_spec import Declared


class GivenFiles:
    """
    Read-only copies in a private folder, until `close`.

    Args:
        declared: Name → file or folder.
        files: Of the package.

    Raises:
        IntegrityError: A path leads out of its folder.
    """

    def __init__(self, declared: Mapping[str, Declared], files: Mapping[str, bytes]) -> None:
        self.paths: dict[str, Path] = {}
        self._folder = PrivateFolder() if declared else None
        try:
            for name, given in declared.items():
                self.paths[name] = self._write(name, given, files)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Delete them."""
        if self._folder is not None:
            self._folder.close()
        self._folder = None

    def _write(self, name: str, given: Declared, files: Mapping[str, bytes]) -> Path:
        assert self._folder is not None
        home = self._folder.path / name
        for path, part in given.parts.items():
            target = home / path
            if not target.resolve().is_relative_to(self._folder.path.resolve()):
                raise IntegrityError(
                    f"The file {path!r} of {name!r} leads out of its folder.",
                    "The package was not made by clewline: do not use it.",
                )
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(files[part.file])
            target.chmod(0o400)
        if given.is_folder:
            home.mkdir(exist_ok=True)
            return home
        return home / next(iter(given.parts))
