"""A crafted skops file, whose types are all trusted, calls nothing."""

from __future__ import annotations

import functools
import json
from io import BytesIO
from zipfile import ZipFile

import numpy as np
import pytest
from scipy.interpolate import BSpline
from sklearn.ensemble import StackingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score, make_scorer
from sklearn.metrics._scorer import _PassthroughScorer, _Scorer
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer
from skops.io import dumps, get_untrusted_types

from clewline.errors import IntegrityError
from clewline.model.families.sklearn.skops_audit import UNUSUAL_DICT
from clewline.model.families.sklearn.skops_types import load_skops, trusted_types, untrusted_parts

SCORER = make_scorer(accuracy_score)
PARTIAL = functools.partial(accuracy_score, [1])


def stack_that_writes() -> StackingClassifier:
    """A stack that asks an array for its answers, by the method that writes a file."""
    X = np.random.default_rng(0).normal(size=(40, 2))
    stack = StackingClassifier([("a", LogisticRegression())]).fit(X, X[:, 0] > 0)
    stack.estimators_, stack.stack_method_ = [np.array([b"written"])], ["tofile"]
    return stack


def crafted(value: object, change) -> bytes:
    """Dump a value and change the tree in the file."""
    with ZipFile(BytesIO(dumps(value))) as source:
        files = {name: source.read(name) for name in source.namelist()}
    tree = json.loads(files["schema.json"])
    change(tree)
    data = BytesIO()
    with ZipFile(data, "w") as file:
        for name, content in (files | {"schema.json": json.dumps(tree)}).items():
            file.writestr(name, content)
    return data.getvalue()


def as_key_type(tree) -> None:
    """Let the type of the key of `payload` be what stands under `call`."""
    content = tree["content"]
    content["payload"]["key_types"]["content"] = [content["call"]]


def refused(data: bytes) -> str:
    """The types alone would let it load; what is said of it instead."""
    assert set(get_untrusted_types(data=data)) <= trusted_types()
    with pytest.raises(IntegrityError) as error:
        load_skops(data)
    assert untrusted_parts(data)
    return str(error.value)


def test_a_file_that_would_write_another_when_loaded_is_refused_and_writes_nothing(tmp_path):
    target = tmp_path / "written"
    call = functools.partial(SCORER, stack_that_writes(), str(target))
    said = refused(crafted({"payload": {"0": 1}, "call": call}, as_key_type))
    assert UNUSUAL_DICT in said
    assert not target.exists()


@pytest.mark.parametrize(
    "value",
    [
        stack_that_writes(),
        _Scorer(accuracy_score, 1, {}, "set_params"),
        functools.partial(SCORER, 1),
        make_pipeline(FunctionTransformer(SCORER, kw_args={"X": "x", "y_true": 1})),
        FunctionTransformer(inverse_func=_PassthroughScorer(LogisticRegression())),
    ],
    ids=["stack_method_", "_response_method", "partial of an object", "func", "inverse_func"],
)
def test_a_method_or_callable_that_no_estimator_of_scikit_learn_writes_is_refused(value):
    refused(dumps(value))


@pytest.mark.parametrize(
    "call", [accuracy_score, PARTIAL, SCORER, map], ids=["function", "partial", "object", "type"]
)
def test_a_key_is_made_by_plain_types_alone(call):
    refused(crafted({"payload": {"0": 1}, "call": call}, as_key_type))


def test_a_function_is_called_by_no_other_node():
    def constructs(tree):
        tree |= {"__loader__": "ConstructorFromReduceNode"} | {
            "__module__": "sklearn.utils.validation",
            "__class__": "check_array",
        }

    def loses(tree):
        tree["__loader__"] = "LossNode"
        tree |= {"__module__": "sklearn.metrics._classification", "__class__": "accuracy_score"}
        tree["__reduce__"] = {"args": tree["content"]}

    refused(crafted(frozen_constructor(), constructs))
    refused(crafted(SCORER, loses))


def frozen_constructor() -> object:
    """What skops makes again by calling its type with a tuple."""
    from sklearn.linear_model._sgd_fast import Hinge

    return Hinge(1.0)


def test_attributes_that_stand_in_anything_but_a_plain_dict_are_refused():
    def pairs(tree):
        content = tree["content"]
        name = {**content["content"]["_sign"], "content": '"_response_method"'}
        pair = {"__class__": "tuple", "__module__": "builtins", "__loader__": "TupleNode"}
        pair = {**pair, "content": [name, {**name, "content": '"fit"'}]}
        tree["content"] = {**pair, "content": [pair]}

    refused(crafted(SCORER, pairs))


def test_a_spline_delegates_to_nothing_but_a_spline():
    def delegate(tree) -> None:
        content = tree["content"]
        state = [content["call"], content["array"]]
        named = {"__module__": "builtins", "__class__": "tuple", "__loader__": "TupleNode"}
        content["spline"]["content"] = named | {"content": state}

    spline = BSpline(np.arange(8.0), np.arange(4.0), 3)
    value = {"spline": spline, "call": accuracy_score, "array": np.zeros(0)}
    assert not untrusted_parts(crafted(value, lambda tree: None))
    assert "BSpline as a ObjectNode" in refused(crafted(value, delegate))


def test_an_older_protocol_is_refused():
    assert "protocol 1" in refused(
        crafted(LogisticRegression(), lambda tree: tree.update(protocol=1))
    )
