"""The node that is a model version keeps the contract of nodes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from fairlead.errors import NotSupported
from fairlead.project import Project
from fairlead.serve.graph.builder import Builder, Node, node_kind
from fairlead.serve.pool import ModelPool
from fairlead.serve.spec.revision import require_live
from fairlead.serve.spec.tree import of_revision
from fairlead.store.reader import FILE, CatalogReader
from fairlead.testing.node import NodeContract


@pytest.fixture(scope="module")
def model_node(
    tmp_path_factory: pytest.TempPathFactory, loans: Callable[[Path], Project]
) -> Iterator[Node]:
    project = loans(tmp_path_factory.mktemp("loans"))
    with closing(CatalogReader(project.store_root / FILE)) as reader:
        revision = require_live(reader, "income")
    pool = ModelPool(project)
    pool.pin(revision.packages)
    build = Builder(revision, pool)
    yield build.node(of_revision(revision))
    build.close()


class TestModelNode(NodeContract):
    @pytest.fixture
    def node(self, model_node: Node) -> Node:
        return model_node


def test_an_unknown_kind_names_those_that_are_installed() -> None:
    with pytest.raises(NotSupported, match=r"'rout'; installed: .*model"):
        node_kind("rout")
