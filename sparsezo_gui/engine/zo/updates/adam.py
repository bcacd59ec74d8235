"""Adam on the estimated gradient."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from sparsezo_gui.engine.zo.updates import Schedule, VectorUpdate, schedule_setting
from sparsezo_gui.recipe.variants import setting

if TYPE_CHECKING:
    from torch import Tensor


class Adam(VectorUpdate):
    """Adam on the gradient estimates: running mean divided by the running magnitude of each value.

    Source: Kingma & Ba, arXiv 1412.6980 algorithm 1, with bias correction; in the benchmark of arXiv 2402.11592 as
    ZO-Adam. All values of a direction share one projected gradient, so their magnitudes differ little, and the gain
    over a scalar-normalised step is mostly the momentum. The rate is in units of θ.
    """

    title: ClassVar[str] = "Adam"
    paper: ClassVar[str] = "ZO-Adam, arXiv 2402.11592"
    state_vectors: ClassVar[int] = 2
    rule: Literal["adam"] = "adam"
    learning_rate: float = setting(
        2e-3, "Typical change of a tuned value per step.", unit="weight", gt=0, le=1, basic=True, sane=(1e-5, 1e-2)
    )
    schedule: Schedule = schedule_setting()
    beta1: float = setting(
        0.9, "Decay β₁ of the mean; higher is slower.", ge=0, lt=1, sane=(0.5, 0.99), title="Averaging factor β₁"
    )
    beta2: float = setting(
        0.999,
        "Decay β₂ of the mean square; higher is slower.",
        ge=0,
        lt=1,
        sane=(0.9, 0.9999),
        title="Averaging factor β₂",
    )
    eps: float = setting(
        1e-8, "Added to the denominator to avoid division by zero.", gt=0, le=1, title="Denominator offset"
    )

    def start(self, values: Tensor) -> tuple[Tensor, Tensor, int]:
        """Running mean (n,), running mean of squares (n,), and the number of steps in them."""
        return values.new_zeros(values.shape), values.new_zeros(values.shape), 0

    def step(self, gradient: Tensor, state: tuple[Tensor, Tensor, int]) -> tuple[Tensor, tuple[Tensor, Tensor, int]]:
        """See `VectorUpdate.step`."""
        mean, square, count = state
        count += 1
        square = (square * self.beta2).add_(gradient.square() * (1 - self.beta2))
        mean = (mean * self.beta1).add_(gradient * (1 - self.beta1))
        size = (square / (1 - self.beta2**count)).sqrt_().add_(self.eps)
        return (mean / (1 - self.beta1**count)).div_(size), (mean, square, count)
