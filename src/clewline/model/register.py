"""`cl.register`: a trained model becomes the next version of its name."""

from __future__ import annotations

import platform
import sys
from collections.abc import Mapping
from contextlib import suppress
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as distribution_version
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any

import msgspec

from clewline.errors import NotSupported
from clewline.flow.context import StepContext, current_step
from clewline.flow.pipeline import pipeline
from clewline.flow.step import step
from clewline.flow.tracking import log_value
from clewline.model.conformal_scores import score_test_rows
from clewline.model.families.family import (
    CONFORMAL,
    EVALUATION,
    TRAINING_SAMPLE,
    PackageContents,
    RegistrationInputs,
)
from clewline.model.families.sample_file import SAMPLE_ROWS, sample_digest
from clewline.model.origin import Origin
from clewline.model.package import PackageMetadata
from clewline.model.registry import Registry
from clewline.model_families import families, family_of
from clewline.store.digest import Digest
from clewline.store.records import ModelVersion, Run
from clewline.store.ref import require_model_name

if TYPE_CHECKING:
    from clewline.evaluation.report import Report
    from clewline.signature.field import Signature

DISTRIBUTIONS = ("clewline", "numpy")
EVALUATED = ("binary", "multiclass", "regression")
"""Tasks that have a target to compare answers with."""

EQUALITY_FACTS = (
    "verified",
    "form",
    "executed_by",
    "reason",
    "rows",
    "synthetic_rows",
    "flips",
    "max_difference",
)
"""What a manifest holds of the `EquivalenceRecord`."""


