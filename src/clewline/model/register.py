"""`cl.register`: a trained model becomes the next version of its name."""

from __future__ import annotations

import platform
import sys
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
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
    from clewline.model.families.family import PackageContents
    from clewline.signature.field import Signature

VERSIONS = ("clewline", "numpy")
ANSWERS = ("binary", "multiclass", "regression")
"""Tasks whose answers a target can be compared with."""


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
    Register a model: compile it, hold it equal, seal it as the next version of its name.

    A step. Outside a pipeline, inside a project, it records a run of its own.
    Content that is a version already is that version again.

    Args:
        name: Of the model: letters, digits, `-` and `_`.
        model: A fitted scikit-learn, LightGBM, XGBoost or CatBoost model, or a pipeline of such;
            or a class of the project with `predict(table)` or `predict(rows)`, or an object of one.
        train: The table that it was fitted on, with the target column; only a file of
            ONNX can do without.
        test: Rows that it has not seen; the compiled model is held against them.
            Without them the training rows are taken.
        target: The column that it predicts.
        report: What `cl.evaluate` gave; evaluated here if None and there are test rows.
        signature: What goes in and out, for kinds of models that do not tell.
        files: Of a Python class: parameter of its constructor → file or folder that it
            reads; the package holds a copy.
        arguments: Of a Python class: other arguments of its constructor, plain values;
            an object that keeps them as attributes needs none.
        origin: Of a file that was brought: the fields of `model.origin.Origin`; its `sha256`
            is checked over the bytes that are registered.

    Returns:
        The version.

    Raises:
        UsageError: The name cannot name a model.
        InvalidInput: The tables are not those of the model.
        NotSupported: The model has no form that can be stored safely.
        NotFound: We are not in a project, or its private key is missing.
    """
    require_model_name(name)
    context = current_step()
    given = {"train": train, "test": test, "target": target}
    given |= {"report": report, "signature": signature, "files": files, "arguments": arguments}
    given["origin"] = origin
    if context is None:
        return _in_a_run_of_its_own(name, model, given)
    return _register(context, name, model, given)


def _in_a_run_of_its_own(name: str, model: Any, given: dict[str, Any]) -> ModelVersion:
    made: list[Any] = []

    @pipeline(name=f"register-{name}")
    def alone() -> None:
        made.append(register(name, model, **given))

    alone.run()
    registered: ModelVersion = made[0].value()
    return registered


def _register(
    context: StepContext, name: str, model: Any, given: Mapping[str, Any]
) -> ModelVersion:
    from clewline.model.contents import make

    train, test, target = given["train"], given["test"], given["target"]
    contents = make(
        model,
        train=train,
        test=test,
        target=target,
        signature=given["signature"],
        files=given["files"],
        arguments=given["arguments"],
        origin=given["origin"],
    )
    asked = model if contents.evaluated is None else contents.evaluated
    answers = contents.signature.output.task in ANSWERS
    report = given["report"] or (_evaluated(asked, train, test, target) if answers else None)
    about = _about(context, name, contents, target, report)
    origin = given["origin"] and msgspec.convert(given["origin"], Origin)
    data = _data(context, train=train, test=test)
    about = msgspec.structs.replace(about, data=data, origin=origin)
    logical = _logical(context, contents, model)
    registry = Registry(context.project, context.store)
    registered = registry.add(contents.files, about, logical)
    log_value("version", {"model": name, "content": registered.content})
    _tell(registered, contents, context.run_id)
    return registered


def _about(
    context: StepContext,
    name: str,
    contents: PackageContents,
    target: str | None,
    report: Report | None,
) -> PackageMetadata:
    run = context.store.catalog.get(Run, context.run_id)
    compiled = contents.compiled
    return PackageMetadata(
        name=name,
        number=0,
        runtime=compiled.runtime,
        task=contents.signature.output.task,
        target=contents.signature.output.name if target is None else target,
        created=0.0,
        run=context.run_id,
        step_run=context.step_id,
        code={"commit": run.commit, "changed": run.changed, "snapshot": run.snapshot}
        if run
        else {},
        environment=run.environment if run else None,
        report=msgspec.to_builtins(report) if report is not None else None,
        encoding=compiled.encoding,
        equality=_summary(contents),
        versions=_versions(),
    )


def _logical(context: StepContext, contents: PackageContents, model: Any) -> dict[str, Digest]:
    """Give the model's own digest for files whose bytes differ each time they are written."""
    unstable = [name for name in contents.unstable if name in contents.files]
    digest = _digest_of(context, "model", model) if unstable else None
    return {name: digest for name in unstable if digest is not None}


def _summary(contents: PackageContents) -> dict[str, Any]:
    record = contents.compiled.equality
    names = ("verified", "form", "reason", "rows", "synthetic_rows", "flips", "max_difference")
    return {name: getattr(record, name) for name in names} | {"sentence": record.sentence}


def _evaluated(model: Any, train: Any, test: Any | None, target: str | None) -> Report | None:
    from clewline.evaluation.report import evaluate

    if test is None or target is None:
        return None
    return evaluate(model, test, target=target, train=train)


def _data(context: StepContext, **tables: Any) -> dict[str, Any]:
    return {
        name: {"artifact": _digest_of(context, name, table), "rows": len(table)}
        for name, table in tables.items()
        if table is not None
    }


def _digest_of(context: StepContext, name: str, given: Any) -> Digest:
    """Give the digest of an input, which the run knows when a step made it."""
    from clewline.flow import values

    known = context.inputs.get(name)
    # Called plainly inside another step, these are that step's inputs, whatever their names.
    is_ours = context.step_id.endswith("-register")
    if is_ours and isinstance(known, Mapping) and "artifact" in known:
        return Digest(known["artifact"])
    return values.digest(given)


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    used = [family for family in families() if {*family.packages} & sys.modules.keys()]
    for name in (*VERSIONS, *(each for family in used for each in family.distributions)):
        try:
            found[name] = version(name)
        except PackageNotFoundError:  # run from a source tree that is not installed
            continue
    return found


def _tell(registered: ModelVersion, contents: PackageContents, run: str) -> None:
    lines = [*contents.notes, f"{registered.ref}: {contents.compiled.equality.sentence}"]
    if registered.run != run:
        lines.append(f"{registered.ref} holds just this since run {registered.run}: no new version")
    sys.stderr.write("".join(f"{line}\n" for line in lines))
