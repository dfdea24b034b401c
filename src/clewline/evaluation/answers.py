"""What a model answered to the test rows, and what was true of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from clewline.errors import InvalidInput
from clewline.evaluation import metrics
from clewline.evaluation.baseline import Objective
from clewline.evaluation.bootstrap import Bootstrap, RowCells, cells_of, plan_bootstrap
from clewline.evaluation.columns import EvaluatedColumns
from clewline.evaluation.metrics import SMALLER_IS_BETTER, Floats, Integers, Interval, Measure
from clewline.evaluation.ranking import ranking
from clewline.model_families import family_of, fitted_names, fitted_names_among, refusal_errors
from clewline.signature import dataframes
from clewline.signature.infer import Label

DOMINANT_SHARE = 0.9
"""If one label holds a larger share of the rows, accuracy says little about a classifier."""

EvaluatedTask = Literal["binary", "multiclass", "regression", "ranking"]

TRUTH_BINS = 64
EXTREME_ROWS = 1000
"""How finely the rows of a regression are put into cells, and how many extremes stay alone."""

LARGEST_TARGET = 1e150
"""Largest target; errors are squared and added up."""


@dataclass(frozen=True, slots=True)
class ModelPredictions:
    """What a model or a rule answered to the test rows."""

    choices: Floats  # label indices or values, shape (n,)
    probabilities: Floats | None = None  # shape (n, labels)

    def take(self, rows: Integers) -> ModelPredictions:
        """Return the answers to some of the rows."""
        probabilities = None if self.probabilities is None else self.probabilities[rows]
        return ModelPredictions(self.choices[rows], probabilities)


@dataclass(frozen=True, slots=True)
class EvaluationTask:
    """The truth of the test rows, and the metric that answers are compared by."""

    task: EvaluatedTask
    truth: NDArray[np.generic]  # label indices or values, shape (n,)
    labels: tuple[Label, ...]  # empty for a regression or a ranking
    headline: str
    objective: Objective
    queries: Integers | None = None  # of a ranking, shape (n,)

    @property
    def rows(self) -> int:
        """Number of test rows."""
        return len(self.truth)

    def take(self, rows: Integers) -> EvaluationTask:
        """Return the task of some of the rows."""
        queries = self.queries
        if queries is not None:
            _, queries = np.unique(queries[rows], return_inverse=True)
        return EvaluationTask(
            self.task, self.truth[rows], self.labels, self.headline, self.objective, queries
        )

    def measure(self, answers: ModelPredictions) -> Measure:
        """Return the measure of answers to these rows."""
        if self.queries is not None:
            return ranking(self.truth.astype(np.float64), answers.choices, self.queries)
        if self.task == "regression":
            return metrics.regression(self.truth.astype(np.float64), answers.choices)
        truth, chosen = self.truth.astype(np.int64), answers.choices.astype(np.int64)
        if self.task == "binary":
            return metrics.binary(truth, chosen, answers.probabilities)
        return metrics.multiclass(truth, chosen, len(self.labels), answers.probabilities)

    def headline_measure(self, answers: ModelPredictions) -> Callable[[Floats], float]:
        """Return the measure of the headline metric alone, NaN where it is not defined."""
        if self.headline == "rmse":
            squares = (self.truth.astype(np.float64) - answers.choices) ** 2
            return lambda weights: float(np.sqrt((weights * squares).sum() / weights.sum()))
        if self.headline == "accuracy":
            hits = np.equal(self.truth, answers.choices).astype(np.float64)
            return lambda weights: float((weights * hits).sum() / weights.sum())
        measure = self.measure(answers)
        return lambda weights: measure(weights).get(self.headline, float("nan"))

    def compare(self, answers: ModelPredictions, rule: ModelPredictions) -> Measure:
        """
        Return the measure of a model and a rule on the same rows.

        It names the metrics "own NAME" and "rule NAME"; "gain" is how much better the model is
        in the headline metric.
        """
        ours, theirs = self.measure(answers), self.measure(rule)
        sign = -1.0 if self.headline in SMALLER_IS_BETTER else 1.0

        def measure(weights: Floats) -> dict[str, float]:
            own, plain = ours(weights), theirs(weights)
            ends = [each.get(self.headline, float("nan")) for each in (own, plain)]
            return {
                "gain": sign * (ends[0] - ends[1]),
                **{f"own {name}": value for name, value in own.items()},
                **{f"rule {name}": value for name, value in plain.items()},
            }

        return measure

    def losses(self, answers: ModelPredictions) -> Floats:
        """Return what each row costs: 1 for a wrong label, or the absolute error; shape (n,)."""
        if self.labels:
            return np.asarray(self.truth != answers.choices, dtype=np.float64)
        return np.abs(self.truth.astype(np.float64) - answers.choices)

    def cells(self, *answered: ModelPredictions) -> RowCells:
        """Put rows that are true, answered and scored alike into cells."""
        kinds = np.zeros(self.rows, dtype=np.int64)
        singles = np.zeros(0, dtype=np.int64)
        if self.labels:
            parts = [self.truth, *(each.choices for each in answered)]
            for part in parts:
                kinds = kinds * len(self.labels) + part.astype(np.int64)
            scores = answered[0].probabilities
            if len(answered) > 1 and answered[1].probabilities is not None:  # a rule's are few
                _, shares = np.unique(answered[1].probabilities[:, -1], return_inverse=True)
                kinds = kinds * (int(shares.max()) + 1) + shares
            if scores is None:
                return cells_of(kinds, np.zeros(self.rows), singles)
            own = scores[np.arange(self.rows), self.truth.astype(np.int64)]
            return cells_of(kinds, scores[:, 1] if self.task == "binary" else own, singles)
        truth = self.truth.astype(np.float64)
        for part in [truth, *(each.choices for each in answered[1:])]:
            edges = np.unique(np.quantile(part, np.linspace(0, 1, TRUTH_BINS + 1)[1:-1]))
            places = np.searchsorted(edges, part)
            kinds = kinds * (len(edges) + 1) + places
        errors = truth - answered[0].choices
        for part in (errors, truth):
            singles = np.append(singles, np.argsort(-np.abs(part - part.mean()))[:EXTREME_ROWS])
        return cells_of(kinds, errors, np.unique(singles))


class Comparison(NamedTuple):
    """A model and a rule on the same resamples."""

    own: dict[str, Interval]
    rule: dict[str, Interval]
    gain: Interval  # how much better the model is, in the headline metric


@dataclass(frozen=True, slots=True)
class EvaluatedRows:
    """Test rows with everything that a section of the report is computed from."""

    task: EvaluationTask
    answers: ModelPredictions
    rule: ModelPredictions  # of the plain rule
    columns: EvaluatedColumns  # of the test table, without the target
    bootstrap: Bootstrap

    @property
    def rows(self) -> int:
        """Number of rows."""
        return self.task.rows

    def metrics(self) -> dict[str, Interval]:
        """Return the model's metrics."""

        def build(rows: Integers | None) -> Measure:
            task, answers, _ = self._some(rows)
            return task.measure(answers)

        return self.bootstrap.intervals(build)

    def compare(self) -> Comparison:
        """Measure the model and the rule on the same resamples."""

        def build(rows: Integers | None) -> Measure:
            task, answers, rule = self._some(rows)
            return task.compare(answers, rule)

        found = self.bootstrap.intervals(build)
        sides = [
            {name.partition(" ")[2]: each for name, each in found.items() if name.startswith(side)}
            for side in ("own ", "rule ")
        ]
        return Comparison(sides[0], sides[1], found.get("gain", Interval(0.0, 0.0, 0.0)))

    def take(self, rows: Integers, *, resamples: int) -> EvaluatedRows:
        """Return some of the rows, which are drawn among themselves."""
        task, answers, rule = self.task.take(rows), self.answers.take(rows), self.rule.take(rows)
        groups = self.bootstrap.groups
        if groups is not None:
            _, groups = np.unique(groups[rows], return_inverse=True)
        bootstrap = plan_bootstrap(
            len(rows),
            seed=self.bootstrap.seed,
            resamples=resamples,
            groups=groups,
            cells=lambda: task.cells(answers),
        )
        return EvaluatedRows(task, answers, rule, {}, bootstrap)

    def halves(self) -> Integers:
        """Put each row into half 0 or 1, by chance; the rows of a group into the same one."""
        groups = self.bootstrap.groups
        units = self.rows if groups is None else int(groups.max()) + 1
        half = np.random.default_rng(self.bootstrap.seed).permutation(units) % 2
        return half if groups is None else half[groups]

    def _some(
        self, rows: Integers | None
    ) -> tuple[EvaluationTask, ModelPredictions, ModelPredictions]:
        if rows is None:
            return self.task, self.answers, self.rule
        return self.task.take(rows), self.answers.take(rows), self.rule.take(rows)


