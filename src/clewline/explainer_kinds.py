"""
The explainers that are installed: entry points `clewline.explainers`, by kind, and their options.

`clewline.explain.explainer.Explainer` states the contract. Everybody who passes options, the
command line, REST, an endpoint's YAML and Python, has them read here.
"""

from __future__ import annotations

import importlib.metadata
import re
from collections.abc import Iterable, Mapping
from functools import cache
from typing import Any

import msgspec
import msgspec.inspect

from clewline.entry_points import load_entry_point, names
from clewline.errors import InvalidInput, NotSupported, did_you_mean
from clewline.formatting import format_list

GROUP = "clewline.explainers"


@cache
def explainer_of(kind: str) -> Any:
    """
    Return the explainer of a kind.

    Raises:
        NotSupported: None is installed; names the nearest.
    """
    known = names(GROUP)
    if kind not in known:
        raise NotSupported(
            f"There is no kind of explanation {kind!r}.",
            did_you_mean(kind, known, f"The kinds are {format_list(known)}."),
        )
    return load_entry_point(GROUP, kind)()


@cache
def maker_of(kind: str) -> str:
    """Return the distribution that offers a kind, with its version."""
    found = next(iter(importlib.metadata.entry_points(group=GROUP, name=kind))).dist
    return f"{found.name} {found.version}" if found is not None else kind


def kinds() -> tuple[str, ...]:
    """List the kinds of explanations that are installed, sorted."""
    return names(GROUP)


def read_options(explainer: Any, given: Mapping[str, Any]) -> Any:
    """
    Read the options of an explanation into the struct of its kind.

    Args:
        explainer: Of the kind.
        given: Options and their values. A text where an option takes none is read as words of
            the command line are: names separated by commas, or JSON.

    Raises:
        InvalidInput: There is no such option, or it cannot have that value.
    """
    types = _option_types(explainer.options)
    for name in given:
        if name not in types:
            raise InvalidInput(
                f"The explainer {explainer.kind!r} has no option {name!r}.",
                _who_has(name) or did_you_mean(name, types, _list_options(types)),
            )
    values = {name: _read_word(value, types[name]) for name, value in given.items()}
    try:
        return msgspec.convert(values, explainer.options)
    except msgspec.ValidationError as error:
        reason, _, place = str(error).partition(" - at `$.")
        option = re.split(r"[.\[`]", place)[0]
        raise InvalidInput(
            f"The option {option!r} of the explainer {explainer.kind!r} is "
            f"{given.get(option)!r}: {reason[:1].lower()}{reason[1:]}.",
            "Write another value.",
        ) from error


@cache
def _option_types(options: type[msgspec.Struct]) -> dict[str, msgspec.inspect.Type]:
    info = msgspec.inspect.type_info(options)
    assert isinstance(info, msgspec.inspect.StructType), "options are a struct"
    return {
        field.name: field.type.type
        if isinstance(field.type, msgspec.inspect.Metadata)  # it has a description
        else field.type
        for field in info.fields
    }


def _who_has(option: str) -> str | None:
    """Name the kinds that have an option, for a person who left the kind out."""
    having = [kind for kind in kinds() if option in _option_types(explainer_of(kind).options)]
    return f"It is an option of the kind {format_list(having)}." if having else None


def _list_options(types: Iterable[str]) -> str:
    return f"Its options are {format_list(types)}." if types else "It has no options."


def _read_word(value: Any, expected: msgspec.inspect.Type) -> Any:
    """Read a text as a value of an option's type."""
    one = expected.types if isinstance(expected, msgspec.inspect.UnionType) else (expected,)
    if not isinstance(value, str) or any(isinstance(each, msgspec.inspect.StrType) for each in one):
        return value
    if isinstance(expected, msgspec.inspect.CollectionType) and not value.startswith("["):
        return [part.strip() for part in value.split(",") if part.strip()]
    try:
        return msgspec.json.decode(value)
    except msgspec.DecodeError:
        return value  # which the struct refuses
