"""Many callers of one long answer hold one thread, and none gets what was made before it asked."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from support import PATIENCE_S, wait_until

from clewline.errors import Fault, Overloaded
from clewline.protocols.http.shared_answer import SharedAnswer


@pytest.fixture
def threads() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(4) as pool:
        yield pool


def test_callers_share_an_answer_that_was_begun_after_they_asked(
    threads: ThreadPoolExecutor,
) -> None:
    begun: list[int] = []
    go = threading.Semaphore(0)

    def make() -> int:
        begun.append(len(begun))
        assert go.acquire(timeout=PATIENCE_S)
        return begun[-1]

    async def test() -> None:
        answers: dict[str, Any] = {}
        shared = SharedAnswer(threads, make, lambda: True)
        shared.ask(lambda found: answers.update(first=found))
        await wait_until(lambda: begun)
        for name in ("second", "third"):
            shared.ask(lambda found, name=name: answers.update({name: found}))
        assert begun == [0]
        go.release()
        await wait_until(lambda: len(begun) == 2)
        assert answers == {"first": 0}
        go.release()
        await wait_until(lambda: len(answers) == 3)
        assert answers == {"first": 0, "second": 1, "third": 1}
        assert begun == [0, 1]

    asyncio.run(test())


@pytest.mark.parametrize("takes_long", [False, True])
def test_an_error_or_a_caller_that_raises_ends_only_its_own_answer(
    threads: ThreadPoolExecutor, takes_long: bool
) -> None:
    made: list[Any] = [Overloaded("Wait."), 7, RuntimeError("a bug"), 8]

    def make() -> Any:
        found = made.pop(0)
        if isinstance(found, Exception):
            raise found
        return found

    async def test() -> None:
        answers: list[Any] = []
        shared = SharedAnswer(threads, make, lambda: takes_long)

        def broken(_: Any) -> None:
            raise RuntimeError

        shared.ask(answers.append)
        await wait_until(lambda: len(answers) == 1)
        shared.ask(broken)
        await wait_until(lambda: len(made) == 2)
        try:
            shared.ask(answers.append)
        except RuntimeError:
            answers.append(Fault("raised to the caller"))
        await wait_until(lambda: len(answers) == 2)
        shared.ask(answers.append)
        await wait_until(lambda: len(answers) == 3)
        assert [type(found) for found in answers] == [Overloaded, Fault, int]

    asyncio.run(test())
