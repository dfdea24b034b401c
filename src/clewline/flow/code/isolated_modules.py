"""Python modules made from bytes, under a name of their own, so that two states of a file live."""

from __future__ import annotations

import builtins
import importlib
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from importlib.abc import InspectLoader, MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import decode_source
from types import CodeType, ModuleType
from typing import Any

ROOTS = ("", "src/")
"""Where the project's own modules begin, in the order in which they are tried."""


class IsolatedModules:
    """
    The modules of some files, found nowhere but in their bytes.

    They import each other as they would in the project; what is not among the
    files, and the standard library, comes from where Python finds it. Their
    names begin with `name`, so that nothing else meets them. May be used from
    any thread; `close` lets go of them.

    Args:
        name: A Python name that nothing else in this process bears.
        files: Paths relative to the project, with `/`, and their content.
        shown: How a path is named in a traceback.
    """

    def __init__(self, name: str, files: Mapping[str, bytes], shown: str = "{path}") -> None:
        self.name, self.files, self._shown = name, files, shown
        self.builtins = vars(builtins) | {"__import__": self._import}
        _finder().add(self)

    def module(self, path: str) -> ModuleType:
        """
        Give the module of a file, loaded the first time.

        Raises:
            Whatever the code of the module raises.
        """
        return importlib.import_module(f"{self.name}.{dotted(path, self.files)}")

    def close(self) -> None:
        """
        Forget the modules and all that they hold; nothing of theirs may be called any more.

        Functions and their module hold each other: a server that has frozen its
        collector's generations would keep every state of the code that it ever ran.
        """
        _finder().remove(self)
        for name in [name for name in sys.modules if name.split(".", 1)[0] == self.name]:
            vars(sys.modules.pop(name)).clear()
        self.builtins.clear()

    def find(self, module: str) -> tuple[str | None, bool] | None:
        """Give the file of a module (None for a bare folder), and whether it is a package."""
        return find(module, self.files)

    def spec(self, full: str) -> ModuleSpec | None:
        """Describe a module of ours to Python's import."""
        own = full.partition(".")[2]
        found: tuple[str | None, bool] | None = (None, True) if not own else self.find(own)
        if found is None:
            return None
        path, is_package = found
        origin = self._shown.format(path=path) if path else None
        spec = ModuleSpec(full, _Loader(self, path), origin=origin, is_package=is_package)
        spec.has_location = origin is not None
        return spec

    def _import(
        self,
        name: str,
        globals: Mapping[str, object] | None = None,
        locals: Mapping[str, object] | None = None,
        fromlist: Sequence[str] | None = (),
        level: int = 0,
    ) -> ModuleType:
        """The `import` statement as these modules see it."""
        if level or not is_own(name, self.files):
            return builtins.__import__(name, globals, locals, fromlist or (), level)
        if fromlist:
            return builtins.__import__(f"{self.name}.{name}", globals, locals, fromlist, 0)
        importlib.import_module(f"{self.name}.{name}")
        return sys.modules[f"{self.name}.{name.partition('.')[0]}"]


class _Loader(InspectLoader):
    """Executes one module from its bytes."""

    def __init__(self, home: IsolatedModules, path: str | None) -> None:
        self.home, self.path = home, path

    def exec_module(self, module: ModuleType) -> None:
        vars(module)["__builtins__"] = self.home.builtins
        exec(self.get_code(module.__name__), vars(module))

    def get_code(self, fullname: str) -> CodeType:
        origin = self.home.spec(fullname)
        name = origin.origin if origin and origin.origin else f"<{fullname}>"
        return compile(self.data, name, "exec", dont_inherit=True)

    def get_source(self, fullname: str) -> str:
        return decode_source(self.data)

    def is_package(self, fullname: str) -> bool:
        found = self.home.find(fullname.partition(".")[2])
        return found is not None and found[1]

    @property
    def data(self) -> bytes:
        return b"" if self.path is None else self.home.files[self.path]


class _Finder(MetaPathFinder):
    """Leads Python's import to the modules of every `IsolatedModules`."""

    def __init__(self) -> None:
        self._homes: dict[str, IsolatedModules] = {}

    def add(self, home: IsolatedModules) -> None:
        assert home.name not in self._homes, home.name
        self._homes[home.name] = home

    def remove(self, home: IsolatedModules) -> None:
        self._homes.pop(home.name, None)

    def find_spec(self, fullname: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        home = self._homes.get(fullname.partition(".")[0])
        return None if home is None else home.spec(fullname)


_lock = threading.Lock()
_installed: list[_Finder] = []


def _finder() -> _Finder:
    with _lock:
        if not _installed:
            _installed.append(_Finder())
            sys.meta_path.insert(0, _installed[0])
        return _installed[0]


# Names and paths


def dotted(path: str, files: Mapping[str, bytes]) -> str:
    """
    Give the name that a file has as a module.

    >>> dotted("src/loans/tidy.py", {"src/loans/tidy.py": b""})
    'loans.tidy'
    """
    own = path
    for root in ROOTS[1:]:
        if path.startswith(root) and f"{root}__init__.py" not in files:
            own = path.removeprefix(root)
    return own.removesuffix(".py").removesuffix("/__init__").replace("/", ".")


def find(module: str, files: Mapping[str, bytes]) -> tuple[str | None, bool] | None:
    """
    Find the file of a module among files; a folder without `__init__.py` has none.

    Returns:
        The path and whether the module is a package; None when it is not there.

    >>> find("lib.tidy", {"lib/tidy.py": b""}), find("lib", {"lib/tidy.py": b""})
    (('lib/tidy.py', False), (None, True))
    """
    for path, is_package in candidates(module):
        if path in files:
            return path, is_package
    folder = module.replace(".", "/") + "/"
    if any(path.startswith(f"{root}{folder}") for root in ROOTS for path in files):
        return None, True
    return None


def candidates(module: str) -> Iterator[tuple[str, bool]]:
    """Where the file of a module may stand, and whether it would be a package."""
    base = module.replace(".", "/")
    for root in ROOTS:
        yield f"{root}{base}/__init__.py", True
        yield f"{root}{base}.py", False


def is_own(module: str, files: Mapping[str, bytes]) -> bool:
    """Whether a module's outermost package is among files; Python's own never is."""
    top = module.partition(".")[0]
    return top not in sys.stdlib_module_names and find(top, files) is not None
