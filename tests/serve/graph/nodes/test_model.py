"""The node that is a model version keeps the contract of nodes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from clewline.errors import NotSupported
from clewline.project import Project
from clewline.serve.graph.builder import Builder
from clewline.serve.graph.node import Node
from clewline.serve.graph.tree import node_kind, of_revision
from clewline.serve.model_cache.loaded_models import SharedModels
from clewline.serve.revision import require_live
from clewline.store.reader import FILE, CatalogReader
from clewline.testing.node import NodeContract


@pytest.fixture(scope="module")
def model_node(
    tmp_path_factory: pytest.TempPathFactory, loans: Callable[[Path], Project]
) -> Iterator[Node]:
    project = loans(tmp_path_factory.mktemp("loans"))
    with closing(CatalogReader(project.store_root / FILE)) as reader:
        revision = require_live(reader, "income")
    pool = SharedModels(project)
    pool.pin(revision.packages)
    build = Builder(revision, pool)
    yield build.node(of_revision(revision))
    build.close()


class TestModelNode(NodeContract):
    @pytest.fixture
    def node(self, model_node: Node) -> Node:
        return model_node


def test_an_unknown_kind_names_those_that_are_installed() -> None:
    with pytest.raises(NotSupported, match=r"'rout'.*Installed: .*model"):
        node_kind("rout")
