"""The contract of an executor, as tests: inherit, and give `executor`."""

from __future__ import annotations

import threading

import pytest

from clewline.flow.executors import Executor


class ExecutorContract:
    """
    What every executor must do.

    A subclass overrides the fixture `executor`; pytest then runs these tests
    against it. Ours run over the inline executor.
    """

    @pytest.fixture
    def executor(self) -> Executor:
        """The executor under test."""
        raise NotImplementedError("override the fixture `executor`")

    def test_work_gives_its_result(self, executor: Executor) -> None:
        """What the work returns comes out of the future."""
        assert executor.submit(lambda: 6 * 7).result(timeout=60) == 42

    def test_work_waits_for_earlier_work(self, executor: Executor) -> None:
        """Work may ask for the results of what was submitted before."""
        first = executor.submit(lambda: [1])
        second = executor.submit(lambda: [*first.result(timeout=60), 2])
        third = executor.submit(lambda: first.result(timeout=60) + second.result(timeout=60))
        assert third.result(timeout=60) == [1, 1, 2]

    def test_an_error_comes_out_of_its_future_alone(self, executor: Executor) -> None:
        """What work raises does not leave `submit`, and leaves later work alone."""
        error = ValueError("mine")

        def fail() -> None:
            raise error

        failed = executor.submit(fail)
        assert failed.exception(timeout=60) is error
        assert executor.submit(lambda: 1).result(timeout=60) == 1

    def test_an_interruption_comes_out_of_its_future(self, executor: Executor) -> None:
        """Ctrl-C inside work reaches whoever waits for it."""

        def interrupt() -> None:
            raise KeyboardInterrupt

        assert isinstance(executor.submit(interrupt).exception(timeout=60), KeyboardInterrupt)

    def test_close_waits_and_may_be_called_twice(self, executor: Executor) -> None:
        """After `close` everything that was submitted is done."""
        done = threading.Event()
        executor.submit(done.set)
        executor.close()
        executor.close()
        assert done.is_set()
