"""Deadlines are met in order, by one timer, and cost nothing once they are forgotten."""

from __future__ import annotations

import asyncio
import time

from fairlead.serve.deadlines import STEP_S, Deadlines


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
        await asyncio.wait_for(done.wait(), 5)
        return called

    assert asyncio.run(test()) == ["first", "second"]


def test_a_deadline_that_is_over_is_called_at_once_but_not_from_within() -> None:
    async def test() -> None:
        deadlines, called = Deadlines(), asyncio.Event()
        deadlines.add(time.perf_counter() - 1, called.set)
        assert not called.is_set()
        await asyncio.wait_for(called.wait(), 5)

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
