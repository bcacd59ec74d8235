"""Exact gradients only."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from sparsezo_gui.engine.zo.estimators import Estimate, ExactEstimator, Probe


class FirstOrder(ExactEstimator):
    """The exact gradient by back-propagation, one block at a time: learns most per step, in little more memory.

    It needs a loss with a gradient. Only what enters each block is kept for the backward pass, and each block runs
    again for its activations; see `sparsezo_gui.engine.gradient`. Zeroth-order estimates know the slope along a few
    directions only; this one along all, so that Adam's rate for each value helps. A run records each gradient, in 16
    bits.
    """

    title: ClassVar[str] = "Exact gradients (first order)"
    rule: Literal["first-order"] = "first-order"

    @property
    def forward_passes(self) -> int:
        """One forward and backward pass, unperturbed."""
        return 1

    @property
    def cost(self) -> int:
        """A forward pass, each block once more, and a backward pass, which needs no gradients of the frozen weights."""
        return 3

    def perturbations(self, batch_size: int) -> int:
        """None."""
        return 0

    def recorded(self, batch_size: int) -> int:
        """The norm of the gradient, to monitor a run."""
        return 1

    def estimate(self, probe: Probe, state: Any) -> Estimate:
        """See `Estimator.estimate`."""
        gradient, loss = probe.gradient()
        return Estimate((gradient.double().norm().item(),), loss, gradient)
