"""What `import clewline` offers."""

from __future__ import annotations

import builtins
import subprocess
import sys
from pathlib import Path

import pytest

import clewline as cl
from clewline.errors import NotFound
from clewline.store import Store


def test_every_public_name_is_there_and_its_list_is_sorted() -> None:
    assert cl.__all__ == sorted(cl.__all__)
    for name in cl.__all__:
        assert callable(getattr(cl, name))
    assert set(cl.__all__) <= set(dir(cl))
    with pytest.raises(AttributeError, match="no attribute 'stpe'"):
        _ = cl.stpe  # type: ignore[attr-defined]


def test_a_star_import_shadows_no_builtin() -> None:
    namespace: dict[str, object] = {}
    exec("from clewline import *", namespace)
    assert "open" not in namespace
    assert not set(cl.__all__) & set(dir(builtins))
    assert callable(cl.open)


def test_evaluate_stays_the_function_though_its_folder_is_imported() -> None:
    from clewline.evaluation.evaluate import evaluate

    assert cl.evaluate is evaluate


def test_importing_the_package_loads_nothing_heavy() -> None:
    heavy = "numpy polars sklearn sqlalchemy msgspec rich cyclopts onnxruntime"
    code = f"import sys, clewline; print([m for m in {heavy.split()} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_open_reads_the_store_of_a_project(tmp_path: Path) -> None:
    (tmp_path / "clewline.toml").write_text('[project]\nname = "p"\nid = "0"\n')
    Store.create(tmp_path / ".clewline").close()
    with cl.open(tmp_path) as store:
        assert store.runs.list() == []
        assert store.models.list() == []
        assert store.endpoints.list() == []
        assert store.predictions.list() == []
        for missing in (
            lambda: store.runs.get("abcdef"),
            lambda: store.models.get("income@1"),
            lambda: store.endpoints.get("income"),
            lambda: store.endpoints.get("income#x"),
            lambda: store.endpoints.get("income#²"),
            lambda: store.endpoints.get(f"income#{10**30}"),
            lambda: store.predictions.get("01990c4e-2b7a-7c31-9f0e-5a4d3c2b1a09"),
            lambda: store.runs.value("0" * 64),
        ):
            with pytest.raises(NotFound):
                missing()
    with pytest.raises(NotFound):
        cl.open(tmp_path.parent)
