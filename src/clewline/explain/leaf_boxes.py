"""
The leaves of a tree ensemble as boxes over fields.

A row reaches a leaf if each of its fields lies in the leaf's box: a number in an interval, a
text among a set of codes. Each box also has, for each field, the share of training rows that
the leaf's splits on that field let through. Attributions, counterfactuals and what-if curves
are sums over these boxes.

Source:
    Boxes of leaves: Carreira-Perpiñán, Hada, Very fast, approximate counterfactual explanations
    for decision forests (AAAI 2023). Shares as in path-dependent TreeSHAP: Lundberg et al.,
    From local explanations to global understanding with explainable AI for trees (2020).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from clewline.model.compile.lowered_columns import UNSEEN
from clewline.model.compile.trees import ServedTrees
from clewline.signature.columns import Columns
from clewline.signature.field import Signature

ALL_CODES = np.uint64(2**64 - 1)

ROWS_AT_ONCE = 256
"""Rows whose boxes are intersected at once: their arrays stay in the processor's cache."""

SMALLEST_SHARE = 1e-12
"""Share of a branch that no training row took: attributions divide by shares."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LeafBoxes:
    """
    Boxes of L leaves over P players: the fields that the trees read, in the signature's order.

    A number stands in one column for each way in which it is computed before it is compared,
    G columns in all. Codes stand as bits of W words.
    """

    trees: ServedTrees
    players: tuple[str, ...]
    low: NDArray[np.float64]  # (G, L): a value is above it
    high: NDArray[np.float64]  # (G, L): a value is at most it
    null: NDArray[np.bool_]  # (G, L): whether null is in the box
    number_player: NDArray[np.int64]  # (G,)
    number_column: NDArray[np.int64]  # (G,): the matrix column to read, and whether to negate it
    number_negated: NDArray[np.bool_]  # (G,)
    number_is_raw: NDArray[np.bool_]  # (G,): whether it is compared as it is
    codes: NDArray[np.uint64]  # (W, L)
    code_player: NDArray[np.int64]  # (text fields,)
    code_word: NDArray[np.int64]  # (text fields,): its first word
    share: NDArray[np.float64]  # (P, L)
    value: NDArray[np.float64]  # (L,)
    target: NDArray[np.int64]  # (L,)

    def take(self, leaves: NDArray[np.intp]) -> LeafBoxes:
        """Return the boxes of some leaves."""
        return replace(
            self,
            low=np.take(self.low, leaves, axis=1),
            high=np.take(self.high, leaves, axis=1),
            null=np.take(self.null, leaves, axis=1),
            codes=np.take(self.codes, leaves, axis=1),
            share=np.take(self.share, leaves, axis=1),
            value=self.value[leaves],
            target=self.target[leaves],
        )

    def contains(self, columns: Columns, row: int = 0) -> NDArray[np.bool_]:
        """Return for each player and leaf whether a row's field lies in the box, (P, L)."""
        matrix, codes = self.trees.encode(columns)
        found = np.ones(self.share.shape, dtype=bool)
        for place, player in enumerate(self.number_player):
            value = matrix[row, self.number_column[place]]
            value = -value if self.number_negated[place] else value
            if np.isnan(value):
                found[player] &= self.null[place]
            else:
                found[player] &= (self.low[place] < value) & (value <= self.high[place])
        for place, player in enumerate(self.code_player):
            word, bit = divmod(int(codes[place, row]), 64)
            codes_held = self.codes[self.code_word[place] + word]
            found[player] &= (codes_held & (np.uint64(1) << np.uint64(bit))) != 0
        return found

    def holding(self, columns: Columns, free: int | None = None, row: int = 0) -> NDArray[np.intp]:
        """
        Return the leaves whose boxes hold a row, whatever the value of one player is.

        Args:
            columns: Checked rows.
            free: The player; None for none.
            row: Which of the rows.
        """
        matrix, codes = self.trees.encode(columns)
        left: NDArray[np.intp] | None = None  # those that hold so far: few after the first fields
        for place, player in enumerate(self.code_player):
            if player != free:
                word, bit = divmod(int(codes[place, row]), 64)
                mask = self.codes[self.code_word[place] + word]
                mask = mask if left is None else mask[left]
                holds = (mask & (np.uint64(1) << np.uint64(bit))) != 0
                left = np.flatnonzero(holds) if left is None else left[holds]
        for place, player in enumerate(self.number_player):
            if player != free:
                value = matrix[row, self.number_column[place]]
                value = -value if self.number_negated[place] else value
                at = slice(None) if left is None else left
                if np.isnan(value):
                    holds = self.null[place][at]
                else:
                    holds = (self.low[place][at] < value) & (value <= self.high[place][at])
                left = np.flatnonzero(holds) if left is None else left[holds]
        return np.arange(len(self.value)) if left is None else left

    def code_bits(self, place: int, leaves: NDArray[np.intp]) -> NDArray[np.bool_]:
        """Return for each leaf which codes of a text field it holds, (leaves, 64 · words)."""
        after = np.append(self.code_word, len(self.codes))[place + 1]
        words = np.ascontiguousarray(self.codes[self.code_word[place] : after][:, leaves].T)
        bits = np.unpackbits(words.astype("<u8").view(np.uint8), axis=1, bitorder="little")
        return bits.astype(bool)

    def reached(self, columns: Columns) -> NDArray[np.int64]:
        """Return the leaf of each tree that each row reaches, (n, trees)."""
        trees = self.trees
        matrix, _ = trees.encode(columns)
        count = len(trees.roots)
        found = np.empty(len(columns) * count, dtype=np.int64)
        going = np.arange(len(found))  # a place for each row and tree that has not reached a leaf
        node = np.tile(trees.roots, len(columns))
        while len(going):
            value = matrix[going // count, trees.column[node]]
            taken = (value <= trees.split[node]) | (np.isnan(value) & trees.nan_true[node])
            child = np.where(taken, trees.true[node], trees.false[node])
            ends = np.where(taken, trees.true_is_leaf[node], trees.false_is_leaf[node])
            found[going[ends]] = child[ends]
            going, node = going[~ends], child[~ends]
        return found.reshape(len(columns), count)

    def around(self, columns: Columns) -> FieldBoxes:
        """Return for each row the box in which all trees answer as they do for the row."""
        leaves = self.reached(columns)
        starts = range(0, max(1, len(leaves)), ROWS_AT_ONCE)
        parts = [leaves[at : at + ROWS_AT_ONCE] for at in starts]
        return FieldBoxes(
            low=np.concatenate([self.low[:, each].max(axis=2).T for each in parts]),
            high=np.concatenate([self.high[:, each].min(axis=2).T for each in parts]),
            null=np.concatenate([self.null[:, each].all(axis=2).T for each in parts]),
            codes=np.concatenate(
                [np.bitwise_and.reduce(self.codes[:, each], axis=2).T for each in parts]
            ),
        )

    def ends_of(
        self, player: str, low: NDArray[np.float64], high: NDArray[np.float64]
    ) -> tuple[float | None, float | None]:
        """Return the ends of a box (G,) over a number that is compared as it is; None: open."""
        mine = np.flatnonzero([self.players[at] == player for at in self.number_player])
        if len(mine) != 1 or not self.number_is_raw[mine[0]]:
            return None, None
        ends = float(low[mine[0]]), float(high[mine[0]])
        return ends[0] if np.isfinite(ends[0]) else None, ends[1] if np.isfinite(ends[1]) else None


class FieldBoxes(NamedTuple):
    """Boxes of n rows; columns as of `LeafBoxes`."""

    low: NDArray[np.float64]  # (n, G)
    high: NDArray[np.float64]  # (n, G)
    null: NDArray[np.bool_]  # (n, G)
    codes: NDArray[np.uint64]  # (n, W)

    def take(self, rows: NDArray[np.intp]) -> FieldBoxes:
        """Take the boxes of some rows."""
        return FieldBoxes(self.low[rows], self.high[rows], self.null[rows], self.codes[rows])


class _Boxes(NamedTuple):
    """Boxes of nodes, a column each; rows as of `LeafBoxes`."""

    low: NDArray[Any]
    high: NDArray[Any]
    null: NDArray[Any]
    codes: NDArray[Any]
    share: NDArray[Any]

    @classmethod
    def empty(cls, numbers: int, words: int, players: int, nodes: int) -> _Boxes:
        """Return boxes that hold nothing yet."""
        low, high = np.empty((numbers, nodes)), np.empty((numbers, nodes))
        null, codes = np.empty((numbers, nodes), bool), np.empty((words, nodes), np.uint64)
        return cls(low, high, null, codes, np.empty((players, nodes)))

    def columns(self, start: int, end: int) -> _Boxes:
        """Return a view of some boxes."""
        return _Boxes(*(array[:, start:end] for array in self))

    def copy_from(self, boxes: _Boxes, places: NDArray[np.intp]) -> None:
        """Copy the boxes at some places of others."""
        for array, source in zip(self, boxes, strict=True):
            for row, source_row in zip(array, source, strict=True):
                np.take(source_row, places, out=row, mode="clip")  # "raise" would copy twice


def build_leaf_boxes(trees: ServedTrees, signature: Signature) -> LeafBoxes:
    """
    Build the boxes of every leaf, level by level over all trees at once.

    The leaves get numbers in the order in which they are found, here and in the trees of the
    result.

    Args:
        trees: Of a compiled model.
        signature: Of the model.
    """
    matrix = _matrix_columns(trees, signature)
    words = [-(-(len(text.levels) + 2) // 64) for text in trees.codes]
    code_word = np.cumsum([0, *words])[:-1].astype(np.int64)
    splits = _Splits.of(trees, signature, matrix, code_word, sum(words))
    numbers, players = len(matrix.first), len(matrix.players)
    front = _Boxes.empty(numbers, sum(words), players, len(trees.roots))
    for array, whole in zip(front, (-np.inf, np.inf, True, ALL_CODES, 1.0), strict=True):
        array.fill(whole)
    found = _Boxes.empty(numbers, sum(words), players, len(trees.leaf_value))
    place = np.empty(len(trees.leaf_value), dtype=np.int64)  # of each leaf in `found`
    node, count = trees.roots, 0  # the nodes of a level of all trees; `front` has their boxes
    while len(node):
        nodes, sources, fronts = [], [], []
        for is_true, branch, is_leaf in (
            (True, trees.true, trees.true_is_leaf),
            (False, trees.false, trees.false_is_leaf),
        ):
            ends = is_leaf[node]
            at, on = np.flatnonzero(ends), np.flatnonzero(~ends)
            box = found.columns(count, count + len(at))
            box.copy_from(front, at)
            splits.narrow(box, node[at], is_true)
            place[branch[node[at]]] = np.arange(count, count + len(at))
            count += len(at)
            nodes.append(branch[node[on]])
            sources.append(on)
            fronts.append((node[on], is_true))
        below = _Boxes.empty(numbers, sum(words), players, sum(map(len, nodes)))
        below.copy_from(front, np.concatenate(sources))
        start = 0
        for parents, is_true in fronts:
            box = below.columns(start, start + len(parents))
            splits.narrow(box, parents, is_true)
            start += len(parents)
        node, front = np.concatenate(nodes), below
    trees = _renumbered(trees, place)
    first = matrix.first
    return LeafBoxes(
        trees=trees,
        players=matrix.players,
        low=found.low,
        high=found.high,
        null=found.null,
        number_player=matrix.player[first],
        number_column=first,
        number_negated=matrix.negated[first],
        number_is_raw=np.array([trees.ensemble.columns[place].raw for place in first], dtype=bool),
        codes=found.codes,
        code_player=np.array(
            [matrix.players.index(text.field) for text in trees.codes], dtype=np.int64
        ),
        code_word=code_word,
        share=found.share,
        value=trees.leaf_value,
        target=trees.leaf_target,
    )


def _renumbered(trees: ServedTrees, place: NDArray[np.int64]) -> ServedTrees:
    """Give each leaf another number."""
    true, false, order = trees.true.copy(), trees.false.copy(), np.argsort(place)
    true[trees.true_is_leaf] = place[true[trees.true_is_leaf]]
    false[trees.false_is_leaf] = place[false[trees.false_is_leaf]]
    value, target = trees.leaf_value[order], trees.leaf_target[order]
    return replace(trees, true=true, false=false, leaf_value=value, leaf_target=target)


class _Splits(NamedTuple):
    """What the splits of N nodes do to a box: on the true branch at 1, on the other at 0."""

    is_code: NDArray[np.bool_]  # (N,)
    group: NDArray[np.int64]  # (N,): of a number
    is_upper: NDArray[np.bool_]  # (2, N): whether the branch bounds the number from above
    bound: NDArray[np.float64]  # (N,)
    null: NDArray[np.bool_]  # (2, N)
    code_split: NDArray[np.int64]  # (N,): which of the sets
    code_sets: tuple[NDArray[np.uint64], NDArray[np.uint64]]  # (W, sets) each
    player: NDArray[np.int64]  # (N,)
    share: NDArray[np.float64]  # (2, N)

    @classmethod
    def of(
        cls,
        trees: ServedTrees,
        signature: Signature,
        matrix: _MatrixColumns,
        code_word: NDArray[np.int64],
        words: int,
    ) -> _Splits:
        """Read the splits of trees."""
        true, false, code_split = _code_masks(trees, signature, code_word, words)
        minus = matrix.negated[trees.column]
        share = np.clip(trees.true_fraction, SMALLEST_SHARE, 1 - SMALLEST_SHARE)
        return cls(
            matrix.is_code[trees.column],
            matrix.group[trees.column],
            np.stack([minus, ~minus]),
            # "-x is at most a split" is "x is above the number before minus the split".
            np.where(minus, np.nextafter(-trees.split, -np.inf), trees.split),
            np.stack([~trees.nan_true, trees.nan_true]),
            code_split,
            (np.ascontiguousarray(false.T), np.ascontiguousarray(true.T)),
            matrix.player[trees.column],
            np.stack([1 - share, share]),
        )

    def narrow(self, box: _Boxes, nodes: NDArray[np.int64], is_true: bool) -> None:
        """Narrow boxes of nodes to those of a branch of each."""
        branch, coded = int(is_true), self.is_code[nodes]
        is_upper = self.is_upper[branch][nodes]
        for bounds, chosen, nearer in (
            (box.high, ~coded & is_upper, np.minimum),
            (box.low, ~coded & ~is_upper, np.maximum),
        ):
            at = np.flatnonzero(chosen)
            cell = self.group[nodes[at]], at
            bounds[cell] = nearer(bounds[cell], self.bound[nodes[at]])
            box.null[cell] &= self.null[branch][nodes[at]]
        at = np.flatnonzero(coded)
        box.codes[:, at] &= self.code_sets[branch][:, self.code_split[nodes[at]]]
        box.share[self.player[nodes], np.arange(len(nodes))] *= self.share[branch][nodes]


class _MatrixColumns(NamedTuple):
    """What the M columns are that the trees compare."""

    players: tuple[str, ...]  # fields that the trees read, in the signature's order
    player: NDArray[np.int64]  # (M,)
    is_code: NDArray[np.bool_]  # (M,): whether it is computed from the codes of a text
    group: NDArray[np.int64]  # (M,): of a number; columns of one group differ by their sign alone
    negated: NDArray[np.bool_]  # (M,)
    first: NDArray[np.int64]  # (G,): a column of each group


def _matrix_columns(trees: ServedTrees, signature: Signature) -> _MatrixColumns:
    columns, texts = trees.ensemble.columns, {text.field for text in trees.codes}
    read = {column.field for column in columns}
    players = tuple(field.name for field in signature.fields if field.name in read)
    first: dict[int, int] = {}  # of the description's groups
    for place, column in enumerate(columns):
        if column.field not in texts:
            first.setdefault(column.group, place)
    group = {name: place for place, name in enumerate(first)}
    return _MatrixColumns(
        players,
        np.array([players.index(column.field) for column in columns], dtype=np.int64),
        np.array([column.field in texts for column in columns], dtype=bool),
        np.array([group.get(column.group, 0) for column in columns], dtype=np.int64),
        np.array([column.negated for column in columns], dtype=bool),
        np.array(list(first.values()), dtype=np.int64),
    )


def _code_masks(
    trees: ServedTrees, signature: Signature, code_word: NDArray[np.int64], words: int
) -> tuple[NDArray[np.uint64], NDArray[np.uint64], NDArray[np.int64]]:
    """
    Return for each different split on codes the sets that take its true and its false branch.

    Both are (splits, W), and hold every code of other fields; the third array has the place of
    each node's split.
    """
    place_of = {text.field: place for place, text in enumerate(trees.codes)}
    fields = np.array([place_of.get(column.field, -1) for column in trees.ensemble.columns])
    coded = np.flatnonzero(fields[trees.column] >= 0)
    bounds, bound = np.unique(trees.split[coded], return_inverse=True)
    keys = (trees.column[coded] * 2 + trees.nan_true[coded]) * len(bounds) + bound
    _, first, places = np.unique(keys, return_index=True, return_inverse=True)
    node_split = np.zeros(len(trees.column), dtype=np.int64)
    node_split[coded] = places
    one = coded[first]  # a node of each different split
    split_column, split, nan_true = trees.column[one], trees.split[one], trees.nan_true[one]
    true, false = (np.full((len(one), words), ALL_CODES) for _ in range(2))
    for place, text in enumerate(trees.codes):
        mine = np.flatnonzero(fields[split_column] == place)
        known = [c for c in range(text.unseen + 1) if c not in text.refused]
        values = _values_of_codes(trees, signature, place, known)[:, split_column[mine]]
        left = (values <= split[mine]) | (np.isnan(values) & nan_true[mine])
        count = -(-(text.unseen + 1) // 64)
        for found, holds in ((true, left), (false, ~left)):
            bits = np.zeros((len(mine), count * 64), dtype=bool)
            bits[:, known] = holds.T
            packed = np.packbits(bits, axis=1, bitorder="little").view("<u8")
            found[mine, code_word[place] : code_word[place] + count] = packed
    return true, false, node_split


def _values_of_codes(
    trees: ServedTrees, signature: Signature, place: int, codes: list[int]
) -> NDArray[np.float64]:
    """Return the matrix of rows that differ in one text field only: one for each code."""
    texts = np.full((len(codes), len(signature.textual)), None, dtype=object)
    names = [field.name for field in signature.textual]
    for other, text in enumerate(trees.codes):
        spelled = [*text.levels, None, UNSEEN]
        allowed = [c for c in range(text.unseen + 1) if c not in text.refused]
        chosen = codes if other == place else [allowed[0]] * len(codes)
        texts[:, names.index(text.field)] = [spelled[code] for code in chosen]
    numbers = np.full((len(codes), len(signature.numeric)), np.nan)
    return trees.encode(Columns(numbers, texts))[0]
