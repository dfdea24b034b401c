"""Rows that an endpoint could be asked: training rows in the packages of its models."""

from __future__ import annotations

from typing import Any

import msgspec

from clewline.model.families.family import BACKGROUND
from clewline.model.registry import Registry
from clewline.signature.field import Signature
from clewline.store.records import Revision


def example_rows(
    registry: Registry, revision: Revision, signature: Signature, *, limit: int = 20
) -> list[dict[str, Any]]:
    """
    Return training rows of the first model that reads what the endpoint reads.

    Args:
        registry: Holds the models.
        revision: Of the endpoint.
        signature: Of the endpoint: what its first nodes read.
        limit: Maximum number of rows.

    Returns:
        Values by field, in the signature's order; none if no model has such rows.

    Raises:
        NotFound, IntegrityError: As `Registry.open`.
    """
    needed = {field.name for field in signature.fields if not field.nullable}
    for model in dict.fromkeys(revision.models.values()):
        text = registry.open(model).files.get(BACKGROUND)
        rows = msgspec.json.decode(text, type=list[dict[str, Any]]) if text else []
        if rows and needed <= rows[0].keys():
            names = [field.name for field in signature.fields]
            return [{name: row.get(name) for name in names} for row in rows[:limit]]
    return []
