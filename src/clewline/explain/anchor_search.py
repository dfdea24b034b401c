"""
Anchors: a short rule that a row fulfils, and that holds the model's answer.

The precision of a rule is the share of perturbed rows with the row's answer. A perturbed row is
one training row, with what the rule speaks of taken from another one that fulfils the rule. Of
the rules with a wanted precision, the one that most training rows fulfil is looked for.

The answers of the training rows are known, so that they order the candidates without asking the
model. A round asks it about the best of them, all in one call; whatever was asked of a rule also
tells about its extensions. A few rules that seem precise enough are then certified on fresh
samples, by a lower bound that holds at any time; the allowed error is shared among the attempts.

The samples of a rule depend on the rule and the version alone, not on the row that is explained,
and not on what was explained before. So what the model said of a rule can be remembered: it
saves the model's time, and changes no bit of any explanation.

Source:
    Ribeiro, Singh, Guestrin, Anchors: High-Precision Model-Agnostic Explanations (AAAI 2018).
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from clewline.explain.confidence_sequence import log_wealth, lower_bound
from clewline.signature.columns import Columns

CERTIFIED_ROWS = 64
"""Samples that certify a rule are drawn in blocks of so many rows."""
PARENTS, TRIED, FOLLOWED = 2, 6, 2
"""A round extends so many rules, asks about so many extensions, and asks more about the best."""
CONFIRMING = 6
"""Blocks of the search that speak for a rule before it is certified."""
MOST_PER_ATTEMPT = 3072
"""Rows that one attempt to certify a rule may take."""
ENOUGH = 0.35
"""A rule is certified if its errors seem fewer than allowed, by this share."""
RESERVE = 512
"""Rows of the budget that are kept for the bound of a best effort."""
MIN_BUDGET = 2 * RESERVE
FEW = 10.0
"""How many training rows a condition's own effect counts as."""
PRIOR = 20.0
"""How many samples of a rule what was known before counts as."""
STEP = 0.2
"""The least progress of an extension: it divides the share of other answers by e^STEP."""
LENGTH = 0.1
"""How much log coverage one condition less is worth."""
LENIENCE = 0.15
"""A rule is certified unless another one promises so much more log coverage."""

Purpose = Literal["search", "certify"]
Rule = tuple[int, ...]  # places of conditions, ascending


class RuleMemory:
    """
    What the model said of the samples of the rules of a version: a bit a row.

    It is bounded: the rules that came first leave first.
    """

    def __init__(self, most: int = 100_000) -> None:
        self._most = most
        self._outcomes: dict[bytes, bytes] = {}

    def get(self, key: bytes) -> NDArray[np.bool_]:
        """Return what is known of a rule; nothing, of one that is not known."""
        known = np.frombuffer(self._outcomes.get(key, b""), dtype=np.uint8)
        return np.unpackbits(known).astype(bool)

    def put(self, key: bytes, outcomes: NDArray[np.bool_]) -> None:
        """Remember outcomes, a multiple of 8, unless as many are known already."""
        if len(outcomes) <= 8 * len(self._outcomes.get(key, b"")):
            return
        if key not in self._outcomes and len(self._outcomes) >= self._most:
            del self._outcomes[next(iter(self._outcomes))]
        self._outcomes[key] = np.packbits(outcomes).tobytes()


class Conditions(Protocol):
    """
    The conditions that one row fulfils, and the perturbed rows on which a rule is tried.

    A rule is some of the conditions. Of those that share a side, a rule has at most one.
    """

    keys: list[bytes]  # what each condition says, the same for every row that fulfils it
    sides: list[tuple[object, ...]]
    truth: NDArray[np.bool_]  # (n, K): which training row fulfils which condition
    is_of_version: bool  # whether the perturbed rows of a rule are the same for every row
    are_training_rows: bool  # whether the perturbed rows of the empty rule are training rows
    row_cost: int  # how many rows of the budget one perturbed row is
    searched_rows: int  # samples of a block of the search, a multiple of 8

    def draw(
        self, rule: Rule, fulfilling: NDArray[np.intp], random: np.random.Generator, count: int
    ) -> Any:
        """Draw perturbed rows of a rule, given the training rows that fulfil it."""
        ...

    def perturb(self, drawn: list[Any]) -> Columns:
        """Return the rows that were drawn, one draw after the other."""
        ...

    def fulfilled(self, drawn: Any) -> NDArray[np.bool_]:
        """Say which condition each row of a draw fulfils: (rows, K)."""
        ...