@step(cache=False, store_output=False)
def register(
    name: str,
    model: Any,
    *,
    train: Any | None = None,
    test: Any | None = None,
    target: str | None = None,
    report: Report | None = None,
    signature: Signature | None = None,
    files: Mapping[str, Path] | None = None,
    arguments: Mapping[str, Any] | None = None,
    origin: Mapping[str, Any] | None = None,
    sample_rows: int = SAMPLE_ROWS,
) -> ModelVersion:
    """
    Register a model: convert it, verify the result, and seal it as the next version of its name.

    A step. Outside a pipeline, inside a project, it records a run for itself. Content that is
    already a version does not become another one.

    Args:
        name: Name of the model: letters, digits, `-` and `_`.
        model: A fitted scikit-learn, LightGBM, XGBoost or CatBoost model, or a pipeline of such;
            or a class of the project with `predict(table)` or `predict(rows)`, or its object.
        train: The table that it was fitted on, with the target column. Only an ONNX file does
            not need one.
        test: Rows that it has not seen, on which the converted model is compared with it; by
            default the training rows.
        target: The column that it predicts.
        report: What `cl.evaluate` returned. If None and there are test rows, the model is
            evaluated here.
        signature: What goes in and out, for families that cannot infer it.
        files: For a Python class: parameter of its constructor → file or folder that it
            reads; the package holds a copy.
        arguments: For a Python class: other arguments of its constructor, plain values. An
            object that keeps them as attributes needs none.
        origin: For an imported file: the fields of `model.origin.Origin`. Its `sha256` is
            checked against the bytes that are registered.
        sample_rows: Maximum number of training rows that the package holds for explanations,
            with their truth and the model's answers; 0 for none. `background.json` holds up to
            256 rows in any case.

    Returns:
        The version.

    Raises:
        UsageError: The name cannot name a model.
        InvalidInput: The tables do not fit the model.
        NotSupported: The model has no form that can be stored safely.
        NotFound: There is no project, or its private key is missing.
    """
    require_model_name(name)
    from clewline.evaluation.evaluate import evaluate

    tables: dict[str, Any] = {"train": train, "test": test}
    options: dict[str, Any] = {"signature": signature, "origin": origin}
    options |= {"files": files, "arguments": arguments, "sample_rows": sample_rows}
    context = current_step()
    if context is None:
        registered: list[Any] = []

        @pipeline(name=f"register-{name}")
        def register_model() -> None:
            version = register(name, model, target=target, report=report, **tables, **options)
            registered.append(version)

        register_model.run()
        found: ModelVersion = registered[0].value()
        return found
    contents = convert_model(model, target=target, **tables, **options)
    compiled, output = contents.compiled, contents.signature.output
    can_evaluate = test is not None and output.task in EVALUATED
    if report is None and can_evaluate and target is not None:
        evaluated = model if contents.evaluated is None else contents.evaluated
        report = evaluate(evaluated, test, target=target, train=train)
    used = [family for family in families() if {*family.packages} & sys.modules.keys()]
    versions = {"python": platform.python_version()}
    for package in (*DISTRIBUTIONS, *(each for family in used for each in family.distributions)):
        with suppress(PackageNotFoundError):  # run from a source tree that is not installed
            versions[package] = distribution_version(package)
    run = context.store.catalog.get(Run, context.run_id)
    metadata = PackageMetadata(
        name=name,
        number=0,  # the registry gives it
        runtime=compiled.runtime,
        task=output.task,
        target=output.name if target is None else target,
        created=0.0,
        run=context.run_id,
        step_run=context.step_id,
        data={
            key: {"artifact": _input_digest(context, key, table), "rows": len(table)}
            for key, table in tables.items()
            if table is not None
        },
        code={key: getattr(run, key) for key in ("commit", "changed", "snapshot")} if run else {},
        environment=run.environment if run else None,
        report=None if report is None else report.small,
        encoding=compiled.encoding,
        equality={key: getattr(compiled.equality, key) for key in EQUALITY_FACTS},
        versions=versions,
        origin=msgspec.convert(origin, Origin) if origin else None,
    )
    unstable = [file for file in contents.unstable if file in contents.files]
    logical = {file: _input_digest(context, "model", model) for file in unstable}
    if TRAINING_SAMPLE in contents.files:
        logical[TRAINING_SAMPLE] = sample_digest(contents.files[TRAINING_SAMPLE])
    package_files = dict(contents.files)
    notes = list(contents.notes)
    data = {key: described["artifact"] for key, described in metadata.data.items()}
    if "test" in data and data["test"] in {data.get("train"), *_fitted_tables(model)}:
        notes.append("The model was fitted on the test rows, so it has no conformal scores.")
    elif (scores := score_test_rows(contents, test, target)) is not None:
        package_files[CONFORMAL] = scores
    if report is not None:
        package_files[EVALUATION] = msgspec.json.encode(report)
    version = Registry(context.project, context.store).add(package_files, metadata, logical)
    log_value("version", {"model": name, "content": version.content})
    lines = [*notes, f"{version.ref}: {compiled.equality.sentence}"]
    if version.run != context.run_id:
        lines.append(f"{version.ref} of run {version.run} has the same content; no new version")
    sys.stderr.write("".join(f"{line}\n" for line in lines))
    return version


def _fitted_tables(model: Any) -> tuple[Digest, ...]:
    """Return digests of tables that a model was fitted on besides the training table."""
    family = family_of(model)
    return () if family is None else family.fitted_tables(model)


def _input_digest(context: StepContext, name: str, value: Any) -> Digest:
    """Return the digest of an input; the run knows it if a step returned the input."""
    from clewline.flow import values

    known = context.inputs.get(name)
    # If another step calls this function plainly, these are that step's inputs.
    is_own_step = context.step_id.endswith("-register")
    if is_own_step and isinstance(known, Mapping) and "artifact" in known:
        return Digest(known["artifact"])
    return values.digest(value)


def convert_model(
    model: Any,
    *,
    train: Any | None = None,
    test: Any | None = None,
    target: str | None = None,
    signature: Signature | None = None,
    sample_rows: int = SAMPLE_ROWS,
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
        sample_rows: Maximum number of rows of the training sample; 0 for none.
        options: For single families.

    Raises:
        InvalidInput: A table lacks a column of the model's, or holds values of no kind.
        NotFound: The file cannot be read.
        NotSupported: No family knows the model, or it has no safe form.
    """
    inputs = RegistrationInputs(
        train=train,
        test=test,
        target=target,
        signature=signature,
        sample_rows=sample_rows,
        options=options,
    )
    from clewline.model.families import model_files

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
