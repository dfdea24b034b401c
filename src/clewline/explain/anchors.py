"""Anchors: a rule that the row fulfils, and that holds the answer whatever else changes."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Annotated, Any, Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from clewline.errors import InvalidInput
from clewline.explain.anchor_conditions import FieldConditions, RuleCondition, TrainingFields
from clewline.explain.anchor_search import (
    MIN_BUDGET,
    AnchorSearch,
    AnchorTerms,
    Conditions,
    FoundAnchor,
    RuleMemory,
)
from clewline.explain.anchor_words import TrainingTexts, WordConditions
from clewline.explain.explained_model import ExplainedModel
from clewline.explain.explained_row import ExplainedRow, Explanation
from clewline.explain.explainer import ExplainerOptions
from clewline.model.runtime.outputs import Outputs, join_outputs, take_rows
from clewline.signature.columns import Columns
from clewline.signature.field import Field, Signature
from clewline.signature.field_rules import value_in_kind

FIELDS_PERTURBED = (
    "A perturbed row is a training row, in which the fields of the rule are those, together, of "
    "another training row that fulfils the rule; or of the explained row, if none does."
)
WORDS_PERTURBED = (
    "A perturbed text is the explained one, in which each word that is not in the rule has with "
    "probability 1/2 been replaced by the word at the same place of a training text, or left out "
    "where that text is shorter."
)
ROWS_PER_CALL = 1000
MOST_POSITIONS = 100
"""Positions of one word that an answer lists."""


class AnchorOptions(ExplainerOptions, frozen=True, kw_only=True):
    """Options of anchors: how precise the rule must be, and how sure that is."""

    precision: Annotated[
        float,
        msgspec.Meta(ge=0.5, le=0.999, description="share of perturbed rows with the same answer"),
    ] = 0.95
    confidence: Annotated[
        float, msgspec.Meta(ge=0.5, le=0.9999, description="that the precision is reached")
    ] = 0.95
    tolerance: Annotated[
        Annotated[float, msgspec.Meta(gt=0)] | None,
        msgspec.Meta(description="distance at which a number is the same answer"),
    ] = None
    budget: Annotated[
        int, msgspec.Meta(ge=MIN_BUDGET, description="perturbed rows that the model answers")
    ] = 20_000


class AnchorCondition(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """A condition of a rule: on a field, or that a text contains a word."""

    field: str
    above: Any | None = None  # of a number: more than this
    at_most: Any | None = None
    value: Any | None = None  # this very value
    is_null: bool = False
    word: str | None = None
    positions: list[tuple[int, int]] | None = None  # of the word: first code point, one after last
    unit: str | None = None


class AnchorExplanation(Explanation, frozen=True, kw_only=True):
    """A rule that holds the answer."""

    kind: str = "anchors"
    status: Literal["met", "best effort", "budget spent"]
    answer: Any  # label or value
    conditions: list[AnchorCondition]  # all of them; none: the answer is always this
    precision: float  # of the rule: share of perturbed rows with the answer
    precision_bound: float  # it is at least this, with the confidence of the terms
    precision_rows: int  # perturbed rows that certify this
    is_counted: bool  # no rule: the precision is that of all training rows here
    coverage: float  # share of the background rows that fulfil the rule
    attempts: int  # rules that were to be certified; they share the allowed error
    perturbation: str  # what a perturbed row is


class AnchorExplainer:
    """
    Finds a short rule that holds the model's answer.

    What is drawn depends on the version, the answer and the rule, not on the prediction. So two
    predictions of equal rows have the same rule, and what the model said of a rule is remembered
    for the rows to come, without any effect on what they are told.
    """

    kind = "anchors"
    options = AnchorOptions
    explanation = AnchorExplanation

    def preference(self, model: ExplainedModel) -> int:
        """Suit classifiers of texts; others roughly. A regression needs a tolerance."""
        if model.signature.output.labels is None:
            return 0
        return 2 if _is_of_texts(model.signature) else 1

    def explain(self, row: ExplainedRow, options: AnchorOptions) -> AnchorExplanation:
        """
        Find a rule of the wanted precision that as many training rows as possible fulfil.

        Raises:
            InvalidInput: The answer is a number, and no tolerance is given; or the other way.
            ModelFailed: The model raised on a perturbed row.
        """
        same, answer = _sameness(row, options)
        model = row.model
        answers: Outputs = model.remember("anchors, answers", lambda: _background_answers(model))
        holds = same(answers)
        conditions = _conditions(row, holds)
        seed = _seed(model, answer)
        is_number = model.signature.output.labels is None
        memory = RuleMemory() if is_number else model.remember("anchors, rules", RuleMemory)
        search = AnchorSearch(
            conditions,
            holds,
            lambda rows: same(_in_pieces(model, rows)),
            AnchorTerms(options.precision, options.confidence, options.budget),
            seed=seed,
            memory=memory,
        )
        found = search.find()
        asked = len(row.background) if model.sample.answers is None else 0
        return AnchorExplanation(
            **row.facts(options),
            status=found.status,
            answer=answer,
            conditions=_describe(row.signature, conditions, found),
            precision=found.precision,
            precision_bound=found.bound,
            precision_rows=found.samples,
            is_counted=found.is_exact,
            coverage=found.coverage / len(holds),
            attempts=found.attempts,
            perturbation=WORDS_PERTURBED
            if isinstance(conditions, WordConditions)
            else FIELDS_PERTURBED,
            seed=int.from_bytes(seed[:7]),
            model_rows=asked + found.model_rows,
        )


def _sameness(
    row: ExplainedRow, options: AnchorOptions
) -> tuple[Callable[[Outputs], NDArray[np.bool_]], Any]:
    """Return what tells whether answers are the row's, and the row's answer."""
    place, tolerance = row.label_place, options.tolerance
    if place is not None:
        if tolerance is not None:
            raise InvalidInput(
                f"{row.model.ref} answers with a label, so there is no tolerance.",
                "Leave the tolerance out.",
            )
        return lambda found: np.equal(_choices(found), place), row.answer["label"]
    value = row.answer["value"]
    if tolerance is None:
        raise InvalidInput(
            f"{row.model.ref} answers with a number ({value:g}), and no tolerance is given.",
            "Say at which distance a number is the same answer, such as --tolerance 10.",
        )

    def same(found: Outputs) -> NDArray[np.bool_]:
        assert found.values is not None, "a regression answers with values"
        near: NDArray[np.bool_] = np.abs(found.values - value) <= tolerance
        return near

    return same, value


def _choices(found: Outputs) -> NDArray[np.int64]:
    assert found.choices is not None, "a classifier answers with choices"
    return found.choices


def _background_answers(model: ExplainedModel) -> Outputs:
    return model.sample.answers or _in_pieces(model, model.background)


def _in_pieces(model: ExplainedModel, rows: Columns) -> Outputs:
    pieces = range(0, len(rows), ROWS_PER_CALL)
    return join_outputs(
        [model.predict(take_rows(rows, slice(at, at + ROWS_PER_CALL))) for at in pieces]
    )


def _is_of_texts(signature: Signature) -> bool:
    return [field.kind for field in signature.fields] == ["text"]


def _conditions(row: ExplainedRow, holds: NDArray[np.bool_]) -> Conditions:
    """Return the conditions that the row fulfils."""
    model = row.model
    if _is_of_texts(row.signature):
        texts = model.remember("anchors, training", lambda: TrainingTexts(model.background))
        return WordConditions(texts, row.columns.texts[0, 0], holds)
    fields = model.remember(
        "anchors, training", lambda: TrainingFields(model.background, model.signature)
    )
    return FieldConditions(fields, row.columns)


def _seed(model: ExplainedModel, answer: Any) -> bytes:
    """Return the seed of all samples under a version that belong to an answer."""
    version = model.ref if model.package is None else model.package.manifest.content
    said = msgspec.json.encode(["anchors", version, len(model.background), answer])
    return hashlib.blake2b(said, digest_size=16).digest()


def _describe(
    signature: Signature, conditions: Conditions, found: FoundAnchor
) -> list[AnchorCondition]:
    """Write a rule in the fields' own units; conditions on one number become one."""
    if isinstance(conditions, WordConditions):
        (field,) = signature.fields
        words = [conditions.words[at] for at in found.rule]
        return [
            AnchorCondition(
                field=field.name, word=word, positions=conditions.spans[word][:MOST_POSITIONS]
            )
            for word in words
        ]
    assert isinstance(conditions, FieldConditions), "conditions are on fields or on words"
    by_field: dict[int, list[RuleCondition]] = {}
    for at in found.rule:
        by_field.setdefault(conditions.conditions[at].field, []).append(conditions.conditions[at])
    return [_describe_field(signature.fields[place], by_field[place]) for place in sorted(by_field)]


def _describe_field(field: Field, conditions: list[RuleCondition]) -> AnchorCondition:
    above = next((each.above for each in conditions if each.above is not None), None)
    at_most = next((each.at_most for each in conditions if each.at_most is not None), None)
    unit = field.unit
    if above is None and at_most is None:
        (only,) = conditions
        value = (
            only.value.tolist() if isinstance(only.value, np.generic | np.ndarray) else only.value
        )
        return AnchorCondition(field=field.name, value=value, is_null=value is None, unit=unit)
    if field.kind == "boolean":
        return AnchorCondition(field=field.name, value=above is not None, unit=unit)
    low = None if above is None else value_in_kind(field, above)
    high = None if at_most is None else value_in_kind(field, at_most)
    if field.kind == "integer" and low is not None and high == low + 1:
        return AnchorCondition(field=field.name, value=high, unit=unit)
    return AnchorCondition(field=field.name, above=low, at_most=high, unit=unit)
