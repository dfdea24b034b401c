"""Every error of ours is documented and has a status."""

from __future__ import annotations

from pathlib import Path

from clewline import errors
from clewline.errors import ClewlineError, FieldProblem, InvalidInput, Overloaded
from clewline.protocols.http.error_responses import REFUSALS, STATUS, error_response

DOCS = Path(__file__).parents[3] / "docs"


def test_every_error_has_a_status_and_is_documented():
    text = (DOCS / "errors.md").read_text()
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type)]
    codes = {kind.code for kind in kinds if issubclass(kind, ClewlineError)}
    assert codes <= STATUS.keys()
    assert set(REFUSALS.values()) <= STATUS.keys()
    for code, status in STATUS.items():
        lines = [line for line in text.splitlines() if f"`{code}`" in line]
        assert any(line.startswith(f"| {status} |") for line in lines), code


def test_an_error_keeps_its_fields_and_its_time_to_come_back():
    problem = FieldProblem(0, "age", "x", "integer")
    response = error_response(InvalidInput("refused", None, (problem,)))
    assert response.status == 422
    assert b'"fields":[{"row":0,"field":"age","value":"x","expected":"integer"}]' in response.body
    assert error_response(Overloaded("full", None, 2.5)).headers == ((b"retry-after", b"3"),)
