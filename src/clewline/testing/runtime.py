"""
The contract of a model runtime.

    class TestMyRuntime(RuntimeContract):
        def case(self) -> Case:
            return Case(MyRuntime(), files, signature, rows)
"""

from __future__ import annotations

from dataclasses import dataclass
from threading import Thread

import numpy as np
import pytest

from clewline.errors import IntegrityError
from clewline.model.runtime.outputs import Outputs, Predictor, Runtime, join_outputs, take_rows
from clewline.signature.columns import Columns
from clewline.signature.field import Signature


@dataclass(frozen=True, slots=True)
class Case:
    """A runtime, the files of a model of its kind, and at least 20 rows for it."""

    runtime: Runtime
    files: dict[str, bytes]
    signature: Signature
    rows: Columns


class RuntimeContract:
    """Tests that every runtime passes."""

    def case(self) -> Case:
        """Give what is to be tested."""
        raise NotImplementedError

    @pytest.fixture
    def given(self) -> Case:
        return self.case()

    @pytest.fixture
    def predictor(self, given: Case) -> Predictor:
        return given.runtime.load(given.files, given.signature)

    def test_a_classifier_gives_choices_and_a_regressor_values(
        self, given: Case, predictor: Predictor
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
        self, given: Case, predictor: Predictor, size: int
    ) -> None:
        starts = range(0, len(given.rows), size)
        batches = [take_rows(given.rows, slice(at, at + size)) for at in starts]
        whole = predictor.predict(given.rows)
        assert _bits(join_outputs([predictor.predict(batch) for batch in batches])) == _bits(whole)

    def test_it_may_be_called_from_another_thread(self, given: Case, predictor: Predictor) -> None:
        found: list[Outputs] = []
        thread = Thread(target=lambda: found.append(predictor.predict(given.rows)))
        thread.start()
        thread.join()
        assert _bits(found[0]) == _bits(predictor.predict(given.rows))

    def test_a_missing_file_is_an_integrity_error(self, given: Case) -> None:
        for name in given.files:
            files = {other: data for other, data in given.files.items() if other != name}
            with pytest.raises(IntegrityError, match=name):
                given.runtime.load(files, given.signature)

    def test_bytes_that_are_no_model_are_an_integrity_error(self, given: Case) -> None:
        for name in given.files:
            with pytest.raises(IntegrityError):
                given.runtime.load({**given.files, name: b"no model"}, given.signature)

    def test_a_closed_predictor_answers_no_more(self, given: Case, predictor: Predictor) -> None:
        predictor.close()
        with pytest.raises(RuntimeError):
            predictor.predict(given.rows)


def _bits(outputs: Outputs) -> list[bytes]:
    arrays = (outputs.choices, outputs.probabilities, outputs.values, outputs.tensor)
    return [array.tobytes() for array in arrays if array is not None]
