"""Metrics of rankings: rows of one query, ordered by the model's scores."""

from __future__ import annotations

import numpy as np

from clewline.evaluation.metrics import Floats, Integers, Measure

CUTS = (5, 10)


def ranking(relevance: Floats, scores: Floats, queries: Integers) -> Measure:
    """
    Return the measure of a ranker; each is the mean over queries.

    Rows with equal scores share their places: gains are averaged over them, and the reciprocal
    rank and the precision count all of them. A query without relevant rows counts as 0 in
    ndcg, and is left out of mrr and map.

    Args:
        relevance: How relevant each row is, 0 or more, shape (n,).
        scores: Higher is better, shape (n,).
        queries: The query of each row, from 0, shape (n,).

    Returns:
        ndcg@5, ndcg@10, ndcg, mrr and map, each in [0, 1]. A row is relevant to mrr and map if
        its relevance is above 0.

    Source:
        NDCG: Järvelin, Kekäläinen, Cumulated gain-based evaluation of IR techniques (ACM TOIS
        20, 2002); ties: McSherry, Najork, Computing information retrieval performance
        measures efficiently in the presence of tied scores (ECIR 2008). MRR: Voorhees, TREC-8
        question answering track report (1999).
    """
    total = int(queries.max()) + 1
    per_query = _gains(relevance, scores, queries, total)
    per_query |= _first_places(relevance, scores, queries, total)
    first = np.full(total, len(queries))
    np.minimum.at(first, queries, np.arange(len(queries)))  # one row of each query

    def measure(weights: Floats) -> dict[str, float]:
        drawn = weights[first]
        found = {}
        for name, values in per_query.items():
            known = np.isfinite(values)
            if weight := drawn[known].sum():
                found[name] = float((values[known] * drawn[known]).sum() / weight)
        return found

    return measure


def _gains(relevance: Floats, scores: Floats, queries: Integers, total: int) -> dict[str, Floats]:
    """Return NDCG by query, at each cut and without one."""
    order, places = _sorted(scores, queries)
    best, _ = _sorted(relevance, queries)
    # The mean relevance of the rows that share a place.
    tie = np.cumsum(_is_new(scores[order], queries[order])) - 1
    sizes = np.bincount(tie)
    mean = np.bincount(tie, relevance[order]) / sizes
    found = {}
    for cut in (*CUTS, None):
        discounts = 1 / np.log2(places + 2.0)
        if cut is not None:
            discounts[places >= cut] = 0.0
        gain = np.bincount(queries[order], mean[tie] * discounts, minlength=total)
        ideal = np.bincount(queries[best], relevance[best] * discounts, minlength=total)
        name = "ndcg" if cut is None else f"ndcg@{cut}"
        found[name] = np.divide(gain, ideal, out=np.zeros(total), where=ideal > 0)
    return found


def _first_places(
    relevance: Floats, scores: Floats, queries: Integers, total: int
) -> dict[str, Floats]:
    """Return reciprocal rank and average precision by query; NaN without relevant rows."""
    order, places = _sorted(scores, queries)
    asked, relevant = queries[order], relevance[order] > 0
    new = _is_new(scores[order], asked)
    last = np.append(np.flatnonzero(new)[1:] - 1, len(order) - 1)[np.cumsum(new) - 1]
    rank = places[last] + 1.0  # of the last row of a tie
    hits = np.cumsum(relevant)
    before = np.append(0, hits)[np.flatnonzero(np.append(True, np.diff(asked) > 0))]
    found_until = hits[last] - before[np.cumsum(np.append(0, np.diff(asked) > 0))]
    counts = np.bincount(asked, relevant, minlength=total)
    precision = np.bincount(asked, relevant * found_until / rank, minlength=total)
    reciprocal = np.zeros(total)
    np.maximum.at(reciprocal, asked[relevant], 1 / rank[relevant])
    nothing = np.full(total, np.nan)
    return {
        "mrr": np.where(counts > 0, reciprocal, nothing),
        "map": np.divide(precision, counts, out=nothing.copy(), where=counts > 0),
    }


def _sorted(values: Floats, queries: Integers) -> tuple[Integers, Integers]:
    """Sort rows by query, the highest value first; return the order and the place of each."""
    order = np.lexsort((-values, queries))
    asked = queries[order]
    first = np.flatnonzero(np.append(True, np.diff(asked) > 0))
    starts = first[np.cumsum(np.append(0, np.diff(asked) > 0))]
    return order, np.arange(len(order)) - starts


def _is_new(values: Floats, queries: Integers) -> Integers:
    """Return where a sorted row differs from the one before it in value or query."""
    changed = (np.diff(values) != 0) | (np.diff(queries) != 0)
    return np.append(True, changed)
