"""
The model families that are installed: entry points `clewline.families`, found by name or model.

A family is everything that clewline knows about one kind of model, behind one adapter;
`clewline.model.families.family.Family` states the contract. No adapter imports its library
before a model of that library is there.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from typing import Any

from clewline.entry_points import load_entry_point, names

GROUP = "clewline.families"


@cache
def family_named(name: str) -> Any:
    """
    Return the family of a name, as manifests record it.

    Raises:
        NotSupported: No installed distribution offers it.
    """
    return load_entry_point(GROUP, name)()


@cache
def families() -> tuple[Any, ...]:
    """Return every installed family, sorted by name."""
    return tuple(family_named(name) for name in names(GROUP))


def family_of(model: Any) -> Any | None:
    """
    Return the family of a Python object; None if no family knows it. Imports no library.

    The first class in the type's method resolution order that comes from a family's package
    decides, so an estimator of a booster's library belongs to the booster, not to scikit-learn.
    """
    if (name := getattr(type(model), "model_family", None)) is not None:
        return family_named(name)
    if (found := family_of_class(type(model))) is not None:
        return found
    return next((each for each in families() if each.detect(model)), None)


def import_loading(adapter: Any) -> None:
    """Import the module that loads packages, where an adapter's folder has one."""
    loading = f"{adapter.__module__.rpartition('.')[0]}.loading"
    if find_spec(loading) is not None:
        import_module(loading)


def fitted_names(model: Any) -> list[str] | None:
    """Return the columns that an estimator was fitted on; None if they had no names."""
    family = family_of(model)
    plain = getattr(model, "feature_names_in_", None)
    found = plain if family is None else family.fitted_names(model)
    return None if found is None else [str(name) for name in found]


def fitted_names_among(model: Any, columns: Sequence[str]) -> list[str] | None:
    """
    Return the columns of a table that an estimator was fitted on; None if they had no names.

    LightGBM keeps names with `_` for each space, so `hours worked` is found for `hours_worked`.
    A name that no column has is returned as it is.
    """
    names = fitted_names(model)
    if names is None or set(names) <= set(columns):
        return names
    written = {column.replace(" ", "_"): column for column in columns}
    if len(written) < len(columns):  # two columns have one name there
        return names
    return [name if name in columns else written.get(name, name) for name in names]


def value_family_of(value: Any) -> Any | None:
    """Return the family that stores a value between steps; None if it is no model of a library."""
    named = getattr(type(value), "model_family", None)
    found = family_of_class(type(value)) if named is None else family_named(named)
    return found if found is not None and found.stores(value) else None


def family_of_class(cls: type) -> Any | None:
    """Return the family whose library a class comes from, or inherits from."""
    packages = _packages()
    tops = (base.__module__.partition(".")[0] for base in cls.__mro__)
    return next((packages[top] for top in tops if top in packages), None)


@cache
def _packages() -> dict[str, Any]:
    return {package: family for family in families() for package in family.packages}


def family_of_format(value_format: str) -> Any | None:
    """Return a family that reads values stored in a format."""
    return next((each for each in families() if each.value_format == value_format), None)


@cache
def version_attributes() -> frozenset[str]:
    """Return the attributes of models in which libraries note their version."""
    return frozenset(name for family in families() for name in family.version_attributes)


def refusal_errors() -> tuple[type[Exception], ...]:
    """
    Return the exceptions that models raise when they refuse rows, of imported libraries only.

    An encoder raises TypeError where a null stands among its known strings.
    """
    return (
        ValueError,
        TypeError,
        *(error for family in families() for error in family.refusal_errors()),
    )
