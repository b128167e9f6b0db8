"""What validation losses decide: which checkpoint is the best one, and when to stop."""

from __future__ import annotations

import math
from collections.abc import Iterable

from tunix_rt_trainer.jobs.model import EarlyStopping


class Validations:
    """Folds validation losses in the order in which they were measured.

    Args:
        stopping: when they end training; None for never.
        losses: those that were measured already.
    """

    def __init__(self, stopping: EarlyStopping | None, losses: Iterable[float] = ()) -> None:
        self._stopping = stopping
        self._lowest = math.inf
        self._reference = math.inf
        self._without_fall = 0
        for loss in losses:
            self.take(loss)

    def take(self, loss: float) -> bool:
        """Count a loss; returns whether it is the lowest so far."""
        lowest = loss < self._lowest
        if lowest:
            self._lowest = loss
        # A slow fall must add up to more than min_delta, so it is measured from the last one that counted.
        if loss < self._reference - (0.0 if self._stopping is None else self._stopping.min_delta):
            self._reference, self._without_fall = loss, 0
        else:
            self._without_fall += 1
        return lowest

    @property
    def exhausted(self) -> bool:
        """Whether training ends because the loss fell no more."""
        return self._stopping is not None and self._without_fall >= self._stopping.patience
