"""Steps whose length does not depend on the size of the projected gradients."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, ClassVar, Literal

from sparsezo_gui.engine.zo.updates import Gradient, ScalarUpdate, Schedule, schedule_setting
from sparsezo_gui.recipe.variants import setting

if TYPE_CHECKING:
    from torch import Tensor


class ScalarNormalised(ScalarUpdate):
    """SGD with the projected gradient divided by its running magnitude: θ ← θ − η·(g/√v)·z, with one v for all values.

    v is the bias-corrected running mean of g² (Adam's second moment, kept as one scalar instead of one per value, since
    a zeroth-order step measures only one scalar). The rate is then in units of θ, and a step of n values has length
    about η·√n for any projected gradients: with fewer tuned values, larger rates work best
    (tests/benchmarks/quality.md). Own choice; the papers use plain SGD.
    """

    title: ClassVar[str] = "Scalar-normalised"
    averages: ClassVar[bool] = True
    rule: Literal["scalar-normalised"] = "scalar-normalised"
    learning_rate: float = setting(
        1e-4, "Typical change of a tuned value per step; use about 3 times as much for a tenth of the density.",
        unit="weight", gt=0, le=1, basic=True, sane=(1e-5, 5e-2),
    )  # fmt: skip
    schedule: Schedule = schedule_setting()
    memory: float = setting(
        0.99,
        "Decay of the running mean square; higher is slower.",
        ge=0,
        lt=1,
        sane=(0.9, 0.999),
        title="Averaging factor",
    )

    def start(self, values: Tensor) -> tuple[float, int]:
        """Running mean of g² and the number of steps in it."""
        return 0.0, 0

    def factors(
        self, gradient: Gradient, rate: float, state: tuple[float, int]
    ) -> tuple[list[float], float, tuple[float, int]]:
        """See `ScalarUpdate.factors`. For an exact part, the mean square of its entries takes the role of g²."""
        (mean, count), grads = state, gradient.projected_grads
        if gradient.zero:
            return [0.0] * len(grads), 0.0, state
        square = sum(grad * grad for grad in grads) / len(grads) if grads else 0.0
        if gradient.exact is not None:
            square += gradient.exact.double().square().mean().item()
        mean, count = self.memory * mean + (1 - self.memory) * square, count + 1
        size = math.sqrt(mean / (1 - self.memory**count))
        if not size > 0:
            return [0.0] * len(grads), 0.0, (mean, count)
        return [rate * grad / (size * len(grads)) for grad in grads], rate / size, (mean, count)
