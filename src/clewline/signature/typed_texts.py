"""A row that a person typed, as JSON: each text as its field's kind says."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from clewline.signature.field import Field


def json_of_texts(fields: tuple[Field, ...], texts: Mapping[str, str]) -> bytes:
    """
    Write a row as a JSON object.

    An empty text is null, but for a category or a text that cannot be null. What is no value of
    its field stays a text, so that the check of rows refuses it by name.

    Args:
        fields: What each text is of; those without a text are left out.
        texts: Text by field.

    >>> json_of_texts((Field(name="age", kind="integer"),), {"age": " 39 "})
    b'{"age":39}'
    """
    return msgspec.json.encode(
        {field.name: _typed(field, texts[field.name]) for field in fields if field.name in texts}
    )


def _typed(field: Field, text: str) -> msgspec.Raw | str | bool | None:
    if field.kind in ("category", "text"):
        return None if field.nullable and not text else text
    bare = text.strip()
    if not bare:
        return None
    if field.kind == "boolean" and bare.lower() in ("true", "false"):
        return bare.lower() == "true"
    if field.kind in ("number", "integer") and _is_number(bare):
        return msgspec.Raw(bare.encode())
    return bare


def _is_number(text: str) -> bool:
    try:
        value = msgspec.json.decode(text.encode("utf-8", "replace"))
    except msgspec.DecodeError:
        return False
    return isinstance(value, int | float) and not isinstance(value, bool)
