"""Routers keep the contract, and each its own promises."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clewline.errors import InvalidConfig
from clewline.serve.graph.node import Batch
from clewline.serve.graph.routers.router import RouteContext, Router, router_class
from clewline.signature.columns import Columns
from clewline.signature.field import Field, Output, Signature
from clewline.store.ids import prediction_ids
from clewline.testing.router import RouterContract

ARMS = ("a", "b", "c")
SIGNATURE = Signature(
    fields=(
        Field(name="age", kind="integer", nullable=True),
        Field(name="member", kind="boolean"),
        Field(name="since", kind="datetime"),
        Field(name="job", kind="category", nullable=True),
    ),
    output=Output(name="y", task="regression"),
)
ROWS = Columns(
    np.array([[20.0, 1, 0], [40.0, 0, 1e15], [np.nan, 1, 2e15], [60.0, 0, 3e15]]),
    np.array([["nurse"], ["smith"], [None], ["clerk"]], dtype=object),
)
SINCE = 1_795_000_000.0


def router(how: str, config: dict[str, Any], arms: tuple[str, ...] = ARMS) -> Router:
    return router_class(how)(config, RouteContext("income", "route", arms, SIGNATURE, SINCE))


def ids_at(time_s: float, count: int) -> list[bytes]:
    prefix = int(time_s * 1000).to_bytes(6, "big")
    return [prefix + each[6:] for each in prediction_ids(count)]


def batch(entities: list[str | None], ids: list[bytes] | None = None) -> Batch:
    count = len(entities)
    columns = Columns(np.zeros((count, 3)), np.full((count, 1), None, dtype=object))
    return Batch(columns, ids or prediction_ids(count), entities)


WEIGHTS = {"weights": {"a": 0.7, "b": 0.3}}
RAMP = {"weights": {"a": 1.0}, "ramp": {"to": {"b": 1.0}, "over_s": 1000}}
IS_OLD = {
    "rules": [{"if": [{"field": "age", "is": ">", "value": 30}], "arm": "b"}],
    "otherwise": "a",
}


class TestContract(RouterContract):
    @pytest.fixture(params=["weights", "sticky", "rules"])
    def router(self, request: pytest.FixtureRequest) -> Router:
        return router(request.param, IS_OLD if request.param == "rules" else WEIGHTS)

    @pytest.fixture
    def arms(self) -> int:
        return len(ARMS)

    @pytest.fixture
    def rows(self) -> Columns:
        return ROWS


@given(st.lists(st.floats(0, 10), min_size=3, max_size=3).filter(lambda ws: sum(ws) > 1e-3))
def test_shares_sum_to_one_and_an_arm_without_weight_is_never_drawn(weights: list[float]) -> None:
    shares = np.array(weights) / sum(weights)
    config = {"weights": dict(zip(ARMS, weights, strict=True))}
    for how in ("weights", "sticky"):
        arms, propensities = router(how, config).choose(batch([None] * 50), None)
        assert np.allclose(propensities, shares[arms], rtol=1e-12)
        assert (shares[arms] > 0).all()


def test_a_ramp_goes_from_one_share_to_the_other_and_the_time_of_the_id_tells() -> None:
    ramp = router("weights", RAMP)
    found = []
    for seconds in (-50, 0, 250, 900, 1000, 99999):
        ids = ids_at(SINCE + seconds, 2000)
        arms, propensities = ramp.choose(batch([None] * 2000, ids), None)
        share = (arms == 1).mean()
        expected = min(max(seconds / 1000, 0), 1)
        assert np.allclose(propensities, np.where(arms == 1, expected, 1 - expected))
        assert abs(share - expected) <= 6 * np.sqrt(0.25 / 2000)
        found.append(share)
    assert (found[0], found[1], found[-2], found[-1]) == (0, 0, 1, 1)


@given(st.lists(st.text(max_size=8), min_size=1, max_size=20))
def test_an_entity_keeps_its_arm_in_another_process_and_batch(entities: list[str]) -> None:
    config = {"weights": {"a": 0.5, "b": 0.5}}
    first = router("sticky", config).choose(batch(list(entities)), None)[0]
    again = router("sticky", config).choose(batch(list(entities[::-1])), None)[0][::-1]
    assert first.tolist() == again.tolist()


def test_the_arm_of_an_entity_is_the_one_that_it_always_was() -> None:
    """Another hash would move people between the arms of running experiments."""
    entities: list[str | None] = [f"c-{i}" for i in range(12)]
    arms, _ = router("sticky", WEIGHTS).choose(batch(entities), None)
    assert "".join(ARMS[arm] for arm in arms) == ALWAYS


def test_when_an_arm_gains_weight_entities_move_to_it_and_between_no_others() -> None:
    entities: list[str | None] = [f"c-{i}" for i in range(3000)]
    before, _ = router("sticky", {"weights": {"a": 3, "b": 3, "c": 1}}).choose(
        batch(entities), None
    )
    after, _ = router("sticky", {"weights": {"a": 3, "b": 3, "c": 2}}).choose(batch(entities), None)
    moved = Counter((ARMS[x], ARMS[y]) for x, y in zip(before, after, strict=True) if x != y)
    assert {to for _, to in moved} == {"c"}
    assert 200 < sum(moved.values()) < 450  # 3000 * (2/8 - 1/7) = 321


def test_entities_of_a_ramp_move_once_and_never_back() -> None:
    ramp = router("sticky", RAMP)
    entities: list[str | None] = [f"c-{i}" for i in range(300)]
    over_time = np.array(
        [
            ramp.choose(batch(entities, ids_at(SINCE + second, 300)), None)[0]
            for second in (-9, 0, 250, 500, 750, 1000, 9000)
        ]
    )
    assert (np.diff(over_time, axis=0) >= 0).all()  # from a, the first arm, to b alone
    assert np.abs(over_time.mean(axis=1) - [0, 0, 0.25, 0.5, 0.75, 1, 1]).max() < 0.1


def test_rows_about_nobody_are_drawn_by_their_ids() -> None:
    sticky = router("sticky", {"weights": {"a": 0.5, "b": 0.5}})
    about_nobody = batch([None] * 400)
    arms, _ = sticky.choose(about_nobody, None)
    assert 100 < arms.sum() < 300
    assert sticky.choose(about_nobody, None)[0].tolist() == arms.tolist()


def condition(field: str, operator: str, value: Any) -> dict[str, Any]:
    return {"field": field, "is": operator, "value": value}


@pytest.mark.parametrize(
    ("conditions", "rows"),
    [
        ([condition("age", "==", 20)], [0]),
        ([condition("age", "!=", 20)], [1, 3]),
        ([condition("age", "<", 40)], [0]),
        ([condition("age", "<=", 40)], [0, 1]),
        ([condition("age", ">", 40)], [3]),
        ([condition("age", ">=", 40)], [1, 3]),
        ([condition("age", "in", [20, 60])], [0, 3]),
        ([condition("age", "missing", True)], [2]),
        ([condition("age", "missing", False)], [0, 1, 3]),
        ([condition("member", "==", True)], [0, 2]),
        ([condition("since", ">=", "2033-05-18T03:33:20Z")], [2, 3]),
        ([condition("job", "==", "nurse")], [0]),
        ([condition("job", "!=", "nurse")], [1, 3]),
        ([condition("job", "in", ["nurse", "clerk"])], [0, 3]),
        ([condition("job", "missing", True)], [2]),
        ([condition("age", ">=", 20), condition("job", "!=", "clerk")], [0, 1]),
        ([{"any": [condition("age", "<", 30), condition("job", "missing", True)]}], [0, 2]),
        ([{"any": []}], []),
        ([{"all": []}], [0, 1, 2, 3]),
    ],
)
def test_a_rule_holds_where_its_conditions_do(
    conditions: list[dict[str, Any]], rows: list[int]
) -> None:
    ruled = router("rules", {"rules": [{"if": conditions, "arm": "b"}], "otherwise": "a"})
    arms, propensities = ruled.choose(Batch(ROWS, prediction_ids(4), [None] * 4), None)
    assert np.flatnonzero(arms == 1).tolist() == rows
    assert propensities.tolist() == [1.0] * 4


def test_the_first_rule_that_holds_wins() -> None:
    rules = [
        {"if": [condition("age", "<", 30)], "arm": "b"},
        {"if": [condition("age", "<", 50)], "arm": "c"},
    ]
    ruled = router("rules", {"rules": rules, "otherwise": "a"})
    arms, _ = ruled.choose(Batch(ROWS, prediction_ids(4), [None] * 4), None)
    assert [ARMS[arm] for arm in arms] == ["b", "c", "a", "a"]


@pytest.mark.parametrize(
    ("conditions", "message"),
    [
        ([condition("agee", "<", 3)], r"'agee'.*'age'"),
        ([condition("age", "<", "3")], "the integer 'age': age < '3'. Write an integer"),
        ([condition("age", "==", 3.5)], "age == 3.5. Write an integer"),
        ([condition("job", "<", "a")], "job < 'a'. Write is, not, in or missing"),
        ([condition("member", "<", True)], "the boolean 'member'"),
        ([condition("job", "in", "nurse")], "job in 'nurse'. Write a list"),
        ([condition("age", "missing", 1)], "missing 1. Write true or false"),
        ([condition("since", ">", "2026-01-31")], "Write a date-time with an offset"),
    ],
)
def test_a_condition_that_makes_no_sense_is_refused(
    conditions: list[dict[str, Any]], message: str
) -> None:
    with pytest.raises(InvalidConfig, match=message):
        router("rules", {"rules": [{"if": conditions, "arm": "b"}], "otherwise": "a"})


ALWAYS = "aaaaababbaaa"
