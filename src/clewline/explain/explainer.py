"""
Explainers: each answers one kind of question about a row and its answer.

An explainer is offered under the entry-point group `clewline.explainers`, by its kind; ours use
the same door. The command line, REST, an endpoint's YAML and Python all pass options as a
mapping, which `read_options` reads into the struct of the kind.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from functools import cache
from typing import Any, ClassVar, Protocol, TypeVar

import msgspec
import msgspec.inspect

from clewline.entry_points import load_entry_point, names
from clewline.errors import InvalidInput, NotSupported, did_you_mean
from clewline.explain.explained_model import ExplainedModel
from clewline.explain.explained_row import ExplainedRow, Explanation
from clewline.formatting import format_list

GROUP = "clewline.explainers"

OptionsT = TypeVar("OptionsT", bound="ExplainerOptions", contravariant=True)


class ExplainerOptions(
    msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=False
):
    """
    Options of a kind of explanation.

    Every field has a default, and a type that says what is allowed:
    `Annotated[int, msgspec.Meta(ge=1, description="…")]`. Budgets are in model rows.
    """


class Explainer(Protocol[OptionsT]):
    """
    Answers one kind of question about a row: why this answer?

    It has no state: any thread may call it, for different models at once. The same row and
    options give an equal explanation, on any machine: what is drawn comes from `row.seed`, and
    a limit is a number of model rows, never of seconds.
    """

    kind: ClassVar[str]  # the name of its entry point
    options: ClassVar[type[ExplainerOptions]]
    explanation: ClassVar[type[Explanation]]

    def preference(self, model: ExplainedModel) -> int:
        """
        Say how well it suits a model; the kind with the highest number is the default.

        Returns:
            0 if it cannot explain the model; 1 if it can, roughly; 2 if it suits models of this
            kind; 3 if its explanations are exact.
        """

    def explain(self, row: ExplainedRow, options: OptionsT) -> Explanation:
        """
        Explain a row.

        Raises:
            InvalidInput: An option does not fit the model, such as a field that it lacks.
            NotSupported: This kind cannot explain this model or row.
            ModelFailed: The model raised, or answered with what is not a number.
        """


@cache
def explainer_of(kind: str) -> Explainer[Any]:
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
    found: Explainer[Any] = load_entry_point(GROUP, kind)()
    return found


def kinds() -> tuple[str, ...]:
    """List the kinds of explanations that are installed, sorted."""
    return names(GROUP)


def best_explainer(model: ExplainedModel) -> Explainer[Any]:
    """
    Return the explainer that suits a model best; of equals the first by name.

    Raises:
        NotSupported: No installed explainer can explain the model.
    """
    found = max(map(explainer_of, kinds()), key=lambda each: each.preference(model))
    if found.preference(model) <= 0:
        raise NotSupported(
            f"No installed explainer can explain {model.ref}, a {model.signature.output.task} "
            "model."
        )
    return found


def read_options(explainer: Explainer[Any], given: Mapping[str, Any]) -> ExplainerOptions:
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
def _option_types(options: type[ExplainerOptions]) -> dict[str, msgspec.inspect.Type]:
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
