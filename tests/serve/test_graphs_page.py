"""The files that docs/graphs.md shows are applied as they stand there."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from clewline.project import Project
from clewline.serve import revision
from clewline.serve.endpoint_file import read_endpoint
from clewline.serve.model_cache.loaded_models import SharedModels
from clewline.serve.trial import try_graph
from clewline.store.store import Store

PAGE = Path(__file__).parents[2] / "docs" / "graphs.md"
FILES = dict(
    re.findall(r"^```\w+ +(\S+)\n(.*?)^```$", PAGE.read_text("utf-8"), re.MULTILINE | re.DOTALL)
)
NAMES = [Path(path).stem for path in FILES if path.startswith("endpoints/")]


def test_the_page_shows_endpoints() -> None:
    assert len(NAMES) >= 4


@pytest.mark.parametrize("name", NAMES)
def test_an_endpoint_of_the_page_resolves_and_answers(
    name: str, tmp_path: Path, shop: Callable[..., Project]
) -> None:
    project = shop(tmp_path, FILES)
    with Store.open(project.store_root) as store:
        draft = revision.resolve(project, store.catalog, read_endpoint(project, name))
    assert try_graph(SharedModels(project), draft, name).rows == 20
