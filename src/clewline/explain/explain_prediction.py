"""
Explain a logged prediction under the exact version that answered, and keep the explanation.

An explanation is a record of the catalog. Its id is a digest of the question: the prediction,
the kind, every option, and the package. So the same question has one record, whoever asks, and
two who ask at once store it once.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from typing import Any, NamedTuple

import msgspec

from clewline.errors import CheckFailed, IntegrityError, NotFound, StoreFull, StoreReadOnly
from clewline.explain.explained_row import ExplainedRow, Explanation
from clewline.explain.explainer import Explainer, best_explainer
from clewline.explain.logged_rows import LoggedRows
from clewline.explainer_kinds import explainer_of, maker_of, read_options
from clewline.formatting import format_list
from clewline.project import Project
from clewline.serve.explain_rules import ExplainRule, explain_rules
from clewline.serve.log.reader import LoggedPrediction, get_prediction
from clewline.store.digest import digest_bytes
from clewline.store.ids import id_bytes, id_text
from clewline.store.records import ExplanationRecord, Revision, digest_explanation
from clewline.store.store import Store

ID_CHARACTERS = 24


class ExplainedPrediction(NamedTuple):
    """An explanation, and whether it was computed now."""

    explanation: Explanation
    is_new: bool  # False: it was stored before
    is_kept: bool = True  # False: the catalog cannot be written
    note: str = ""  # what a person should know of how it was found or kept


class ExplanationDiffers(CheckFailed):
    """Computed again, an explanation differs from the stored one."""

    code = "explanation_differs"


def explain_prediction(
    project: Project,
    prediction: str,
    kind: str | None = None,
    options: Mapping[str, Any] | None = None,
    *,
    fresh: bool = False,
    watch: Callable[[int, float], None] | None = None,
) -> ExplainedPrediction:
    """
    Explain a logged prediction, as `PredictionExplainer.explain`.

    Args:
        project: Holds the log, the catalog and the packages.
        prediction: Its id.
        kind: Of explanation.
        options: Of that kind.
        fresh: Compute it, even if it is stored.
        watch: Called after each call of the model, with its rows and the seconds they took.
    """
    with closing(PredictionExplainer(project, watch)) as explainer:
        return explainer.explain(prediction, kind, options, fresh=fresh)


class PredictionExplainer:
    """
    Explains logged predictions, and keeps the models of the latest for the next.

    For one thread at a time.

    Args:
        project: Holds the log, the catalog and the packages.
        watch: Called after each call of a model, with its rows and the seconds they took.
    """

    def __init__(self, project: Project, watch: Callable[[int, float], None] | None = None) -> None:
        self._project, self._watch = project, watch
        self._rows = LoggedRows(project)

    def explain(
        self,
        prediction: str,
        kind: str | None = None,
        options: Mapping[str, Any] | None = None,
        *,
        fresh: bool = False,
        only_given: bool = False,
    ) -> ExplainedPrediction:
        """
        Explain a logged prediction, or return the stored answer to the same question.

        Args:
            prediction: Its id.
            kind: Of explanation; by default that of the first rule of the revision that
                answered, else the one that suits the model best.
            options: Of that kind, on top of those that the revision states for the kind.
            fresh: Compute it, even if it is stored.
            only_given: Take these options alone, such as those of one rule among several.

        Raises:
            InvalidInput: There is no such option, or it does not fit the model.
            NotFound: The prediction or a package does not exist.
            IntegrityError: The logged batch, a package or the stored explanation differs from
                what was recorded.
            NotSupported: There is no such kind, or it cannot explain this prediction.
            ModelFailed: The model raised on a changed row.
            ExplanationDiffers: Computed again, it is not the stored one.
        """
        if kind is not None:
            explainer_of(kind)  # an unknown kind is refused first
        given = dict(options or {})
        try:
            logged = get_prediction(self._project.log, prediction)
            revision = self._rows.revision_of(logged)
            rules = () if only_given else explain_rules(revision)
            explainer, chosen, row = self._choose(logged, revision, rules, kind, given)
            id_ = explanation_id(logged.id, explainer.kind, chosen, logged.package)
            stored = self._stored(id_)
            if stored is not None and not fresh:
                return ExplainedPrediction(read_explanation(stored), is_new=False)
            row = row or self._read(logged, revision)
        except (NotFound, IntegrityError) as error:
            known = None if fresh else self._nearest_stored(prediction, kind, given)
            if known is None:
                raise
            note = f"This was stored earlier; it cannot be computed again: {error.message}"
            return ExplainedPrediction(read_explanation(known), is_new=False, note=note)
        started = time.monotonic()
        found: Explanation = msgspec.structs.replace(explainer.explain(row, chosen), id=id_)
        record = _record_of(found, time.monotonic() - started)
        if stored is not None:
            return self._compare(found, record, stored)
        return self._store(found, record)

    def close(self) -> None:
        """Free the models."""
        self._rows.close()

    def _choose(
        self,
        logged: LoggedPrediction,
        revision: Revision,
        rules: Sequence[ExplainRule],
        kind: str | None,
        given: dict[str, Any],
    ) -> tuple[Explainer[Any], Any, ExplainedRow | None]:
        """Return the explainer, its options, and the row if it had to be read for that."""
        own = next((rule for rule in rules if kind in (None, rule.kind)), None)
        row = None
        explainer: Explainer[Any]
        if own is not None:
            explainer, given = explainer_of(own.kind), {**own.options, **given}
        elif kind is not None:
            explainer = explainer_of(kind)
        else:
            row = self._read(logged, revision)
            explainer = best_explainer(row.model)
        return explainer, read_options(explainer, given), row

    def _read(self, logged: LoggedPrediction, revision: Revision) -> ExplainedRow:
        row = self._rows.row_of(logged, revision)
        row.model.watch = self._watch
        return row

    def _stored(self, id_: str) -> ExplanationRecord | None:
        with Store.open(self._project.store_root, write=False) as store:
            return store.catalog.get(ExplanationRecord, id_)

    def _nearest_stored(
        self, prediction: str, kind: str | None, given: dict[str, Any]
    ) -> ExplanationRecord | None:
        """Return the newest stored explanation of a prediction that has these options."""
        for record in reversed(stored_explanations(self._project, prediction)):
            explainer = explainer_of(record.kind) if kind in (None, record.kind) else None
            if explainer is not None:
                wanted = read_options(explainer, given) if given or kind else None
                if wanted is None or _plain(wanted) == record.options:
                    return record
        return None

    def _compare(
        self, found: Explanation, record: ExplanationRecord, stored: ExplanationRecord
    ) -> ExplainedPrediction:
        """Return what was computed again, if it is what is stored."""
        if record.content == stored.content:
            if stored.is_changed:  # the row of the catalog was changed
                with (
                    Store.open(self._project.store_root) as store,
                    store.catalog.transaction() as transaction,
                ):
                    transaction.replace(record)
            return ExplainedPrediction(found, is_new=True, note="Equal to the stored one.")
        differ = [name for name in record.body if record.body[name] != stored.body.get(name)]
        makers = f"{stored.made_by} made the stored one"
        raise ExplanationDiffers(
            f"The explanation {record.id} computed again differs from the stored one in "
            f"{format_list(differ) or 'its stored bytes'}.",
            f"{makers}, {record.made_by} this one; the stored one is kept. Versions of libraries "
            "may explain it: `clewline replay` compares the prediction itself.",
        )

    def _store(self, found: Explanation, record: ExplanationRecord) -> ExplainedPrediction:
        """Store an explanation; on a disk that cannot be written it is returned with a note."""
        try:
            with (
                Store.open(self._project.store_root) as store,
                # It can be computed again, and a sync would hold up the prediction log.
                store.catalog.transaction(durability="process") as transaction,
            ):
                transaction.record(record)
                there = transaction.get(ExplanationRecord, record.id)
        except (StoreReadOnly, StoreFull) as error:
            note = f"The explanation is not kept: {error.message}"
            return ExplainedPrediction(found, is_new=True, is_kept=False, note=note)
        assert there is not None, "it was recorded"
        if there.content != record.content:  # somebody else was quicker
            return self._compare(found, record, there)
        return ExplainedPrediction(found, is_new=True)


def explanation_id(prediction: str, kind: str, options: Any, package: str) -> str:
    """Return the id of the explanation that answers a question."""
    question = [prediction, kind, _plain(options), package]
    data = msgspec.json.encode(question, order="sorted")
    return digest_bytes(b"clewline explanation 1\n" + data)[:ID_CHARACTERS]


def stored_explanations(project: Project, prediction: str) -> list[ExplanationRecord]:
    """
    List the stored explanations of a prediction, the oldest first.

    Raises:
        NotFound: The text is no prediction id.
    """
    with Store.open(project.store_root, write=False) as store:
        return store.catalog.find(
            ExplanationRecord,
            prediction=id_text(id_bytes(prediction)),
            order="created",
            limit=None,
        )


def read_explanation(record: ExplanationRecord) -> Explanation:
    """
    Return the explanation of a record.

    Raises:
        IntegrityError: It is not what was stored.
        NotSupported: The explainer of its kind is not installed.
    """
    if record.is_changed:
        raise IntegrityError(
            f"The stored explanation {record.id} was changed in the catalog.",
            "Explain the prediction with --fresh, which computes and stores it again.",
        )
    found: Explanation = msgspec.convert(record.body, explainer_of(record.kind).explanation)
    return found


def _plain(options: Any) -> Any:
    return msgspec.json.decode(msgspec.json.encode(options, order="sorted"))


def _record_of(found: Explanation, seconds: float) -> ExplanationRecord:
    body = msgspec.to_builtins(found)
    assert found.id is not None, "an explanation of a prediction has an id"
    assert found.prediction is not None, "it is of a prediction"
    return ExplanationRecord(
        id=found.id,
        prediction=found.prediction,
        kind=found.kind,
        options=found.terms,
        model=found.model,
        package=found.package or "",
        revision=found.revision or "",
        status=body.get("status", ""),
        content=digest_explanation(body),
        body=body,
        made_by=maker_of(found.kind),
        created=time.time(),
        seconds=seconds,
    )
