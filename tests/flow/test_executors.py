"""Executors keep their contract, and are found by name."""

from __future__ import annotations

import pytest

from fairlead.errors import NotFound
from fairlead.flow.executors import registry
from fairlead.flow.executors.protocol import Executor
from fairlead.testing.executor import ExecutorContract


class TestInline(ExecutorContract):
    @pytest.fixture
    def executor(self) -> Executor:
        return registry.load("inline")


def test_an_executor_that_nobody_offers_is_refused_with_the_known_ones() -> None:
    with pytest.raises(NotFound, match="inline"):
        registry.load("cluster")
