"""`clewline explain`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from clewline import project as projects
from clewline.cli.output import Mode, emit, print_lines, print_message
from clewline.errors import UsageError
from clewline.formatting import format_duration

if TYPE_CHECKING:
    from clewline.explain.explained_row import Explanation

SLOW_S = 3.0  # that the model took before a person is told
SLOW_ROW_S = 0.5  # for one row, after which a person is told at once


def explain(
    prediction: str | None = None,
    /,
    *,
    kind: str | None = None,
    fresh: Annotated[bool, Parameter(negative="")] = False,
    remote: str | None = None,
    row: Path | None = None,
    background: Path | None = None,
    output: str | None = None,
    timeout: float = 10.0,
    token_from: str | None = None,
    **options: str,
) -> None:
    """
    Explain a prediction: what moved the answer, holds it, or would alter it?

    Parameters
    ----------
    prediction
        Id of the prediction.
    kind
        What to show, such as anchors or attributions. Default: what suits the model best.
    fresh
        Compute it, and compare it with the stored one.
    remote
        Explain a row of this model: http://HOST:PORT/v2/models/NAME. Nothing is stored.
    row
        File with the row, a JSON object (--remote).
    background
        Table of rows like it: Parquet, CSV or JSON (--remote).
    output
        Tensor of the answer to explain (--remote).
    timeout
        Seconds that one call may take (--remote).
    token_from
        Environment variable that holds a bearer token (--remote).
    options
        Set an option of the kind, such as --budget 5000, or --to LABEL --keep age,sex.
    """
    if remote is not None:
        if prediction is not None or row is None or background is None:
            raise UsageError(
                "--remote needs --row and --background, and no prediction.",
                "Write --remote URL --row row.json --background rows.parquet.",
            )
        found_there = _ask_remote(
            remote, row, background, kind, options, output, timeout, token_from
        )
        emit(found_there, show)
        return
    given = {"--row": row, "--background": background, "--output": output}
    if prediction is None or any(value is not None for value in given.values()):
        raise UsageError(
            "An id of a prediction is needed, or --remote with --row and --background.",
            "`clewline predictions list` shows the latest predictions.",
        )
    from clewline.explain.explain_prediction import explain_prediction

    found = explain_prediction(
        projects.find(), prediction, kind, options, fresh=fresh, watch=SlowModelNote()
    )
    if found.note:
        print_message(found.note)
    emit(found.explanation, show)
    if not Mode.json and found.is_kept:
        print_lines([f"Explanation {found.explanation.id}."])


def _ask_remote(
    url: str,
    row: Path,
    background: Path,
    kind: str | None,
    options: dict[str, str],
    output: str | None,
    timeout: float,
    token_from: str | None,
) -> Explanation:
    import msgspec

    from clewline.explain.explain_remote import explain_remote, read_background

    try:
        values = msgspec.json.decode(row.read_bytes(), type=dict[str, Any])
    except (OSError, msgspec.DecodeError) as error:
        raise UsageError(f"{row} holds no row: {error}.", "Write a JSON object in it.") from error
    if token_from is not None and token_from not in os.environ:
        raise UsageError(f"The environment has no variable {token_from!r}.", "Set it.")
    if not 0 < timeout < 86_400:
        raise UsageError(f"--timeout is {timeout:g}.", "Write seconds, more than 0.")
    return explain_remote(
        url,
        values,
        read_background(background),
        kind,
        options,
        output=output,
        timeout_s=timeout,
        token=None if token_from is None else os.environ[token_from],
        watch=SlowModelNote(),
    )


class SlowModelNote:
    """Says once that a model is slow, so that a person can stop it or ask for less."""

    def __init__(self) -> None:
        self._rows, self._seconds, self._is_said = 0, 0.0, False

    def __call__(self, rows: int, seconds: float) -> None:
        self._rows += rows
        self._seconds += seconds
        if self._is_said or (self._seconds < SLOW_S and seconds < SLOW_ROW_S * rows):
            return
        self._is_said = True
        each = format_duration(self._seconds / self._rows)
        print_message(
            f"The model takes {each} a row, so this may take long. Ctrl-C stops it; a smaller "
            "--budget asks it about fewer rows."
        )


def show(found: Explanation) -> None:
    """Print an explanation in words."""
    from clewline.explain.explanation_text import explanation_lines

    print_lines(explanation_lines(found))
