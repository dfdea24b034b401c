"""The cost of a batch is learned from batches."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clewline.serve.batcher import BatchCost


@given(
    fixed=st.floats(1e-6, 0.1),
    row=st.floats(1e-7, 1e-3),
    sizes=st.lists(st.integers(1, 500), min_size=5, max_size=50).filter(lambda s: len(set(s)) > 2),
)
def test_a_line_is_found_again(fixed: float, row: float, sizes: list[int]) -> None:
    cost = BatchCost()
    for size in sizes:
        cost.observe(size, fixed + row * size)
    for size in sizes:
        assert cost.estimate(size) == pytest.approx(fixed + row * size, rel=0.01)


@given(st.lists(st.tuples(st.integers(1, 10_000), st.floats(0, 10)), max_size=30))
def test_neither_part_is_negative_and_one_row_always_fits(seen: list[tuple[int, float]]) -> None:
    cost = BatchCost()
    for rows, seconds in seen:
        cost.observe(rows, seconds)
    assert cost.fixed_s >= 0
    assert cost.row_s >= 0
    assert cost.rows_within(0.005) >= 1


def test_one_pause_of_the_machine_teaches_little_and_a_slower_model_is_learned() -> None:
    cost = BatchCost()
    for _ in range(50):
        cost.observe(1, 0.0001)
    cost.observe(1, 0.5)
    assert cost.estimate(1) < 0.0002
    for _ in range(200):
        cost.observe(1, 0.05)
    assert cost.estimate(1) == pytest.approx(0.05, rel=0.2)


def test_a_fixed_cost_above_the_budget_is_doubled_by_rows_at_most() -> None:
    cost = BatchCost()
    for size in (1, 10, 100):
        cost.observe(size, 0.02 + 0.0001 * size)
    assert cost.rows_within(0.005) == pytest.approx(200, rel=0.02)
