"""Whether the nodes of a graph fit together, told from their signatures before anything runs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from clewline.serve.graph.problems import Problems, nearest
from clewline.serve.graph.routing import ORDERED, flat
from clewline.serve.graph.tree import Tree, below, title
from clewline.signature import timestamps
from clewline.signature.field import NUMERIC, Field, Output, Signature
from clewline.signature.field_rules import AwareDatetime

Signatures = Mapping[str, Signature]
"""Of every model version of a graph, by `name@number`."""


def fit(tree: Tree, signatures: Signatures, problems: Problems) -> Signature | None:
    """
    Hold each node against what stands below it.

    Args:
        tree: The resolved tree.
        signatures: Of its models.
        problems: Where what does not fit is entered, with both sides.

    Returns:
        What goes into the node and comes out; None where it cannot be told.
    """
    found = [
        (key.partition(".")[2] or key, child, fit(child, signatures, problems))
        for key, child in below(tree)
    ]
    match tree["kind"]:
        case "model":
            return signatures.get(tree["model"])
        case "transform":
            return _transformed(tree, found[0], signatures, problems)
        case "route" | "combine":
            return _together(tree, found, signatures, problems)
        case "shadow":
            return _shadowed(tree, found, problems)
        case "after":
            return _changed(tree, found[0], problems)
    return None


Side = tuple[str, Tree, Signature]
Sides = list[tuple[str, Tree, Signature | None]]


def _transformed(
    tree: Tree,
    after: tuple[str, Tree, Signature | None],
    signatures: Signatures,
    problems: Problems,
) -> Signature | None:
    then = after[2]
    if tree.get("model"):
        prepared = signatures.get(tree["model"])
        if prepared is None or then is None:
            return None
        _within(tree, prepared.transformed.fields, after[1], then, problems)
        return Signature(fields=prepared.fields, output=then.output)
    if then is None or tree["fields"] is None:
        return then
    fields = msgspec.convert(tree["fields"], tuple[Field, ...])
    return Signature(fields=fields, output=then.output)


def _within(
    tree: Tree, made: Iterable[Field], after: Tree, then: Signature, problems: Problems
) -> None:
    """What follows a fitted preprocessing takes fields that it makes."""
    known = {field.name: field for field in made}
    for field in then.fields:
        given = known.get(field.name)
        if given is None or (given.kind in NUMERIC) != (field.kind in NUMERIC):
            has = f"makes it as {given.kind}" if given else "makes no such field"
            problems.add(
                tree["name"],
                f"{after['name']} ({title(after)}) takes {field.name!r} as {field.kind}, "
                f"and {tree['name']} ({title(tree)}) {has}.",
                "Serve a model that was fitted on what this preprocessing makes.",
            )


def _changed(
    tree: Tree, of: tuple[str, Tree, Signature | None], problems: Problems
) -> Signature | None:
    """A function on answers takes labels and numbers, not arrays."""
    if of[2] is not None and of[2].output.task == "tensor":
        _not_over(tree, of[1], of[2].output, problems)
    return of[2]


def _not_over(tree: Tree, child: Tree, output: Output, problems: Problems) -> None:
    problems.add(
        tree["name"],
        f"{tree['name']} ({title(tree)}) over {child['name']} ({title(child)}) is given "
        f"{_answer(output)}, of which it can make nothing.",
        "Do it in the model itself, or combine labels and numbers.",
    )


def _together(
    tree: Tree, sides: Sides, signatures: Signatures, problems: Problems
) -> Signature | None:
    """Arms and branches take the same rows, and answer in the same terms."""
    known = [(name, child, signature) for name, child, signature in sides if signature is not None]
    if not known:
        return None
    first = known[0]
    for other in known[1:]:
        if tree["kind"] == "route" or tree["how"] != "stack":
            _same_answers(tree, first, other, problems)
    if tree["kind"] == "combine" and tree["how"] != "stack":
        _combined(tree, known, problems)
    fields = _union(tree, known, problems)
    joined = Signature(fields=fields, output=_joined_output(tree, known, signatures))
    if tree["kind"] == "route" and tree["how"] == "rules":
        _rules(tree, {field.name: field for field in fields}, problems)
    return joined


def _combined(tree: Tree, sides: list[Side], problems: Problems) -> None:
    """Arrays are not combined, votes are on labels, and means of probabilities or numbers."""
    _, child, signature = sides[0]
    output, how = signature.output, tree["how"]
    if output.task == "tensor" or (how == "vote" and output.labels is None):
        _not_over(tree, child, output, problems)
    elif how == "mean" and not any(side[2].output.has_probabilities for side in sides):
        problems.add(
            tree["name"],
            f"{_both(tree, sides[0], sides[-1])} answer labels without probabilities, "
            "of which there is no mean.",
            "Take a vote.",
        )


def _shadowed(tree: Tree, sides: Sides, problems: Problems) -> Signature | None:
    """A shadow gets the rows that are answered, so it can ask for no other field."""
    answering = sides[0][2]
    if answering is None:
        return None
    taken = {field.name: field for field in answering.fields}
    for name, child, signature in sides[1:]:
        if signature is not None:
            answers = "what answers", sides[0][1], answering
            _same_answers(tree, answers, (name, child, signature), problems)
        for field in signature.fields if signature else ():
            known = taken.get(field.name)
            if known is None or known.kind != field.kind:
                has = f"takes it as {known.kind}" if known else "has no such field"
                problems.add(
                    child["name"],
                    f"the shadow {name} ({title(child)}) takes {field.name!r} as {field.kind}, "
                    f"and what answers {has}.",
                    "Give the shadow a transform that makes its fields of those.",
                )
    return answering


def _same_answers(tree: Tree, one: Side, other: Side, problems: Problems) -> None:
    with_shares = tree["kind"] == "route" or (tree["kind"], tree.get("how")) == ("combine", "mean")
    terms = [_terms(side[2].output, with_shares=with_shares) for side in (one, other)]
    if terms[0] == terms[1]:
        return
    said = [_answer(side[2].output) for side in (one, other)]
    problems.add(
        tree["name"],
        f"{_both(tree, one, other)} answer in different terms: {said[0]}, and {said[1]}.",
        "Serve models of one target that answer alike; a vote takes labels without probabilities.",
    )


def _terms(output: Output, *, with_shares: bool) -> tuple[Any, ...]:
    """What two answers must have in common, whatever the order of their labels."""
    if output.labels is None:
        return output.task == "tensor", output.unit, output.dtype, output.shape
    labels = frozenset((type(label), label) for label in output.labels)
    return (labels, output.has_probabilities) if with_shares else (labels,)


def _joined_output(tree: Tree, sides: list[Side], signatures: Signatures) -> Output:
    """What comes out of arms or branches, as the runtime makes it."""
    first = sides[0][2].output
    if tree["kind"] == "route":
        return first
    if tree["how"] == "stack":
        stacked = signatures.get(tree["config"]["model"])
        return first if stacked is None else stacked.output
    every = tree["how"] == "vote" or all(side[2].output.has_probabilities for side in sides)
    return msgspec.structs.replace(first, has_probabilities=every)


def _answer(output: Output) -> str:
    unit = f" in {output.unit}" if output.unit else ""
    if output.task == "tensor":
        return f"an array of {output.dtype} {list(output.shape or ())}{unit}"
    if output.labels is None:
        return f"a number{unit}"
    alone = "" if output.has_probabilities else " without probabilities"
    return "one of " + ", ".join(repr(label) for label in output.labels) + alone


def _union(tree: Tree, sides: list[Side], problems: Problems) -> tuple[Field, ...]:
    """All fields of all sides; one name must mean one thing."""
    fields: dict[str, tuple[Field, Side]] = {}
    for side in sides:
        for field in side[2].fields:
            known = fields.setdefault(field.name, (field, side))
            told = [_told(each) for each in (known[0], field)]
            if told[0] != told[1]:
                problems.add(
                    tree["name"],
                    f"{_both(tree, known[1], side)} take {field.name!r} differently: "
                    f"{told[0]}, and {told[1]}.",
                    "Put a transform on one of them.",
                )
    return tuple(field for field, _ in fields.values())


def _told(field: Field) -> str:
    """What a field must agree on with another of its name."""
    unit = f" in {field.unit}" if field.unit else ""
    return f"{field.kind}{unit}{f' of {field.dtype} {field.shape}' if field.dtype else ''}"


def _both(tree: Tree, one: Side, other: Side) -> str:
    if tree["kind"] == "shadow":
        return f"what answers ({title(one[1])}) and the shadow {other[0]} ({title(other[1])})"
    what = "arms" if tree["kind"] == "route" else "branches"
    return f"the {what} {one[0]} ({title(one[1])}) and {other[0]} ({title(other[1])})"


# Rules


def _rules(tree: Tree, fields: dict[str, Field], problems: Problems) -> None:
    for rule in tree["config"].get("rules", ()):
        for condition in flat(rule["if"]):
            _condition(tree["name"], condition, fields, problems)


def _condition(
    at: str, condition: dict[str, Any], fields: dict[str, Field], problems: Problems
) -> None:
    name, operator, value = condition["field"], condition["is"], condition["value"]
    field = fields.get(name)
    if field is None:
        message = f"a rule of {at} asks about {name!r}, which is no field."
        problems.add(at, message, nearest(name, fields))
        return
    if operator == "missing":
        fits, wanted = isinstance(value, bool), "true or false"
    elif operator in ORDERED and field.kind not in NUMERIC - {"boolean"}:
        fits, wanted = False, "is, not, in or missing, for it has no order"
    else:
        values: Iterable[Any] = value if operator == "in" and isinstance(value, list) else [value]
        fits, wanted = all(_is_of(field, each) for each in values), _WANTED[field.kind]
    if not fits:
        problems.add(
            at,
            f"a rule of {at} asks whether {name!r}, a {field.kind}, {operator} {value!r}.",
            f"Write {wanted}.",
        )


_WANTED = {
    "number": "a number",
    "integer": "an integer",
    "boolean": "true or false",
    "category": "a text",
    "text": "a text",
    "datetime": "a date-time with an offset, such as 2026-01-31T00:00:00Z",
    "tensor": "no rule on a tensor",
}


def _is_of(field: Field, value: Any) -> bool:
    match field.kind:
        case "boolean":
            return isinstance(value, bool)
        case "number" | "integer":
            is_number = isinstance(value, int | float) and not isinstance(value, bool)
            return is_number and (field.kind == "number" or float(value).is_integer())
        case "category" | "text":
            return isinstance(value, str)
        case "datetime":
            return _is_instant(value)
    return False


def _is_instant(value: Any) -> bool:
    try:
        timestamps.to_microseconds(msgspec.convert(value, AwareDatetime))
    except msgspec.ValidationError:
        return False
    return True
