"""Stochastic gradient descent with momentum."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from sparsezo_gui.engine.zo.updates import Schedule, VectorUpdate, schedule_setting
from sparsezo_gui.recipe.variants import setting

if TYPE_CHECKING:
    from torch import Tensor


class Momentum(VectorUpdate):
    """SGD with momentum, a running sum of the estimates: m ← β·m + ĝ, θ ← θ − η·m.

    Source: Polyak 1964 (heavy ball); in the benchmark of arXiv 2402.11592 as ZO-SGD-MMT. The sum is 1 / (1 − β) times
    as large as one estimate, so the rate should be smaller than with SGD by about this factor.
    """

    title: ClassVar[str] = "Momentum"
    paper: ClassVar[str] = "ZO-SGD-MMT, arXiv 2402.11592"
    state_vectors: ClassVar[int] = 1
    rule: Literal["momentum"] = "momentum"
    learning_rate: float = setting(
        1e-7, "Step size per unit of momentum; about a tenth of SGD's learning rate.",
        gt=0, le=10, basic=True, sane=(1e-8, 1e-5),
    )  # fmt: skip
    schedule: Schedule = schedule_setting()
    momentum: float = setting(0.9, "Momentum β: the part of the sum kept at each step.", ge=0, lt=1, sane=(0.5, 0.99))

    def start(self, values: Tensor) -> tuple[Tensor]:
        """The sum m (n,)."""
        return (values.new_zeros(values.shape),)

    def step(self, gradient: Tensor, state: tuple[Tensor]) -> tuple[Tensor, tuple[Tensor]]:
        """See `VectorUpdate.step`."""
        (kept,) = state
        total = gradient.add_(kept * self.momentum)
        return total, (total,)
