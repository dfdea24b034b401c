"""Executors keep their contract, and are found by name."""

from __future__ import annotations

import pytest

from clewline.errors import NotSupported
from clewline.flow.executors import Executor, load_executor
from clewline.testing.executor import ExecutorContract


class TestInline(ExecutorContract):
    @pytest.fixture
    def executor(self) -> Executor:
        return load_executor("inline")


def test_an_unknown_executor_is_refused_with_the_known_ones() -> None:
    with pytest.raises(NotSupported, match="inline"):
        load_executor("cluster")
