"""Parameters of a pipeline are read by its annotations, or refused with the reason."""

from __future__ import annotations

import enum
from pathlib import Path
from typing import Any, Literal, Optional

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clewline.errors import NotStorable, UsageError
from clewline.flow.params import describe_signature, from_record, parse_params, to_record
from clewline.flow.pipeline import pipeline


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


@pipeline
def income(
    data: Path,
    trees: int = 100,
    share: float = 0.25,
    fast: bool = False,
    kind: Literal["forest", "linear"] = "forest",
    depth: Optional[int] = None,  # noqa: UP045  the older spelling must work too
    names: list[str] = [],  # noqa: B006
    sizes: tuple[int, ...] = (),
    colour: Colour = Colour.RED,
    either: int | str = 0,
    options: dict[str, float] = {},  # noqa: B006
    plain=3,
) -> None: ...


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("trees=7", 7),
        ("share=1", 1.0),
        ("fast=true", True),
        ("fast=no", False),
        ("kind=linear", "linear"),
        ("depth=none", None),
        ("depth=4", 4),
        ("names=a,b", ["a", "b"]),
        ('names=["a,b"]', ["a,b"]),
        ("sizes=1,2", (1, 2)),
        ("colour=BLUE", Colour.BLUE),
        ("colour=blue", Colour.BLUE),
        ("either=5", 5),
        ("either=x=y", "x=y"),
        ('options={"a": 1}', {"a": 1.0}),
        ("plain=8", 8),
    ],
)
def test_a_word_becomes_a_value_of_the_annotated_type(word: str, expected: Any) -> None:
    found = parse_params(income, ["data=x", word])[word.partition("=")[0]]
    assert found == expected
    assert type(found) is type(expected)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["data=x", "trees=many"], ["'trees'", "'many'", "int"]),
        (["data=x", "tres=3"], ["'tres'", "did you mean 'trees'?"]),
        (["trees=3"], ["'data'"]),
        (["data=x", "kind=tree"], ["'forest' or 'linear'"]),
        (["data=x", "trees"], ["not key=value"]),
        (["data=x", "data=y"], ["twice"]),
        (["data=x", "sizes=1,b"], ["sizes", "'1,b'"]),
        (["data=x", "fast=maybe"], ["bool"]),
    ],
)
def test_a_refused_parameter_names_value_type_and_the_call(
    words: list[str], says: list[str]
) -> None:
    with pytest.raises(UsageError) as caught:
        parse_params(income, words)
    for part in says:
        assert part.strip("'") in str(caught.value)
    assert "income(data: Path, trees: int = 100" in str(caught.value)


WHOLE = st.integers(-(2**63), 2**63 - 1)


@given(
    st.fixed_dictionaries(
        {
            "trees": WHOLE,
            "share": st.floats(allow_nan=False),
            "fast": st.booleans(),
            "depth": st.none() | WHOLE,
            "names": st.lists(st.text()),
            "sizes": st.lists(WHOLE).map(tuple),
            "colour": st.sampled_from(Colour),
            "data": st.just(Path("/x/y")),
        }
    )
)
def test_parameters_come_back_from_the_record_as_they_were(params: dict[str, Any]) -> None:
    assert from_record(income, to_record(params)) == params


def test_a_parameter_that_cannot_be_recorded_is_refused_with_the_ways_out() -> None:
    with pytest.raises(NotStorable, match="create the value in a step"):
        to_record({"model": object()})


@pytest.mark.parametrize("share", [float("inf"), float("-inf"), float("nan")])
def test_a_number_that_json_has_not_comes_back_from_the_record(share: float) -> None:
    recorded = msgspec.json.decode(msgspec.json.encode(to_record({"share": share})))
    assert repr(from_record(income, recorded)["share"]) == repr(share)


def test_an_integer_beyond_64_bits_is_refused_with_a_way_out() -> None:
    with pytest.raises(NotStorable, match="'trees' is 9223372036854775808"):
        to_record({"trees": 2**63})


def test_the_signature_is_described_as_it_was_written() -> None:
    assert "kind: Literal['forest', 'linear'] = 'forest'" in describe_signature(income).replace(
        '"', "'"
    )
