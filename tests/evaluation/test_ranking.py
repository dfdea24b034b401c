"""Rankings, held against scikit-learn."""

import numpy as np
import polars as pl
import pytest
from sklearn.metrics import average_precision_score, ndcg_score

from clewline.errors import InvalidInput
from clewline.evaluation.evaluate import evaluate
from clewline.evaluation.ranking import ranking

from .stated_answers import StatedAnswers


def rows(seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    queries = random.integers(0, 40, 600)
    relevance = random.choice([0, 0, 0, 1, 2, 3], 600).astype(float)
    scores = np.round(relevance + random.normal(size=600) * 2, 0)  # with ties
    return relevance, scores, queries


def test_it_equals_scikit_learn_by_query() -> None:
    relevance, scores, queries = rows()
    found = ranking(relevance, scores, queries)(np.ones(600))
    parts = [np.flatnonzero(queries == query) for query in range(40)]
    for name, cut in (("ndcg@5", 5), ("ndcg@10", 10), ("ndcg", None)):
        expected = [ndcg_score([relevance[part]], [scores[part]], k=cut) for part in parts]
        assert found[name] == pytest.approx(np.mean(expected)), name
    relevant = [part for part in parts if (relevance[part] > 0).any()]
    expected = [average_precision_score(relevance[part] > 0, scores[part]) for part in relevant]
    assert found["map"] == pytest.approx(np.mean(expected))
    first = []
    for part in relevant:  # equal scores share the last of their places
        best = scores[part][relevance[part] > 0].max()
        first.append(1 / (scores[part] >= best).sum())
    assert found["mrr"] == pytest.approx(np.mean(first))


def test_a_weight_counts_a_query_as_often() -> None:
    relevance, scores, queries = rows()
    twice = np.flatnonzero(queries == 3)
    again = np.concatenate([np.arange(600), twice])
    other = np.concatenate([queries, np.full(len(twice), 40)])
    expected = ranking(relevance[again], scores[again], other)(np.ones(len(again)))
    weights = np.where(queries == 3, 2.0, 1.0)
    assert ranking(relevance, scores, queries)(weights) == pytest.approx(expected)


def test_a_query_without_relevant_rows_has_no_first_place() -> None:
    measure = ranking(np.array([0.0, 0.0, 1.0]), np.array([1.0, 2.0, 3.0]), np.array([0, 0, 1]))
    found = measure(np.ones(3))
    assert (found["ndcg"], found["mrr"], found["map"]) == (0.5, 1.0, 1.0)


def test_a_model_that_scores_is_evaluated_by_query() -> None:
    relevance, scores, queries = rows()
    table = pl.DataFrame({"x": np.arange(600.0), "query": queries, "y": relevance})
    report = evaluate(
        StatedAnswers(scores), table, target="y", group="query", task="ranking", resamples=100
    )
    assert (report.task, report.headline) == ("ranking", "ndcg@10")
    assert (
        report.metrics["ndcg@10"].value
        == ranking(relevance, scores, queries)(np.ones(600))["ndcg@10"]
    )
    assert report.metrics["mrr"].low < report.metrics["mrr"].value < report.metrics["mrr"].high
    assert report.beats_baseline
    alone = evaluate(StatedAnswers(scores), table, target="y", group="query", resamples=20)
    assert alone.task == "regression"


def test_a_ranker_is_known_by_its_class() -> None:
    class LGBMRanker(StatedAnswers):
        """Stands in for LightGBM's."""

    relevance, scores, queries = rows()
    table = pl.DataFrame({"x": np.arange(600.0), "query": queries, "y": relevance})
    report = evaluate(LGBMRanker(scores), table, target="y", group="query", resamples=10)
    assert report.task == "ranking"
    with pytest.raises(InvalidInput, match="needs group="):
        evaluate(LGBMRanker(scores), table, target="y", resamples=10)


def test_what_cannot_be_ranked_is_named() -> None:
    table = pl.DataFrame({"q": [1, 1, 2], "y": [-1.0, 0.0, 1.0]})
    with pytest.raises(InvalidInput, match="relevance -1 is negative"):
        evaluate(StatedAnswers([1.0, 2.0, 3.0]), table, target="y", group="q", task="ranking")
    labels = pl.DataFrame({"q": [1, 1, 2], "y": [0, 1, 0]})
    with pytest.raises(InvalidInput, match="answers with labels"):
        evaluate(StatedAnswers([0, 1, 0], [0, 1]), labels, target="y", group="q", task="ranking")
