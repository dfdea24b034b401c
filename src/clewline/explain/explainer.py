"""
Explainers: each answers one kind of question about a row and its answer.

An explainer is offered under the entry-point group `clewline.explainers`, by its kind; ours use
the same door. The command line, REST, an endpoint's YAML and Python all pass options as a
mapping, which `explainer_kinds.read_options` reads into the struct of the kind.
"""

from __future__ import annotations

from typing import Any, ClassVar, Protocol, TypeVar

import msgspec

from clewline.errors import NotSupported
from clewline.explain.explained_model import ExplainedModel
from clewline.explain.explained_row import ExplainedRow, Explanation
from clewline.explainer_kinds import explainer_of, kinds

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
    options give an equal explanation, on any machine: what is drawn comes from `row.seed`, or
    from the version and the row, and a limit is a number of model rows, never of seconds.
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


def best_explainer(model: ExplainedModel) -> Explainer[Any]:
    """
    Return the explainer that suits a model best; of equals the first by name.

    Raises:
        NotSupported: No installed explainer can explain the model.
    """
    installed: list[Explainer[Any]] = [explainer_of(kind) for kind in kinds()]
    found = max(installed, key=lambda each: each.preference(model))
    if found.preference(model) <= 0:
        raise NotSupported(
            f"No installed explainer can explain {model.ref}, a {model.signature.output.task} "
            "model."
        )
    return found
