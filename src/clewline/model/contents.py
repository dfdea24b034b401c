"""What goes into a package: a trained model, as it is served, with signature and profile."""

from __future__ import annotations

from pathlib import Path, PurePath
from typing import Any

from clewline.errors import NotSupported
from clewline.model.families import model_files
from clewline.model.families.family import PackageContents, RegistrationInputs
from clewline.model_families import families, family_of
from clewline.signature.field import Signature

__all__ = ["PackageContents", "convert_model"]


def convert_model(
    model: Any,
    *,
    train: Any | None = None,
    test: Any | None = None,
    target: str | None = None,
    signature: Signature | None = None,
    **options: Any,
) -> PackageContents:
    """
    Make the files of a package.

    Args:
        model: A model of any family, or the path of a file that a family reads.
        train: The table that it was fitted on, with the target.
        test: Rows that it has not seen, with the target or without.
        target: The column that it predicts.
        signature: What goes in and out, for families that do not infer it.
        options: For single families.

    Raises:
        InvalidInput: A table lacks a column of the model's, or holds values of no kind.
        NotFound: The file cannot be read.
        NotSupported: No family knows the model, or it has no safe form.
    """
    inputs = RegistrationInputs(
        train=train, test=test, target=target, signature=signature, options=options
    )
    if isinstance(model, PurePath):
        return model_files.convert_path(Path(model), inputs)
    family = family_of(model)
    if family is None or not (hasattr(model, "predict") or hasattr(model, "transform")):
        name = model.__name__ if isinstance(model, type) else type(model).__name__
        titles = ", ".join(each.title for each in families() if each.packages)
        raise NotSupported(
            f"{name} is not a fitted estimator, so it cannot be registered.",
            f"Pass a fitted model of {titles}, a pipeline of such, or a class of the project with "
            "predict(table) or predict(rows).",
        )
    found: PackageContents = family.convert(model, inputs)
    return found