@dataclass(frozen=True, slots=True)
class AnchorTerms:
    """What is asked of a rule."""

    precision: float = 0.95  # in (0, 1)
    confidence: float = 0.95  # in (0, 1)
    budget: int = 20_000  # perturbed rows, at least `MIN_BUDGET`

    @property
    def aim(self) -> float:
        """The precision that is quickly certified."""
        return (1 + self.precision) / 2


@dataclass(frozen=True, slots=True)
class FoundAnchor:
    """A rule, and what is known of it."""

    status: Literal["met", "best effort", "budget spent"]
    rule: Rule
    precision: float  # estimated, on the samples that certify it
    bound: float  # lower bound of it
    is_exact: bool  # the empty rule: its precision is counted
    coverage: int  # training rows that fulfil it
    attempts: int  # rules that were to be certified
    model_rows: int  # perturbed rows that this rests on, remembered or not
    samples: int = 0  # of these, for the precision


@dataclass(slots=True, eq=False)
class _Samples:
    """What was drawn of a rule for a purpose, and what the model said, a block each."""

    purpose: Purpose
    outcomes: list[NDArray[np.bool_]] = field(default_factory=list)
    seen: int = 0  # rows
    held: int = 0  # of these
    random: np.random.Generator | None = None
    drawn: list[Any] = field(default_factory=list)  # not of blocks that are remembered

    def add(self, outcomes: NDArray[np.bool_]) -> None:
        """Add what the model said of a block."""
        self.outcomes.append(outcomes)
        self.seen += len(outcomes)
        self.held += int(np.count_nonzero(outcomes))


@dataclass(slots=True, eq=False)
class _Candidate:
    rule: Rule
    key: bytes
    bits: NDArray[np.uint64]
    count: int  # training rows that fulfil it
    guess: float  # of its precision, before the model was asked
    search: _Samples = field(default_factory=lambda: _Samples("search"))
    certify: _Samples = field(default_factory=lambda: _Samples("certify"))
    is_extended: bool = False
    fulfilling: NDArray[np.intp] | None = None  # training rows; found when they are needed
    delta: float | None = None  # of the attempt to certify it
    bound: float = 0.0

    @property
    def estimate(self) -> float:
        """The precision after all samples."""
        held, seen = self.search.held + self.certify.held, self.search.seen + self.certify.seen
        return (held + PRIOR * self.guess) / (seen + PRIOR)