def is_ranker(model: Any) -> bool:
    """Return whether a model says that it ranks: the rankers of all libraries are named so."""
    last = model.steps[-1][1] if isinstance(getattr(model, "steps", None), list) else model
    return type(last).__name__.endswith("Ranker")


def ranking_task(task: EvaluationTask, queries: Integers | None) -> EvaluationTask:
    """
    Return the task of ordering the rows of each query.

    Raises:
        InvalidInput: There are no queries, a relevance is negative, or the model classifies.
    """
    if task.labels:
        raise InvalidInput(
            "A ranking needs scores, and this model answers with labels.",
            "Pass a regressor or a ranker.",
        )
    if queries is None:
        raise InvalidInput(
            "A ranking needs group=, the column that names the query of each row.",
            "Pass group=; each query's rows are ordered by the model's answers.",
        )
    lowest = float(task.truth.astype(np.float64).min())
    if lowest < 0:
        raise InvalidInput(f"The relevance {lowest:.4g} is negative.", "Use 0 for not relevant.")
    return EvaluationTask("ranking", task.truth, (), "ndcg@10", task.objective, queries)


def ask_model(
    model: Any, features: Any, targets: Sequence[Any], *, aside: Sequence[str] = ()
) -> tuple[EvaluationTask, ModelPredictions]:
    """
    Ask a model about the test rows.

    Args:
        model: Has `predict`; a classifier has `classes_`, and may have `predict_proba`.
        features: The test table without the target, n rows.
        targets: The target of each row, length n.
        aside: Columns that the model may not take: the time, the group, protected fields.

    Raises:
        InvalidInput: There are no rows, a target is missing, or the answers do not fit.
    """
    features = _without(model, features, aside)
    if not len(targets):
        raise InvalidInput("The test table has no rows, so nothing can be measured.")
    classes = getattr(model, "classes_", None)
    if isinstance(classes, list) and classes:
        raise InvalidInput(
            f"The model predicts {len(classes)} targets at once.", "Evaluate one model per target."
        )
    if classes is None or not len(classes):  # or a regressor that has them empty
        quantities = encode_quantities(targets, "test table")
        task = EvaluationTask("regression", quantities, (), "rmse", Objective())
        return task, ask_rows(model, features, len(targets), ())
    known = tuple(classes.tolist() if hasattr(classes, "tolist") else classes)
    unseen = sorted({t for t in targets if t is not None} - set(known), key=repr)
    if not set(targets) & set(known):
        raise InvalidInput(
            f"The model knows the labels {list(known)}, and the target holds none of them, "
            f"only {unseen[:5]}.",
            "Evaluate on the target that the model was trained on.",
        )
    labels = (*known, *unseen)
    answers = ask_rows(model, features, len(targets), labels)
    truth = encode_labels(targets, labels, "test table")
    kind: EvaluatedTask = "binary" if len(labels) == 2 else "multiclass"
    headline, objective = "accuracy", Objective(len(labels))
    counts = np.bincount(truth, minlength=len(labels)).astype(np.float64)
    present = counts > 0
    if counts.max() > DOMINANT_SHARE * counts.sum() and present.sum() > 1:
        has_scores = kind == "binary" and answers.probabilities is not None
        headline = "roc_auc" if has_scores else "balanced_accuracy"
        weights = np.divide(counts.sum(), counts, out=np.zeros_like(counts), where=present)
        objective = Objective(len(labels), weights / present.sum())
    task = EvaluationTask(kind, truth, labels, headline, objective)
    return task, answers


