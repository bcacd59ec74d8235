"""Leave-one-out differences along directions that avoid high curvature."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from sparsezo_gui.engine.zo.estimators import Estimate, Estimator, Probe
from sparsezo_gui.engine.zo.estimators.two_sided import epsilon_setting
from sparsezo_gui.recipe.variants import setting

if TYPE_CHECKING:
    from torch import Tensor

    from sparsezo_gui.engine.zo.generator import Source


class Loren(Estimator):
    """Losses at several perturbed values minus their mean, along directions that learn to avoid high curvature.

    LOREN (arXiv 2511.07971), as in the authors' code: directions w = ρ^½·H^−½·u with H = ρI + a·aᵀ and normal u, so
    w = u − κ·(aᵀu)·a with κ = 1 / (√(ρ+s)·(√(ρ+s) + √ρ)), s = |a|² (the positive root; theirs has the other sign along
    a, with the same covariance). The gradient has the other losses as baseline (RLOO), g = Σ (f_k − f̄)·w_k / ε(K−1), of
    mean ρH⁻¹·∇L. By the score of w, the gradient for a is Σ (f_k − f̄)·[a/(ρ+s) − (aᵀw_k)·w_k/ρ] / (K−1), where the
    first term cancels with the baseline; a steps against it at rate ν.

    Own choices: the paper has one a for all rows of a matrix, here each ``block`` of consecutive values has its own,
    since the mask can pick any entries; f_k − f̄ is divided by its standard deviation in the step of a (their code has a
    factor ε² instead, with which a hardly moves), so that ν does not depend on the loss; a moves once per step, after
    the values. As in theirs, a starts normal. Their momentum is left to the update.
    """

    title: ClassVar[str] = "LOREN (low-rank curvature)"
    paper: ClassVar[str] = "after LOREN, arXiv 2511.07971"
    state_vectors: ClassVar[int] = 1
    rule: Literal["loren"] = "loren"
    epsilon: float = epsilon_setting()
    losses: int = setting(
        6, "Directions per step; each costs one forward pass.", ge=2, le=64, sane=(4, 16), title="Directions"
    )
    damping: float = setting(0.1, "Damping ρ; lower avoids high curvature more strongly.", gt=0, le=1e6, sane=(0.01, 1))
    adaptation: float = setting(1e-3, "Learning rate ν of the high-curvature direction.", ge=0, le=1, sane=(1e-4, 1e-2))
    block: int = setting(1024, "Tuned values that share one high-curvature direction.", unit="values", ge=2, le=2**24,
                         sane=(256, 16384), title="Values per direction"
    )  # fmt: skip

    @property
    def forward_passes(self) -> int:
        """One per direction."""
        return self.losses

    def perturbations(self, batch_size: int) -> int:
        """See `Estimator.perturbations`."""
        return self.losses

    def start(self, values: Tensor, source: Source) -> tuple[Tensor]:
        """The vectors a of all blocks, concatenated (n,)."""
        return (source.state(),)

    def shape(self, drawn: Tensor, state: tuple[Tensor]) -> Tensor:
        """See `Estimator.shape`."""
        import torch

        return torch.stack([self.shaped(u, state[0]) for u in drawn])

    def shaped(self, u: Tensor, a: Tensor) -> Tensor:
        """ρ^½·H^−½·u for ``u`` (n,)."""
        root = (self._along(a, a) + self.damping).sqrt()
        share = self._along(a, u) / (root * (root + math.sqrt(self.damping)))
        return u - a * self._spread(share, a)

    def estimate(self, probe: Probe, state: Any) -> Estimate:
        """See `Estimator.estimate`. The loss is the mean over all perturbations, a second-order estimate of L(θ)."""
        import torch

        count, found = self.losses, probe.losses(self.epsilon * torch.eye(self.losses))
        projected_grads = (found - found.mean()) * (count / (self.epsilon * (count - 1)))
        return Estimate(tuple(projected_grads.tolist()), found.mean().item())

    def projected_grads(
        self, directions: Tensor, recorded: Sequence[float], state: tuple[Tensor]
    ) -> tuple[Sequence[float], tuple[Tensor]]:
        """See `Estimator.projected_grads`."""
        (a,), count = state, len(recorded)
        deviation = math.sqrt(math.fsum(scalar * scalar for scalar in recorded) / (count - 1))
        if not deviation > 0:
            return recorded, state
        moved = a.clone()
        for w, scalar in zip(directions, recorded, strict=True):
            factor = self.adaptation * scalar / (deviation * (count - 1) * self.damping)
            moved += w * self._spread(self._along(a, w), a) * factor
        return recorded, (moved,)

    def _along(self, a: Tensor, w: Tensor) -> Tensor:
        """aᵀw of each block, (blocks, 1), summed in the same order on every device."""
        from torch.nn.functional import pad

        size = min(self.block, a.numel())
        products = pad(a * w, (0, -a.numel() % size)).view(-1, size)
        while (size := products.shape[1]) > 1:
            products = pad(products, (0, size % 2))
            half = products.shape[1] // 2
            products = products[:, :half] + products[:, half:]
        return products

    def _spread(self, numbers: Tensor, a: Tensor) -> Tensor:
        """A number per block, repeated for each of its values, (n,)."""
        return numbers.expand(-1, min(self.block, a.numel())).reshape(-1)[: a.numel()]
