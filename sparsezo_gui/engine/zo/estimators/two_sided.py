"""The symmetric difference along random directions (SPSA), as MeZO uses it."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from sparsezo_gui.engine.zo.estimators import Estimate, Estimator, Probe
from sparsezo_gui.recipe.variants import setting


def epsilon_setting(default: float = 1e-3) -> Any:
    """The field of how far values are moved, the same for every estimator."""
    return setting(
        default, "How far the tuned values are moved to feel the slope.", gt=0, le=1, basic=True, sane=(1e-4, 1e-2)
    )


class TwoSided(Estimator):
    """Slope from a step forwards and a step backwards along each direction: g = [L(θ+εz) − L(θ−εz)] / 2ε.

    Source: Spall 1992; MeZO (arXiv 2305.17333) definition 1; with several directions their slopes are averaged
    (n-SPSA, the same paper's algorithm 2). On the mask: arXiv 2406.02913 equation 2. Several directions in one
    batch are what P-RGE (MobiZO, arXiv 2409.15520) runs on adapters.
    """

    title: ClassVar[str] = "Two-sided"
    paper: ClassVar[str] = "MeZO, arXiv 2305.17333"
    rule: Literal["two-sided"] = "two-sided"
    epsilon: float = epsilon_setting()
    directions: int = setting(1, "Directions per step; each costs two forward passes.", ge=1, le=64, sane=(1, 8))

    @property
    def sides(self) -> int:
        """Two per direction."""
        return 2 * self.directions

    def probes(self, batch_size: int) -> int:
        """See `Estimator.probes`."""
        return self.directions

    def measure(self, probe: Probe, state: Any) -> Estimate:
        """See `Estimator.measure`. The loss told is the mean of all sides, a second-order estimate of L(θ)."""
        import torch

        steps = self.epsilon * torch.eye(self.directions)
        measured = probe.losses(torch.cat((steps, -steps)))
        plus, minus = measured[: self.directions], measured[self.directions :]
        return Estimate(tuple(((plus - minus) / (2 * self.epsilon)).tolist()), measured.mean().item())