def ask_rows(model: Any, features: Any, rows: int, labels: tuple[Label, ...]) -> ModelPredictions:
    """
    Ask a model about a table.

    Args:
        model: As of `ask_model`.
        features: A table without the target, n rows.
        rows: n.
        labels: Those that the model knows, then others; empty for a regression.

    Raises:
        InvalidInput: The model refuses the rows, or its answers do not fit.
    """
    if not labels:
        values = ask(model.predict, model, features, rows, flat=True).astype(np.float64)
        if not (np.abs(values) <= LARGEST_TARGET).all():
            raise InvalidInput(
                f"The model answers with numbers that are not finite, or > {LARGEST_TARGET}."
            )
        return ModelPredictions(values)
    chosen = ask(model.predict, model, features, rows, flat=True).tolist()
    choices = encode_labels(chosen, labels, "model's answers").astype(np.float64)
    if not hasattr(model, "predict_proba"):
        return ModelPredictions(choices)
    found = ask(model.predict_proba, model, features, rows).astype(np.float64)
    if bad := int((~np.isfinite(found).reshape(rows, -1).all(axis=1)).sum()):
        raise InvalidInput(f"The model's probabilities of {bad} of {rows} rows are not finite.")
    # Labels of the test that the model has never seen have probability 0.
    return ModelPredictions(choices, np.pad(found, ((0, 0), (0, len(labels) - found.shape[1]))))


