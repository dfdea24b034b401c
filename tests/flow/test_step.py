"""A step is the plain function outside a pipeline."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import clewline as cl
from clewline.errors import UsageError
from clewline.flow.step import Step

if TYPE_CHECKING:
    from elsewhere import Unknown


@cl.step
def split(table: list[int], *, share: float = 0.5) -> tuple[list[int], Unknown]:
    """Cut."""
    at = int(len(table) * share)
    return table[:at], table[at:]


@cl.step(cache=False, name="take.it")
def read(path: Path, other: Path | None = None, either: str | Path = "x") -> int:
    return 1


def known(function: Any) -> Step:
    found = function.__clewline_step__
    assert isinstance(found, Step)
    return found


def test_outside_a_pipeline_a_step_is_the_plain_function() -> None:
    assert split([1, 2, 3, 4]) == ([1, 2], [3, 4])
    assert split.__doc__ == "Cut."
    assert list(inspect.signature(split).parameters) == ["table", "share"]


def test_outputs_are_counted_though_a_name_exists_for_the_type_checker_alone() -> None:
    assert known(split).count == 2
    assert known(read).count is None


@pytest.mark.parametrize(
    ("annotation", "count"),
    [
        ("tuple[int, ...]", None),
        ("tuple[Nowhere, ...]", None),
        ("Tuple[Nowhere, int, str]", 3),
        ("tuple", None),
        ("tuple[int]", 1),
        ("list[Nowhere]", None),
    ],
)
def test_only_a_tuple_of_fixed_length_has_several_outputs(
    annotation: str, count: int | None
) -> None:
    def made() -> Any: ...

    made.__annotations__["return"] = annotation
    assert known(cl.step(made)).count == count


def test_paths_are_found_in_annotations_written_as_text() -> None:
    assert known(read).paths == {"path", "other"}


def test_only_plain_functions_can_be_steps() -> None:
    def generate() -> Any:
        yield 1

    async def wait() -> None: ...

    for wrong in (generate, wait, int, 3):
        with pytest.raises(UsageError, match="plain function"):
            cl.step(wrong)
    with pytest.raises(UsageError, match="name"):
        cl.step(lambda: 1)
    with pytest.raises(UsageError, match="HOME"):
        cl.step(env="HOME")(read)


def test_a_step_called_plainly_may_log_and_nothing_is_recorded() -> None:
    @cl.step
    def measure(rows: int) -> int:
        cl.log_metric("rows", rows)
        return rows

    assert measure(3) == 3
