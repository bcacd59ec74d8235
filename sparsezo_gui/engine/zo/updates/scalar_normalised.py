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
    (tests/benchmarks/quality.md). MEAZO (arXiv 2605.03869) is nearly the same: of several directions it squares the
    mean g, where v here has the mean of the squares. Most other papers use plain SGD.
    """

    title: ClassVar[str] = "Scalar-normalised"
    averages: ClassVar[bool] = True
    rule: Literal["scalar-normalised"] = "scalar-normalised"
    learning_rate: float = setting(
        5e-3, "Typical change of a tuned value per step; use about 3 times as much for a tenth of the density.",
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
        self, gradient: Gradient, rate: float, state: tuple[float, ...]
    ) -> tuple[list[float], float, tuple[float, ...]]:
        """See `ScalarUpdate.factors`. For an exact part, the mean square of its entries takes the role of g²: added to
        it or, with a rate of its own, in a running mean of its own, third in the state."""
        (mean, count, *own), grads, exact = state, gradient.projected_grads, gradient.exact
        if gradient.zero:
            return [0.0] * len(grads), 0.0, state
        squares = [sum(grad * grad for grad in grads) / len(grads) if grads else 0.0]
        if exact is not None and gradient.exact_rate is None:
            squares[0] += exact.double().square().mean().item()
        elif exact is not None:
            squares.append(exact.double().square().sum().item() / max(1, int(exact.count_nonzero())))
        before, count = [mean, *own, 0.0], count + 1
        means = [self.memory * old + (1 - self.memory) * new for old, new in zip(before, squares, strict=False)]
        sizes = [math.sqrt(each / (1 - self.memory**count)) for each in means]
        factors = [rate * grad / (sizes[0] * len(grads)) if sizes[0] > 0 else 0.0 for grad in grads]
        return factors, rate / sizes[-1] if sizes[-1] > 0 else 0.0, (means[0], count, *means[1:])