def _without(model: Any, features: Any, aside: Sequence[str]) -> Any:
    """Leave out columns that stand aside, if a model that knows no names takes fewer columns."""
    taken = getattr(model, "n_features_in_", None)
    table = dataframes.open_table(features)
    kept = [name for name in table.columns if name not in aside]
    if taken is None or fitted_names(model) is not None or len(table.columns) == taken:
        return features
    return table.select(kept).to_native() if len(kept) == taken else features


def ask(
    predict: Callable[[Any], Any], model: Any, features: Any, rows: int, *, flat: bool = False
) -> NDArray[np.generic]:
    """
    Ask one method of a model about all rows of a table.

    Args:
        predict: The method.
        model: Says what it takes.
        features: The table without the target.
        rows: Its rows.
        flat: Requires one answer per row, possibly as a column.

    Raises:
        InvalidInput: The model refuses rows, or the answers do not fit.
    """
    table, family = dataframes.open_table(features), family_of(model)
    # The columns that the model was fitted on; an array if those had no names.
    names = fitted_names_among(model, table.columns)
    inputs = features
    if family is not None and family.takes_texts(model) and len(table.columns) == 1:
        inputs = table[table.columns[0]].to_list()
    elif names is not None:
        for name in names:
            dataframes.require_column(table, name)
        inputs = table.select(names).to_native()
    elif hasattr(model, "n_features_in_"):
        inputs = table.to_numpy()
    try:
        answers = np.asarray(predict(inputs))
    except refusal_errors() as error:
        raise InvalidInput(
            f"The model refuses the test rows: {error}",
            "Test it on a table like the one that it was trained on. An encoder accepts levels "
            'that it has not seen if it is made with handle_unknown="ignore".',
        ) from error
    if len(answers) != rows:
        raise InvalidInput(f"The model gave {len(answers)} answers to {rows} rows.")
    if not flat:
        return answers
    if answers.size != rows:
        raise InvalidInput(
            f"The model gave answers of shape {answers.shape}: {answers.shape[1]} to each row.",
            "Evaluate one model per target.",
        )
    return answers.reshape(-1)


def encode_labels(
    values: Sequence[Any], labels: tuple[Label, ...], table: str
) -> NDArray[np.int64]:
    index = {label: place for place, label in enumerate(labels)}
    try:
        return np.array([index[value] for value in values], dtype=np.int64)
    except KeyError as error:
        raise InvalidInput(
            f"The label {error.args[0]!r} in the {table} is none of {list(labels)}.",
            "Drop rows without a target." if error.args[0] is None else None,
        ) from error


def encode_quantities(values: Sequence[Any], table: str) -> Floats:
    for value in values:
        if value is None or isinstance(value, str | bool):
            raise InvalidInput(
                f"The target {value!r} in the {table} is not a finite number.",
                "Drop rows without a target. A classifier needs the attribute `classes_`.",
            )
    numbers = np.array(values, dtype=np.float64)
    if not np.isfinite(numbers).all():
        raise InvalidInput(f"The {table} holds infinite targets.", "Drop those rows.")
    if (largest := float(np.abs(numbers).max(initial=0.0))) > LARGEST_TARGET:
        raise InvalidInput(
            f"The target {largest:.3g} in the {table} is too large to be squared.",
            "Scale the target.",
        )
    return numbers
