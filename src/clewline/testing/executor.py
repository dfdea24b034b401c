"""The contract of an executor as tests: inherit them, and override the fixture `executor`."""

from __future__ import annotations

import threading

import pytest

from clewline.flow.executors import Executor


class ExecutorContract:
    """
    The behaviour that every executor must have.

    A subclass overrides the fixture `executor`, and pytest runs these tests against it.
    The inline executor passes them too.
    """

    @pytest.fixture
    def executor(self) -> Executor:
        """The executor under test."""
        raise NotImplementedError("override the fixture `executor`")

    def test_work_gives_its_result(self, executor: Executor) -> None:
        """The future returns the result of the work."""
        assert executor.submit(lambda: 6 * 7).result(timeout=60) == 42

    def test_work_waits_for_earlier_work(self, executor: Executor) -> None:
        """Work may wait for the results of work that was submitted before it."""
        first = executor.submit(lambda: [1])
        second = executor.submit(lambda: [*first.result(timeout=60), 2])
        third = executor.submit(lambda: first.result(timeout=60) + second.result(timeout=60))
        assert third.result(timeout=60) == [1, 1, 2]

    def test_an_error_is_raised_by_its_future_alone(self, executor: Executor) -> None:
        """An exception in the work does not leave `submit`, and does not affect later work."""
        error = ValueError("mine")

        def fail() -> None:
            raise error

        failed = executor.submit(fail)
        assert failed.exception(timeout=60) is error
        assert executor.submit(lambda: 1).result(timeout=60) == 1

    def test_an_interruption_is_raised_by_its_future(self, executor: Executor) -> None:
        """Ctrl-C inside the work is raised where its result is waited for."""

        def interrupt() -> None:
            raise KeyboardInterrupt

        assert isinstance(executor.submit(interrupt).exception(timeout=60), KeyboardInterrupt)

    def test_close_waits_and_may_be_called_twice(self, executor: Executor) -> None:
        """After `close` all submitted work is done."""
        done = threading.Event()
        executor.submit(done.set)
        executor.close()
        executor.close()
        assert done.is_set()
