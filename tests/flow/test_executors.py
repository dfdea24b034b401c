"""Executors keep their contract, and are found by name."""

from __future__ import annotations

import pytest

from clewline.errors import NotSupported
from clewline.flow.executors.protocol import Executor, executor_named
from clewline.testing.executor import ExecutorContract


class TestInline(ExecutorContract):
    @pytest.fixture
    def executor(self) -> Executor:
        return executor_named("inline")


def test_an_executor_that_nobody_offers_is_refused_with_the_known_ones() -> None:
    with pytest.raises(NotSupported, match="inline"):
        executor_named("cluster")
