"""`explain_prediction`: explain a logged prediction under the exact version that answered."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import closing
from typing import Any

from clewline.explain.explained_row import Explanation
from clewline.explain.explainer import Explainer, best_explainer
from clewline.explain.logged_rows import LoggedRows
from clewline.explainer_kinds import explainer_of, read_options
from clewline.project import Project


def explain_prediction(
    project: Project,
    prediction: str,
    kind: str | None = None,
    options: Mapping[str, Any] | None = None,
    *,
    fresh: bool = False,
) -> Explanation:
    """
    Explain a logged prediction under the exact version that answered it.

    Args:
        project: Holds the log, the catalog and the packages.
        prediction: Its id.
        kind: Of explanation, such as `attributions`; by default the one that suits the model.
        options: Of that kind.
        fresh: Compute it, even if it is stored.

    Raises:
        InvalidInput: There is no such option, or it does not fit the model.
        NotFound: The prediction or a package does not exist.
        IntegrityError: The logged batch or a package differs from what was recorded.
        NotSupported: There is no such kind, or it cannot explain this prediction.
        ModelFailed: The model raised on a changed row.
    """
    explainer: Explainer[Any] | None = None if kind is None else explainer_of(kind)
    with closing(LoggedRows(project)) as rows:
        row = rows.read(prediction)
        if explainer is None:
            explainer = best_explainer(row.model)
        return explainer.explain(row, read_options(explainer, options or {}))