class AnchorSearch:
    """
    Looks for the anchor of one row.

    Args:
        conditions: That the row fulfils.
        holds: Says of each training row whether its answer is the row's, shape (n,).
        ask: Says of perturbed rows whether their answer is the row's.
        terms: What is asked of the rule.
        seed: Of the samples; the same for all rows of a version.
        memory: What the model said of rules before.
    """

    def __init__(
        self,
        conditions: Conditions,
        holds: NDArray[np.bool_],
        ask: Callable[[Columns], NDArray[np.bool_]],
        terms: AnchorTerms,
        *,
        seed: bytes,
        memory: RuleMemory | None = None,
    ) -> None:
        self._conditions, self._ask, self._terms = conditions, ask, terms
        self._seed, self._memory = seed, RuleMemory() if memory is None else memory
        self._block = {"search": conditions.searched_rows, "certify": CERTIFIED_ROWS}
        self._rows = len(holds)
        self._holds = pack_bits(holds[:, None])[0]
        self._bits = pack_bits(conditions.truth)
        self._reserve = max(RESERVE, 2 * CERTIFIED_ROWS * conditions.row_cost)
        self._left, self._attempts, self._price = terms.budget - self._reserve, 0, 1.0
        self._spent = 0
        precision = float(holds.sum()) / self._rows
        self._everything = pack_bits(np.ones((self._rows, 1), dtype=bool))[0]
        self._root = self._candidate((), precision)
        self._known: dict[Rule, _Candidate] = {(): self._root}
        counts = count_bits(self._bits)
        alone = (count_bits(self._bits & self._holds) + FEW * precision) / (counts + FEW)
        self._shifts = _log_odds(alone) - _log_odds(precision)

    def find(self) -> FoundAnchor:
        """Look for a rule of the wanted precision that many training rows fulfil."""
        root, terms = self._root, self._terms
        if not self._conditions.are_training_rows:
            if not self._sample([(root, "search", 3)]):
                return self._best("budget spent")
            if (found := self._certify()) is not None:
                return found
        elif root.guess >= terms.precision:
            return FoundAnchor("met", (), root.guess, root.guess, True, self._rows, 0, 0)
        front, nearest, is_first = [root], math.inf, True
        while front:
            distance = min(map(self._distance, self._known.values()))
            if not is_first and distance > nearest - 0.3:
                self._price *= 1.4  # no progress: precision is dearer than it seemed
            nearest, is_first = min(nearest, distance), False
            added = self._extend(front)
            affordable = self._left // (self._conditions.searched_rows * self._conditions.row_cost)
            if added and not affordable:
                return self._best("budget spent")
            added = added[:affordable]
            self._sample([(each, "search", 1) for each in added])
            best = sorted(added, key=self._score, reverse=True)[:FOLLOWED]
            if not self._sample([(each, "search", 2) for each in best]):
                return self._best("budget spent")
            found = self._certify()
            if found is not None:
                return found
            open_ = [each for each in self._known.values() if not each.is_extended]
            front = sorted(open_, key=self._score, reverse=True)[:PARENTS]
        return self._best("best effort")

    def _distance(self, candidate: _Candidate) -> float:
        """How far the precision is from the aim: 0, or the logarithm of a ratio of errors."""
        error = max(1 - candidate.estimate, 1e-3)
        return max(0.0, math.log(error / (1 - self._terms.aim)))

    def _score(self, candidate: _Candidate) -> float:
        """The log coverage of what the rule may become, once it is precise enough."""
        coverage = math.log(max(candidate.count, 0.5) / self._rows)
        return coverage - LENGTH * len(candidate.rule) - self._price * self._distance(candidate)

    def _extend(self, front: list[_Candidate]) -> list[_Candidate]:
        """Return the extensions of some rules that promise most, without asking the model."""
        promising: dict[Rule, tuple[float, float]] = {}
        for parent in front:
            parent.is_extended = True
            guesses, counts = self._guess(parent)
            errors = np.maximum(1 - guesses, 1e-3)
            distances = np.maximum(0.0, np.log(errors / (1 - self._terms.aim)))
            scores = np.log(np.maximum(counts, 0.5) / self._rows) - self._price * distances
            # A condition that all these rows fulfil says nothing; a word always does.
            fits = counts < max(parent.count, 1)
            if not self._conditions.are_training_rows:
                fits = np.ones(len(counts), dtype=bool)
            fits[list(parent.rule)] = False
            gains = np.log(max(1 - parent.estimate, 1e-3) / errors)
            if parent.delta is None and (fits & (gains >= STEP)).any():
                fits &= gains >= STEP
            order = np.argsort(-scores, kind="stable")
            for place in order[fits[order]][: 2 * TRIED].tolist():
                rule = self._with(parent.rule, place)
                score = float(scores[place]) - LENGTH * len(rule)
                if rule not in self._known and score > promising.get(rule, (-math.inf,))[0]:
                    promising[rule] = score, float(guesses[place])
        best = sorted(promising, key=lambda rule: (-promising[rule][0], rule))[:TRIED]
        added = [self._candidate(rule, promising[rule][1]) for rule in best]
        self._known |= {each.rule: each for each in added}
        return added

    def _shorten(self, candidate: _Candidate) -> list[_Candidate]:
        """Return the rules with one condition less that are not known yet."""
        rule = candidate.rule
        shorter = [rule[:at] + rule[at + 1 :] for at in range(len(rule))]
        added = [
            self._candidate(each, candidate.guess) for each in shorter if each not in self._known
        ]
        self._known |= {each.rule: each for each in added}
        return added

    def _guess(self, parent: _Candidate) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        """Guess the precision of each extension from what is known, and count its rows."""
        fulfilling = parent.bits & self._bits
        counts = count_bits(fulfilling)
        # Where few training rows tell, a condition shifts the odds as it does by itself.
        odds = _log_odds(parent.estimate) + self._shifts
        expected = 1 / (1 + np.exp(-odds))
        held = count_bits(fulfilling & self._holds)
        guesses = (held + FEW * expected) / (counts + FEW)
        outcomes = parent.search.outcomes
        if not outcomes:
            return guesses, counts
        draws = [self._draw(parent, parent.search, at) for at in range(len(outcomes))]
        truth = np.concatenate([self._conditions.fulfilled(draw) for draw in draws])
        held = np.concatenate(outcomes)
        fulfil, hold = truth.sum(axis=0), truth[held].sum(axis=0)
        return (hold + PRIOR * guesses) / (fulfil + PRIOR), counts

    def _with(self, rule: Rule, place: int) -> Rule:
        sides = self._conditions.sides
        return tuple(sorted([at for at in rule if sides[at] != sides[place]] + [place]))

    def _candidate(self, rule: Rule, guess: float) -> _Candidate:
        bits = self._everything
        for place in rule:
            bits = bits & self._bits[place]
        # Of two conditions that say the same in another order, the rule is one.
        says = b"\0".join(sorted(self._conditions.keys[at] for at in rule))
        key = hashlib.blake2b(says, key=self._seed[:64], digest_size=16).digest()
        return _Candidate(rule, key, bits, int(count_bits(bits)), guess)

    def _draw(self, candidate: _Candidate, samples: _Samples, block: int) -> Any:
        """Draw a block of perturbed rows of a rule; the same every time."""
        if samples.random is None:
            entropy = [int.from_bytes(candidate.key), samples.purpose == "certify"]
            samples.random = np.random.default_rng(entropy)
        if candidate.fulfilling is None:
            unpacked = np.unpackbits(candidate.bits.view(np.uint8), count=self._rows)
            candidate.fulfilling = np.flatnonzero(unpacked)
        while len(samples.drawn) <= block:
            size = self._block[samples.purpose]
            draw = self._conditions.draw
            samples.drawn.append(draw(candidate.rule, candidate.fulfilling, samples.random, size))
        return samples.drawn[block]

    def _sample(self, wanted: Iterable[tuple[_Candidate, Purpose, int]]) -> bool:
        """Take more blocks of several rules, in one call of the model; False: over budget."""
        taken = [(each, getattr(each, purpose), count) for each, purpose, count in wanted]
        rows = sum(self._block[samples.purpose] * count for _, samples, count in taken)
        if rows * self._conditions.row_cost > self._left:
            return False
        self._left -= rows * self._conditions.row_cost
        self._spent += rows
        parts: list[Any] = []
        asked: list[_Samples] = []  # of each part
        for candidate, samples, count in taken:
            size, start = self._block[samples.purpose], len(samples.outcomes)
            known = self._memory.get(samples.purpose.encode() + candidate.key)
            for block in range(start, start + count):
                if (block + 1) * size <= len(known):
                    samples.add(known[block * size : (block + 1) * size])
                else:
                    parts.append(self._draw(candidate, samples, block))
                    asked.append(samples)
        if parts:
            answers, start = self._ask(self._conditions.perturb(parts)), 0
            for samples in asked:
                end = start + self._block[samples.purpose]
                samples.add(answers[start:end])
                start = end
        for candidate, samples, _ in taken:
            # Of a rule that no training row fulfils, the samples depend on the explained row.
            if self._conditions.is_of_version and candidate.count:
                outcomes = np.concatenate(samples.outcomes)
                self._memory.put(samples.purpose.encode() + candidate.key, outcomes)
        return True

    def _certify(self) -> FoundAnchor | None:
        """Try to certify the rules that seem precise enough, that of most rows first."""
        enough = self._terms.precision + (1 - self._terms.precision) * ENOUGH
        while True:
            waiting = [each for each in self._known.values() if self._is_open(each)]
            likely = [each for each in waiting if each.estimate >= enough]
            if not likely:
                return None
            best = max(likely, key=lambda each: (each.count, -len(each.rule)))
            others = [
                self._score(each)
                for each in waiting
                if not each.is_extended and each.estimate < enough
            ]
            if max(others, default=-math.inf) > self._score(best) + LENIENCE:
                return None
            if (confirmed := len(best.search.outcomes)) < CONFIRMING:
                shorter = self._shorten(best)
                more: list[tuple[_Candidate, Purpose, int]] = [
                    (each, "search", 1) for each in shorter
                ]
                more.append((best, "search", CONFIRMING - confirmed))
                if not self._sample(more):
                    return self._best("budget spent")
            elif self._attempt(best):
                return self._found("met", best)

    def _is_open(self, candidate: _Candidate) -> bool:
        is_counted = not candidate.rule and self._conditions.are_training_rows
        return candidate.delta is None and not is_counted

    def _attempt(self, candidate: _Candidate) -> bool:
        """Say whether fresh samples certify the rule; the bound that they reach is kept."""
        terms, successes, samples = self._terms, 0, 0
        self._attempts += 1
        # Of all attempts together, the shares are 1.
        share = 1 / (self._attempts * (self._attempts + 1))
        candidate.delta = (1 - terms.confidence) * share
        needed = -math.log(candidate.delta)
        while samples < MOST_PER_ATTEMPT and self._sample([(candidate, "certify", 2)]):
            for block in candidate.certify.outcomes[-2:]:
                successes, samples = successes + int(block.sum()), samples + len(block)
                if successes <= terms.precision * samples:
                    continue
                if log_wealth(successes, samples, terms.precision, terms.aim) >= needed:
                    candidate.bound = lower_bound(successes, samples, candidate.delta, terms.aim)
                    return True
            if samples >= 4 * CERTIFIED_ROWS and not _may_succeed(
                successes / samples, terms.precision, needed
            ):
                break
        if samples:
            candidate.bound = lower_bound(successes, samples, candidate.delta, terms.aim)
        return False

    def _best(self, status: Literal["best effort", "budget spent"]) -> FoundAnchor:
        """Return the rule with the highest bound; if none was tried, try the most likely one."""
        tried = [each for each in self._known.values() if each.certify.seen]
        if not tried:
            likely = max(self._known.values(), key=lambda each: (each.estimate, each.count))
            self._left += self._reserve
            if self._is_open(likely) and self._attempt(likely):
                return self._found("met", likely)
            tried = [likely]
        return self._found(status, max(tried, key=lambda each: (each.bound, each.count)))

    def _found(
        self, status: Literal["met", "best effort", "budget spent"], candidate: _Candidate
    ) -> FoundAnchor:
        samples = candidate.certify.seen
        is_exact = not candidate.rule and self._conditions.are_training_rows
        return FoundAnchor(
            status,
            candidate.rule,
            precision=candidate.certify.held / samples if samples else candidate.guess,
            bound=candidate.guess if is_exact else candidate.bound,
            is_exact=is_exact,
            coverage=candidate.count,
            attempts=self._attempts,
            model_rows=self._spent,
            samples=samples,
        )


