"""
The contract of a catalog.

    class TestMyCatalog(CatalogContract):
        def open(self, folder: Path) -> Catalog:
            return MyCatalog(folder)

`open` with the same folder opens the same catalog again.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import msgspec
import pytest

from clewline.errors import Conflict, NotFound, UsageError
from clewline.store.digest import digest_bytes
from clewline.store.records import (
    Alias,
    Artifact,
    ArtifactUse,
    ModelVersion,
    Record,
    Revision,
    Run,
    StepRun,
)


class CatalogContract:
    """Tests that every catalog passes."""

    def open(self, folder: Path) -> Any:
        """Open the `Catalog` in a folder, and create it if it does not exist."""
        raise NotImplementedError

    @pytest.fixture
    def catalog(self, tmp_path: Path) -> Any:
        created = self.open(tmp_path)
        yield created
        created.close()

    def test_a_record_comes_back_as_it_was(self, catalog: Any, tmp_path: Path) -> None:
        run = _run(
            params={"rate": 1.0, "names": ["a", None], "deep": {"on": True}, "b": b"\0"},
            metrics={"loss": 0.1, "limit": float("inf")},
            changed=["ä.py"],
            error={"type": "ValueError"},
        )
        _record(catalog, run)
        assert catalog.get(Run, run.id) == run
        again = self.open(tmp_path)
        assert again.get(Run, run.id) == run
        again.close()

    def test_a_metric_that_is_not_a_number_stays_one(self, catalog: Any) -> None:
        _record(catalog, _run(metrics={"loss": float("nan")}))
        found = catalog.get(Run, "0" * 12)
        assert found is not None
        assert str(found.metrics["loss"]) == "nan"

    def test_a_missing_record_is_none_and_an_empty_list(self, catalog: Any) -> None:
        assert catalog.get(Run, "nothing") is None
        assert catalog.get(Revision, "income", 10**23) is None
        assert catalog.find(Run, id="nothing") == []
        assert catalog.count(Run) == 0

    def test_records_are_found_ordered_and_paged(self, catalog: Any) -> None:
        _record(catalog, *(_run(f"{i:012x}", started=float(i % 3)) for i in range(9)))
        newest = catalog.find(Run, order="-started", limit=4)
        assert [int(run.id, 16) for run in newest] == [2, 5, 8, 1]
        rest = catalog.find(Run, order="-started", limit=None, offset=4)
        assert [int(run.id, 16) for run in rest] == [4, 7, 0, 3, 6]
        assert [run.id for run in catalog.find(Run, started=1.0, order="-id")] == [
            f"{i:012x}" for i in (7, 4, 1)
        ]
        assert catalog.count(Run, started=1.0) == 3
        assert catalog.count(Run, ended=None) == 9

    def test_records_are_found_by_a_prefix(self, catalog: Any) -> None:
        _record(catalog, _run("abcd00000000"), _run("abce00000000"), _run("b00000000000"))
        assert len(catalog.find(Run, prefix={"id": "abc"})) == 2
        assert len(catalog.find(Run, prefix={"id": "abcd"})) == 1
        assert catalog.count(Run, prefix={"id": "c"}) == 0

    def test_an_unknown_field_is_refused(self, catalog: Any) -> None:
        with pytest.raises(UsageError, match="colour"):
            catalog.find(Run, colour="red")
        with pytest.raises(UsageError, match="colour"):
            catalog.find(Run, order="-colour")

    def test_a_record_that_may_change_is_replaced(self, catalog: Any) -> None:
        _record(catalog, _run(), _step())
        _record(catalog, _run(status="done", ended=2.0), _step(status="done"))
        found = catalog.get(Run, "0" * 12)
        assert found is not None
        assert found.status == "done"
        assert catalog.count(Run) == catalog.count(StepRun) == 1

    def test_a_model_version_never_changes(self, catalog: Any) -> None:
        version = _version()
        _record(catalog, version)
        _record(catalog, version)
        changed = msgspec.structs.replace(version, package=digest_bytes(b"another"))
        with pytest.raises(Conflict, match="income@1"):
            _record(catalog, changed)
        with pytest.raises(Conflict, match="income@1"), catalog.transaction() as transaction:
            transaction.add(version)
        assert catalog.get(ModelVersion, "income", 1) == version

    def test_the_first_of_equal_artifacts_stays(self, catalog: Any) -> None:
        _record(catalog, _artifact(created=1.0))
        _record(catalog, _artifact(created=2.0))
        assert [artifact.created for artifact in catalog.find(Artifact)] == [1.0]

    def test_a_record_may_not_refer_to_a_missing_one(self, catalog: Any) -> None:
        with pytest.raises(NotFound):
            _record(catalog, _step())
        with pytest.raises(NotFound):
            _record(catalog, Alias(name="income", alias="champion", number=7, moved=0.0))
        assert catalog.count(StepRun) == catalog.count(Alias) == 0

    def test_inside_a_transaction_the_order_of_references_is_free(self, catalog: Any) -> None:
        _record(catalog, _step(), _run())
        assert catalog.count(StepRun) == 1

    def test_a_failed_transaction_leaves_nothing(self, catalog: Any) -> None:
        def fail() -> None:
            with catalog.transaction() as transaction:
                transaction.add(_run())
                assert transaction.count(Run) == 1
                raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            fail()
        assert catalog.count(Run) == 0
        _record(catalog, _run())
        assert catalog.count(Run) == 1

    def test_a_transaction_is_not_seen_before_its_end(self, catalog: Any) -> None:
        with catalog.transaction() as transaction:
            transaction.add(_run())
            assert catalog.count(Run) == 0
        assert catalog.count(Run) == 1

    def test_artifacts_lead_to_the_step_runs_that_used_them(self, catalog: Any) -> None:
        used, returned = digest_bytes(b"used"), digest_bytes(b"returned")
        inputs = {"tables": [{"artifact": used, "from": None}], "seed": {"value": 1}}
        _record(catalog, _run(), _step(inputs=inputs, outputs=[returned], files={"plot": returned}))
        roles = [(use.artifact, use.role) for use in catalog.find(ArtifactUse, order="role")]
        assert roles == [(returned, "file:plot"), (used, "input:tables"), (returned, "output:0")]

    def test_many_threads_never_get_the_same_number(self, catalog: Any) -> None:

        def register(_: int) -> None:
            for _ in range(10):
                with catalog.transaction() as transaction:
                    newest = transaction.find(ModelVersion, order="-number", limit=1)
                    number = newest[0].number + 1 if newest else 1
                    transaction.add(_version(number=number))

        with ThreadPoolExecutor(4) as threads:
            list(threads.map(register, range(4)))
        numbers = [version.number for version in catalog.find(ModelVersion, limit=None)]
        assert numbers == list(range(1, 41))


def _record(catalog: Any, *records: Record) -> None:
    with catalog.transaction() as transaction:
        transaction.record(*records)


def _run(identifier: str = "0" * 12, **fields: Any) -> Run:
    defaults = {"id": identifier, "pipeline": "income", "status": "running", "started": 1.0}
    return msgspec.convert({**defaults, **fields}, Run)


def _step(**fields: Any) -> StepRun:
    defaults: dict[str, Any] = {"id": f"{'0' * 12}/00-load", "run": "0" * 12, "index": 0}
    defaults |= {"name": "load", "status": "running", "started": 1.0}
    return msgspec.convert({**defaults, **fields}, StepRun)


def _version(number: int = 1) -> ModelVersion:
    return ModelVersion(
        name="income",
        number=number,
        package=digest_bytes(b"package"),
        content=digest_bytes(b"content"),
        run=None,
        step_run=None,
        task="binary",
        runtime="onnx",
        size_bytes=1,
        created=1.0,
    )


def _artifact(created: float) -> Artifact:
    digest = digest_bytes(b"table")
    return Artifact(
        digest=digest, kind="table", format="ipc", blob=digest, size_bytes=5, created=created
    )
