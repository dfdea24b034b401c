"""What a batch costs: `a + b * rows` seconds, learned from the batches that were computed."""

from __future__ import annotations

FORGET = 0.98
"""Weight that each batch leaves to those before it; about the last fifty count."""

SURPRISE = 3.0
ENOUGH = 5.0
"""Batches, by weight, after which an expectation counts as one."""
LEAST_S = 1e-9
"""No row costs less."""


class BatchCost:
    """A line through (rows, seconds), fitted as batches come, by weighted least squares."""

    def __init__(self) -> None:
        self.fixed_s = 0.0  # a: what a batch costs whatever its size
        self.row_s = 0.0  # b: what each row adds
        self._weight = self._n = self._nn = self._t = self._nt = 0.0

    def observe(self, rows: int, seconds: float) -> None:
        """
        Learn from one batch.

        A batch that took many times what was expected counts as `SURPRISE` times
        that: a pause of the machine teaches nothing, and a model that did become
        slower is still learned within a few batches.
        """
        if self._weight > ENOUGH:
            seconds = min(seconds, SURPRISE * self.estimate(rows))
        self._weight = self._weight * FORGET + 1
        self._n = self._n * FORGET + rows
        self._nn = self._nn * FORGET + rows * rows
        self._t = self._t * FORGET + seconds
        self._nt = self._nt * FORGET + rows * seconds
        self._fit()

    def estimate(self, rows: int) -> float:
        """Expect a batch of `rows` to take so many seconds."""
        return self.fixed_s + self.row_s * rows

    def rows_within(self, seconds: float) -> int:
        """
        Say how many rows fit into so many seconds; at least 1.

        A model whose fixed cost alone is above gets rows that double it: smaller
        batches would save nothing.
        """
        spare_s = max(seconds - self.fixed_s, self.fixed_s)
        return max(1, int(spare_s / max(self.row_s, LEAST_S)))

    def _fit(self) -> None:
        mean_n, mean_t = self._n / self._weight, self._t / self._weight
        spread = self._nn / self._weight - mean_n * mean_n
        if spread > 1e-9 * mean_n * mean_n:
            slope = (self._nt / self._weight - mean_n * mean_t) / spread
            # Neither part can be below nothing, whatever noise says.
            self.row_s = min(max(slope, 0.0), mean_t / mean_n)
        else:
            self.row_s = mean_t / mean_n  # all of one size: the careful guess
        self.fixed_s = max(mean_t - self.row_s * mean_n, 0.0)
