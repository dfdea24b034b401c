"""Python modules made from bytes under names of their own, so that two versions can coexist."""

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
"""The folders of the project's own modules, in the order in which they are tried."""


class IsolatedModules:
    """
    The modules of some files, found only in their bytes.

    They import each other as they would in the project. Other modules, and the standard
    library, come from where Python finds them. All names begin with `name`, so no other
    code imports them. May be used from any thread; `close` releases them.

    Args:
        name: A Python name that nothing else in this process has.
        files: Paths relative to the project, with `/`, and their content.
        shown: The form of a path in a traceback.
    """

    def __init__(self, name: str, files: Mapping[str, bytes], shown: str = "{path}") -> None:
        self.name, self.files, self._shown = name, files, shown
        self.builtins = vars(builtins) | {"__import__": self._import}
        with _lock:
            if _finder not in sys.meta_path:
                sys.meta_path.insert(0, _finder)
            assert name not in _finder.homes, name
            _finder.homes[name] = self

    def module(self, path: str) -> ModuleType:
        """
        Return the module of a file, loaded the first time.

        Raises:
            Exception: Anything that the code of the module raises.
        """
        return importlib.import_module(f"{self.name}.{dotted(path, self.files)}")

    def close(self) -> None:
        """
        Release the modules and everything that they hold; their code must not run any more.

        Functions and their module refer to each other: a server that has frozen the
        generations of its garbage collector would keep every version of the code.
        """
        _finder.homes.pop(self.name, None)
        for name in [name for name in sys.modules if name.split(".", 1)[0] == self.name]:
            vars(sys.modules.pop(name)).clear()
        self.builtins.clear()

    def spec(self, full: str) -> ModuleSpec | None:
        """Return the specification of one of these modules for Python's import."""
        own = full.partition(".")[2]
        found: tuple[str | None, bool] | None = find(own, self.files) if own else (None, True)
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
        """Execute the `import` statement of these modules."""
        if level or not is_own(name, self.files):
            return builtins.__import__(name, globals, locals, fromlist or (), level)
        if fromlist:
            return builtins.__import__(f"{self.name}.{name}", globals, locals, fromlist, 0)
        importlib.import_module(f"{self.name}.{name}")
        return sys.modules[f"{self.name}.{name.partition('.')[0]}"]


class _Loader(InspectLoader):
    """Executes one module from its bytes."""

    def __init__(self, home: IsolatedModules, path: str | None) -> None:
        self.home = home
        self.data = b"" if path is None else home.files[path]

    def exec_module(self, module: ModuleType) -> None:
        vars(module)["__builtins__"] = self.home.builtins
        exec(self.get_code(module.__name__), vars(module))

    def get_code(self, fullname: str) -> CodeType:
        spec = self.home.spec(fullname)
        name = spec.origin if spec and spec.origin else f"<{fullname}>"
        return compile(self.data, name, "exec", dont_inherit=True)

    def get_source(self, fullname: str) -> str:
        return decode_source(self.data)

    def is_package(self, fullname: str) -> bool:
        found = find(fullname.partition(".")[2], self.home.files)
        return found is not None and found[1]


class _Finder(MetaPathFinder):
    """Finds the modules of every `IsolatedModules` for Python's import."""

    def __init__(self) -> None:
        self.homes: dict[str, IsolatedModules] = {}

    def find_spec(self, fullname: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        home = self.homes.get(fullname.partition(".")[0])
        return None if home is None else home.spec(fullname)


_lock = threading.Lock()
_finder = _Finder()


# Names and paths


def dotted(path: str, files: Mapping[str, bytes]) -> str:
    """
    Return the name of a file as a module.

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
    is_folder = any(path.startswith(f"{root}{folder}") for root in ROOTS for path in files)
    return (None, True) if is_folder else None


def candidates(module: str) -> Iterator[tuple[str, bool]]:
    """Yield the possible files of a module, and whether each would be a package."""
    base = module.replace(".", "/")
    for root in ROOTS:
        yield f"{root}{base}/__init__.py", True
        yield f"{root}{base}.py", False


def is_own(module: str, files: Mapping[str, bytes]) -> bool:
    """Return whether a module's outermost package is among files; Python's own never is."""
    top = module.partition(".")[0]
    return top not in sys.stdlib_module_names and find(top, files) is not None
