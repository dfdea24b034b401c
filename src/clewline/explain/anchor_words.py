"""The conditions of an anchor on a text: words that it contains."""

from __future__ import annotations

import re
import unicodedata
from functools import cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from clewline.explain.anchor_search import Rule
from clewline.signature.columns import Columns

MOST_WORDS = 256
"""Different words of a text that may become conditions."""
WORDS_PER_ROW = 2000
"""A perturbed text counts as a row of the budget for each so many words."""


@cache
def word_pattern() -> re.Pattern[str]:
    """
    Return what a word is: letters, digits and marks, with apostrophes inside; or an emoji.

    >>> word_pattern().findall("Don't! 👩🏽‍⚕️ said: شكرا, 3.5")
    ["Don't", '👩🏽\u200d⚕️', 'said', 'شكرا', '3', '5']
    """
    # The supplementary ideographs, from 0x20000 on, are letters and have no marks.
    categories = {chr(code): unicodedata.category(chr(code)) for code in range(0x20000)}

    def of(*wanted: str) -> str:
        return "".join(re.escape(char) for char, kind in categories.items() if kind in wanted)

    word = rf"[\w{of('Mn', 'Mc', 'Me')}]+"
    symbol = of("So")
    emoji = rf"[{symbol}][{symbol}{of('Sk')}\u200d\ufe0e\ufe0f\u20e3\U000e0020-\U000e007f]*"
    return re.compile(rf"{word}(?:['’]{word})*|{emoji}")


class TrainingTexts:
    """
    Training texts, ready for conditions on their words. The same for all texts of a version.

    Args:
        rows: With one text each, and nothing else.
    """

    def __init__(self, rows: Columns) -> None:
        find = word_pattern().findall
        self.words: list[list[str]] = [find(text or "") for text in rows.texts[:, 0].tolist()]
        self.containing: dict[str, list[int]] = {}  # word → texts with it, ascending
        for place, words in enumerate(self.words):
            for word in dict.fromkeys(words):
                self.containing.setdefault(word, []).append(place)


class MixedTexts(NamedTuple):
    """The explained text with words of training texts."""

    kept: NDArray[np.bool_]  # (texts, places)
    others: NDArray[np.intp]  # training texts


class WordConditions:
    """
    The words that one text contains.

    A perturbed text is the explained one. Each place whose word is not in the rule has, with
    probability 1/2, the word at the same place of a training text instead, or none if that text
    is shorter.

    Args:
        training: The training texts.
        text: The explained text; None has no words.
        holds: Says of each training text whether its answer is the text's, shape (n,).
    """

    is_of_version, are_training_rows = False, False

    def __init__(self, training: TrainingTexts, text: str | None, holds: NDArray[np.bool_]) -> None:
        self._training, self._text = training, text
        matches = list(word_pattern().finditer(text or ""))
        self.spans: dict[str, list[tuple[int, int]]] = {}  # word → where it is, in code points
        for match in matches:
            self.spans.setdefault(match[0], []).append(match.span())
        usual = float(holds.mean())
        first = {word: place for place, word in enumerate(self.spans)}
        ranked = sorted(first, key=lambda word: (-self._evidence(word, holds, usual), first[word]))
        self.words = sorted(ranked[:MOST_WORDS], key=first.__getitem__)
        self.sides: list[tuple[object, ...]] = [(word,) for word in self.words]
        self.keys = [word.encode("utf-8", "surrogatepass") for word in self.words]
        self.searched_rows = 64  # with fewer, words of much larger coverage were overlooked
        self.row_cost = max(1, -(-len(matches) // WORDS_PER_ROW))
        self.truth = np.zeros((len(training.words), len(self.words)), dtype=bool)
        for column, word in enumerate(self.words):
            self.truth[training.containing.get(word, []), column] = True
        condition = {word: place for place, word in enumerate(self.words)}
        self._condition = np.array([condition.get(m[0], -1) for m in matches], dtype=np.int64)
        self._own = np.array([m[0] for m in matches], dtype=object)
        # What stands between the words stays: gap, word, gap, …, word, gap.
        starts, ends = [m.start() for m in matches], [0, *(m.end() for m in matches)]
        self._pieces = np.empty(2 * len(matches) + 1, dtype=object)
        self._pieces[::2] = [(text or "")[a:b] for a, b in zip(ends, [*starts, None], strict=True)]

    def _evidence(self, word: str, holds: NDArray[np.bool_], usual: float) -> float:
        """How much more often texts with the word have the answer, in standard deviations."""
        texts = self._training.containing.get(word, [])
        surplus = float(holds[texts].sum()) - usual * len(texts)
        return surplus / float(np.sqrt(len(texts) * usual * (1 - usual) + 1))

    def draw(
        self, rule: Rule, fulfilling: NDArray[np.intp], random: np.random.Generator, count: int
    ) -> MixedTexts:
        """Draw training texts, and which words stay."""
        kept = random.integers(2, size=(count, len(self._own)), dtype=np.uint8).astype(bool)
        kept[:, np.isin(self._condition, rule)] = True
        return MixedTexts(kept, random.integers(len(self._training.words), size=count))

    def fulfilled(self, drawn: MixedTexts) -> NDArray[np.bool_]:
        """Say which words are kept at some place."""
        found = np.zeros((len(drawn.kept), len(self.words) + 1), dtype=bool)
        rows, places = np.nonzero(drawn.kept)
        found[rows, self._condition[places]] = True  # the last column is of no condition
        return found[:, :-1]

    def perturb(self, drawn: list[MixedTexts]) -> Columns:
        """Mix the explained text with training texts."""
        texts: list[str | None] = []
        for each in drawn:
            for kept, other in zip(each.kept, each.others.tolist(), strict=True):
                words = self._training.words[other][: len(kept)]
                self._pieces[1::2] = ""
                self._pieces[1 : 2 * len(words) : 2] = words
                self._pieces[1::2][kept] = self._own[kept]
                texts.append(None if self._text is None else "".join(self._pieces.tolist()))
        column = np.array(texts, dtype=object).reshape(-1, 1)
        return Columns(np.empty((len(texts), 0)), column)
