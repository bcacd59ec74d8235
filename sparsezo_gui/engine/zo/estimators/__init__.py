"""How the slope of the loss along random directions is measured."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sparsezo_gui.recipe.variants import Variant

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Estimate:
    """What one step measured: a slope per direction (loss per unit of θ along z) and the loss L(θ) in nats."""

    slopes: tuple[float, ...]
    loss: float


class Estimator(Variant):
    """Base of estimators. Stateless: everything it needs comes in, everything it found goes out."""

    directions: int

    @property
    @abstractmethod
    def sides(self) -> int:
        """How many perturbed copies of the values one step runs (forward passes per step)."""

    @abstractmethod
    def estimate(self, values: Tensor, directions: Tensor, losses: Callable[[Tensor], Tensor]) -> Estimate:
        """Measures slopes at ``values`` (n,) fp32 along ``directions`` (q, n).

        ``losses`` takes perturbed values (sides, n) and gives their losses (sides,) in fp64 on the same batch.
        """
