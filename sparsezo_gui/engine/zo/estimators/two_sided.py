"""Central differences along random directions (SPSA), as in MeZO."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from sparsezo_gui.engine.zo.estimators import Estimate, Estimator, Probe
from sparsezo_gui.recipe.variants import setting


def epsilon_setting(default: float = 1e-3) -> Any:
    """The setting for the perturbation size ε, the same for every estimator."""
    return setting(default, "Perturbation size ε of the finite differences.", gt=0, le=1, basic=True, sane=(1e-4, 1e-2))


class TwoSided(Estimator):
    """Central difference along random directions (SPSA): projected gradient g = [L(θ+εz) − L(θ−εz)] / 2ε.

    Source: Spall 1992; MeZO (arXiv 2305.17333) definition 1; several directions are averaged (n-SPSA, the same paper's
    algorithm 2). On the mask: arXiv 2406.02913 equation 2. P-RGE (MobiZO, arXiv 2409.15520) runs several directions in
    one batch on adapters.
    """

    title: ClassVar[str] = "Central difference (SPSA)"
    paper: ClassVar[str] = "MeZO, arXiv 2305.17333"
    rule: Literal["two-sided"] = "two-sided"
    epsilon: float = epsilon_setting()
    directions: int = setting(1, "Directions per step; each costs two forward passes.", ge=1, le=64, sane=(1, 8))

    @property
    def forward_passes(self) -> int:
        """Two per direction."""
        return 2 * self.directions

    def perturbations(self, batch_size: int) -> int:
        """See `Estimator.perturbations`."""
        return self.directions

    def estimate(self, probe: Probe, state: Any) -> Estimate:
        """See `Estimator.estimate`. The loss is the mean over all perturbations, a second-order estimate of L(θ)."""
        import torch

        steps = self.epsilon * torch.eye(self.directions)
        measured = probe.losses(torch.cat((steps, -steps)))
        plus, minus = measured[: self.directions], measured[self.directions :]
        return Estimate(tuple(((plus - minus) / (2 * self.epsilon)).tolist()), measured.mean().item())
