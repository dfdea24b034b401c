"""Deadlines are met in order, by one timer, and cost nothing once they are forgotten."""

from __future__ import annotations

import asyncio
import selectors
import time

import pytest
from support import PATIENCE_S

from clewline.serve.request.deadlines import STEP_S, Deadlines


def test_what_is_due_is_called_in_order_and_what_is_forgotten_is_not() -> None:
    async def test() -> list[str]:
        deadlines, called = Deadlines(), []
        done = asyncio.Event()
        now = time.perf_counter()

        def second() -> None:
            called.append("second")
            done.set()

        deadlines.add(now + 10 * STEP_S, second)
        deadlines.add(now + 2 * STEP_S, lambda: called.append("first"))

        def never() -> None:
            called.append("never")

        deadlines.forget(deadlines.add(now + 5 * STEP_S, never), never)
        await asyncio.wait_for(done.wait(), PATIENCE_S)
        return called

    assert asyncio.run(test()) == ["first", "second"]


def test_a_deadline_that_is_over_is_called_at_once_but_not_from_within() -> None:
    async def test() -> None:
        deadlines, called = Deadlines(), asyncio.Event()
        deadlines.add(time.perf_counter() - 1, called.set)
        assert not called.is_set()
        await asyncio.wait_for(called.wait(), PATIENCE_S)

    asyncio.run(test())


def test_nothing_is_called_after_the_end() -> None:
    async def test() -> bool:
        deadlines, called, later = Deadlines(), asyncio.Event(), asyncio.Event()
        deadlines.add(time.perf_counter() + STEP_S, called.set)
        deadlines.close()
        asyncio.get_running_loop().call_later(5 * STEP_S, later.set)
        await later.wait()
        return called.is_set()

    assert not asyncio.run(test())


class Skipping(selectors.DefaultSelector):
    """Passes over the time that a loop would wait."""

    now = 1000.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        assert timeout is not None, "the loop waits for nothing"
        self.now += max(timeout, 1e-6)
        return super().select(0)


@pytest.mark.parametrize("late", [0.0, 0.25, 0.5, 0.999])
def test_nobody_is_told_early_or_more_than_a_step_late(
    monkeypatch: pytest.MonkeyPatch, late: float
) -> None:
    clock = Skipping()
    loop = asyncio.SelectorEventLoop(clock)
    monkeypatch.setattr(loop, "time", lambda: clock.now)
    monkeypatch.setattr(time, "perf_counter", lambda: clock.now)
    wanted = [clock.now + (steps + late) * STEP_S for steps in (7, 3, 4, 900)]
    told: dict[float, float] = {}

    async def test() -> None:
        deadlines, done = Deadlines(), asyncio.Event()

        def expire(deadline: float) -> None:
            told[deadline] = clock.now
            if len(told) == len(wanted):
                done.set()

        for deadline in wanted:
            deadlines.add(deadline, lambda deadline=deadline: expire(deadline))
        await done.wait()

    with asyncio.Runner(loop_factory=lambda: loop) as runner:
        runner.run(test())
    for deadline in wanted:
        assert deadline - 1e-5 <= told[deadline] <= deadline + STEP_S + 1e-4