def _log_odds(share: Any) -> Any:
    share = np.clip(share, 1e-3, 1 - 1e-3)
    return np.log(share / (1 - share))


def _may_succeed(share: float, wanted: float, needed: float) -> bool:
    """Say whether a rule with this share of successes can be certified within one attempt."""
    if share <= wanted:
        return False
    if share == 1:
        return True
    growth = share * math.log(share / wanted) + (1 - share) * math.log((1 - share) / (1 - wanted))
    return growth * MOST_PER_ATTEMPT >= needed


def pack_bits(truth: NDArray[np.bool_]) -> NDArray[np.uint64]:
    """Pack each column into words of 64 bits: (n, K) to (K, words)."""
    packed = np.packbits(truth.T, axis=1)
    padding = -packed.shape[1] % 8
    return np.ascontiguousarray(np.pad(packed, ((0, 0), (0, padding)))).view(np.uint64)


def _count_bits(bits: NDArray[np.uint64]) -> NDArray[np.int64]:
    counts: NDArray[np.int64] = _BITS_OF_BYTE[bits.view(np.uint8)].sum(axis=-1, dtype=np.int64)
    return counts


_BITS_OF_BYTE = np.array([byte.bit_count() for byte in range(256)], dtype=np.uint8)


def count_bits(bits: NDArray[np.uint64]) -> NDArray[np.int64]:
    """Count the bits that are set, over the last axis."""
    if not hasattr(np, "bitwise_count"):  # before NumPy 2
        return _count_bits(bits)
    counts: NDArray[np.int64] = np.bitwise_count(bits).sum(axis=-1, dtype=np.int64)
    return counts
