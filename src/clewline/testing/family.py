"""
The contract of a model family.

    class TestMyFamily(FamilyContract):
        def example(self) -> FamilyExample:
            return FamilyExample("my_family", files, signature, rows, model=fitted)
"""

from __future__ import annotations

import importlib.metadata
import subprocess
import sys
from dataclasses import dataclass
from threading import Thread
from typing import Any

import numpy as np
import pytest

from clewline.errors import IntegrityError
from clewline.model.runtime.outputs import Outputs, Predictor, join_outputs, take_rows
from clewline.model_families import families, family_named, family_of
from clewline.signature.columns import Columns
from clewline.signature.field import Signature


@dataclass(frozen=True, slots=True)
class FamilyExample:
    """
    A model of a family as it is served, and at least 20 rows for it.

    `model` is a fitted object that the family detects, and `file` a file that it reads;
    None for a family that has no such.
    """

    family: str  # its name under `clewline.families`
    files: dict[str, bytes]  # of a package, without those that describe the model
    signature: Signature
    rows: Columns
    model: Any | None = None
    file: bytes | None = None


class FamilyContract:
    """Tests that every family passes."""

    def example(self) -> FamilyExample:
        """Return what is to be tested."""
        raise NotImplementedError

    @pytest.fixture
    def given(self) -> FamilyExample:
        return self.example()

    @pytest.fixture
    def predictor(self, given: FamilyExample) -> Predictor:
        found: Predictor = family_named(given.family).load(given.files, given.signature)
        return found

    def test_its_adapter_imports_no_model_library(self, given: FamilyExample) -> None:
        group = importlib.metadata.entry_points(group="clewline.families", name=given.family)
        module = next(iter(group)).module
        packages = {package for family in families() for package in family.packages}
        code = f"import sys, {module}; print(*sys.modules)"
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
        assert not packages & set(done.stdout.decode().split())

    def test_it_detects_its_model(self, given: FamilyExample) -> None:
        if given.model is not None:
            assert family_of(given.model) is family_named(given.family)
            assert "class" in family_named(given.family).describe(given.model)

    def test_it_alone_recognizes_its_file(self, given: FamilyExample) -> None:
        if given.file is not None:
            known = [family.name for family in families() if family.recognizes(given.file)]
            assert known == [given.family]
            assert family_named(given.family).read(given.file, "model") is not None

    def test_it_recognizes_no_other_bytes(self, given: FamilyExample) -> None:
        for data in (b"", b"{}", b"no model", b"\x00" * 100, b"\x80\x04K\x01."):
            assert not family_named(given.family).recognizes(data)

    def test_a_classifier_gives_choices_and_a_regressor_values(
        self, given: FamilyExample, predictor: Predictor
    ) -> None:
        found, count = predictor.predict(given.rows), len(given.rows)
        if given.signature.output.task == "regression":
            assert found.values is not None
            assert found.values.shape == (count,)
            assert found.values.dtype == np.float64
            return
        if given.signature.output.task == "tensor":
            assert found.tensor is not None
            assert found.tensor.shape == (count, *(given.signature.output.shape or ()))
            return
        labels = len(given.signature.output.labels or ())
        assert found.choices is not None
        assert found.choices.shape == (count,)
        assert found.choices.dtype == np.int64
        assert set(found.choices.tolist()) <= set(range(labels))
        if found.probabilities is not None:
            assert found.probabilities.shape == (count, labels)
            assert found.probabilities.dtype == np.float64

    @pytest.mark.parametrize("size", [1, 2, 7, 13])
    def test_a_row_gives_the_same_bits_in_every_batch(
        self, given: FamilyExample, predictor: Predictor, size: int
    ) -> None:
        starts = range(0, len(given.rows), size)
        batches = [take_rows(given.rows, slice(at, at + size)) for at in starts]
        found = join_outputs([predictor.predict(batch) for batch in batches])
        assert found.to_bytes() == predictor.predict(given.rows).to_bytes()

    def test_it_may_be_called_from_another_thread(
        self, given: FamilyExample, predictor: Predictor
    ) -> None:
        found: list[Outputs] = []
        thread = Thread(target=lambda: found.append(predictor.predict(given.rows)))
        thread.start()
        thread.join()
        assert found[0].to_bytes() == predictor.predict(given.rows).to_bytes()

    def test_a_missing_file_is_an_integrity_error(self, given: FamilyExample) -> None:
        for name in given.files:
            files = {other: data for other, data in given.files.items() if other != name}
            with pytest.raises(IntegrityError, match=name):
                family_named(given.family).load(files, given.signature)

    def test_bytes_that_are_no_model_are_an_integrity_error(self, given: FamilyExample) -> None:
        for name in given.files:
            files = {**given.files, name: b"no model"}
            with pytest.raises(IntegrityError):
                family_named(given.family).load(files, given.signature)

    def test_a_closed_predictor_raises(self, given: FamilyExample, predictor: Predictor) -> None:
        predictor.close()
        with pytest.raises(RuntimeError):
            predictor.predict(given.rows)
