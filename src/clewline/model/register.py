"""`cl.register`: a trained model becomes the next version of its name."""

from __future__ import annotations

import platform
import sys
from collections.abc import Mapping
from contextlib import suppress
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as distribution_version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from clewline.flow.context import StepContext, current_step
from clewline.flow.pipeline import pipeline
from clewline.flow.step import step
from clewline.flow.tracking import log_value
from clewline.model.origin import Origin
from clewline.model.package import PackageMetadata
from clewline.model.registry import Registry
from clewline.model_families import families
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

    Returns:
        The version.

    Raises:
        UsageError: The name cannot name a model.
        InvalidInput: The tables do not fit the model.
        NotSupported: The model has no form that can be stored safely.
        NotFound: There is no project, or its private key is missing.
    """
    require_model_name(name)
    inputs: dict[str, Any] = {
        "train": train,
        "test": test,
        "target": target,
        "signature": signature,
    }
    inputs |= {"files": files, "arguments": arguments, "origin": origin}
    context = current_step()
    if context is not None:
        return _register(context, name, model, report, inputs)
    registered: list[Any] = []

    @pipeline(name=f"register-{name}")
    def register_model() -> None:
        registered.append(register(name, model, report=report, **inputs))

    register_model.run()
    found: ModelVersion = registered[0].value()
    return found


def _register(
    context: StepContext, name: str, model: Any, report: Report | None, inputs: dict[str, Any]
) -> ModelVersion:
    from clewline.evaluation.report import evaluate
    from clewline.model.contents import convert_model

    contents = convert_model(model, **inputs)
    compiled, output = contents.compiled, contents.signature.output
    train, test, target, origin = (inputs[key] for key in ("train", "test", "target", "origin"))
    can_evaluate = test is not None and target is not None and output.task in EVALUATED
    if report is None and can_evaluate:
        evaluated = model if contents.evaluated is None else contents.evaluated
        report = evaluate(evaluated, test, target=target, train=train)
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
            for key, table in (("train", train), ("test", test))
            if table is not None
        },
        code={key: getattr(run, key) for key in ("commit", "changed", "snapshot")} if run else {},
        environment=run.environment if run else None,
        report=None if report is None else msgspec.to_builtins(report),
        encoding=compiled.encoding,
        equality={key: getattr(compiled.equality, key) for key in EQUALITY_FACTS},
        versions=_versions(),
        origin=msgspec.convert(origin, Origin) if origin else None,
    )
    unstable = [file for file in contents.unstable if file in contents.files]
    logical = {file: _input_digest(context, "model", model) for file in unstable}
    registry = Registry(context.project, context.store)
    version = registry.add(contents.files, metadata, logical)
    log_value("version", {"model": name, "content": version.content})
    lines = [*contents.notes, f"{version.ref}: {compiled.equality.sentence}"]
    if version.run != context.run_id:
        lines.append(f"{version.ref} has this content since run {version.run}; no new version")
    sys.stderr.write("".join(f"{line}\n" for line in lines))
    return version


def _input_digest(context: StepContext, name: str, value: Any) -> Digest:
    """Return the digest of an input; the run knows it if a step returned the input."""
    from clewline.flow import values

    known = context.inputs.get(name)
    # If another step calls this function plainly, these are that step's inputs.
    is_own_step = context.step_id.endswith("-register")
    if is_own_step and isinstance(known, Mapping) and "artifact" in known:
        return Digest(known["artifact"])
    return values.digest(value)


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    used = [family for family in families() if {*family.packages} & sys.modules.keys()]
    for name in (*DISTRIBUTIONS, *(each for family in used for each in family.distributions)):
        with suppress(PackageNotFoundError):  # run from a source tree that is not installed
            found[name] = distribution_version(name)
    return found
