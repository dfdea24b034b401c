"""The comparison sees what it is there to see."""

from __future__ import annotations

import numpy as np
from sklearn.ensemble import RandomForestClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from support import TREES_IN_ONNX

from clewline.model.compile.candidate_forms import MODEL
from clewline.model.compile.compiler import OriginalModel
from clewline.model.compile.equivalence import EquivalenceRecord, difference, same_bits
from clewline.model.compile.synthetic_rows import synthetic_rows
from clewline.model.compile.tree_form import TreesOnRawFields
from clewline.model.families.onnx.family import OnnxFamily
from clewline.model.runtime.frames import columns_of, layout_of
from clewline.model.runtime.outputs import Outputs
from clewline.signature.columns import Columns
from clewline.signature.field import Field, Output, Signature

FIELDS = (Field(name="amount", kind="number"), Field(name="years", kind="integer"))
SIGNATURE = Signature(
    fields=FIELDS, output=Output(name="paid", task="binary", labels=("no", "yes"))
)


@TREES_IN_ONNX
def test_a_split_that_is_off_by_one_ulp_is_found(loans):
    """The made rows at the thresholds tell, where the test table does not."""
    table = loans[["amount", "years"]]
    model = make_pipeline(StandardScaler(), RandomForestClassifier(5, max_depth=4, random_state=0))
    model.fit(table, loans["paid"])
    original = OriginalModel(model, SIGNATURE, layout_of(table, SIGNATURE, "pandas"))
    rows = columns_of(table, SIGNATURE)
    (_, build), *_ = original.family.form_builders(original)
    form = next(iter(build(original, rows)))
    assert isinstance(form, TreesOnRawFields)
    made = synthetic_rows(rows, SIGNATURE, form.thresholds, {})["split thresholds"]
    wanted, _ = original.answer_rows(made)
    assert difference(wanted, answers(form, made)).reason is None
    parts = form._nodes.parts["threshold"]
    form._nodes.parts["threshold"] = [np.nextafter(part, np.inf) for part in parts]
    assert difference(original.answer(table), answers(form, rows)).reason is None
    assert difference(wanted, answers(form, made)).reason is not None


def answers(form: TreesOnRawFields, rows: Columns) -> Outputs:
    return OnnxFamily().load({MODEL: form.model()}, SIGNATURE).predict(rows)


def test_a_flip_is_a_reason_and_so_is_a_number_beyond_the_tolerance():
    shares = np.array([[0.4, 0.6], [0.5, 0.5]])
    right = Outputs(choices=np.array([1, 0]), probabilities=shares)
    assert difference(right, right).reason is None
    flipped = Outputs(choices=np.array([1, 1]), probabilities=shares)
    assert difference(right, flipped).reason == "1 of 2 labels differ"
    moved = Outputs(choices=np.array([1, 0]), probabilities=shares + 2e-6)
    assert "numbers differ" in (difference(right, moved).reason or "")
    missing = Outputs(choices=np.array([1, 0]), probabilities=shares * np.nan)
    assert difference(right, missing).reason is not None


def test_answers_of_another_shape_are_a_reason():
    right = Outputs(choices=np.array([1, 0]))
    assert difference(right, Outputs(choices=np.array([[1, 0]] * 2))).reason is not None
    wanted = Outputs(values=np.array([1.0, 2.0]))
    assert difference(wanted, Outputs(values=np.array([1.0, 2.0, 3.0]))).reason is not None


def test_answers_that_leave_something_out_or_add_something_are_a_reason():
    bare = Outputs(choices=np.array([1, 0]))
    full = Outputs(choices=np.array([1, 0]), probabilities=np.array([[0.4, 0.6], [0.5, 0.5]]))
    wider = Outputs(choices=np.array([1, 0]), probabilities=np.ones((2, 3)))
    for wanted, found in ((full, bare), (bare, full), (full, wider)):
        assert difference(wanted, found).reason is not None


def test_values_are_compared_relative_to_the_largest():
    wanted = Outputs(values=np.array([1.0, 1e6]))
    assert difference(wanted, Outputs(values=np.array([1.5, 1e6]))).reason is None
    assert difference(wanted, Outputs(values=np.array([3.0, 1e6]))).reason is not None


def test_bits_that_depend_on_the_batch_are_noticed():
    class Swayed:
        def predict(self, columns: Columns) -> Outputs:
            return Outputs(values=columns.numbers[:, 0] + 1e-16 * (len(columns) == 7))

        def close(self) -> None: ...

    rows = Columns(np.full((40, 1), 1e-3), np.empty((40, 0), dtype=object))
    assert not same_bits(Swayed().predict, rows, calls=10)


def test_an_integer_field_gets_the_integers_on_both_sides_of_a_threshold() -> None:
    output = Output(name="y", task="regression")
    signature = Signature(fields=(Field(name="a", kind="integer"),), output=output)
    rows = Columns(np.array([[7.0], [9.0]]), np.empty((2, 0), object))
    made = synthetic_rows(rows, signature, [(0, 2.5), (0, -1.0)], {})["split thresholds"]
    assert {2.0, 3.0, -1.0, 0.0} <= set(made.numbers[:, 0].tolist())


def test_the_record_says_that_an_answer_depends_on_the_rows_beside_it():
    said = {
        "verified": False,
        "form": "scikit-learn",
        "rows": 9,
        "synthetic_rows": 0,
        "reason": "r",
    }
    for more, words in (
        ({"rows_one_by_one": 9, "max_difference": 0.07}, "numbers differ by up to 0.07 between"),
        ({"rows_one_by_one": 9, "flips": 2}, "2 labels differ between a row asked alone"),
        ({"rows_one_by_one": 9, "max_difference": 1e-9}, None),
        ({}, None),
    ):
        sentence = EquivalenceRecord(**said, **more).sentence
        assert words in sentence if words else sentence == "served by scikit-learn itself: r"
