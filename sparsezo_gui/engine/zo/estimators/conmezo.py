"""Directions inside a cone around a momentum of the estimates."""

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

FIRST_MEMORY = 0.1  # at the beginning of the warm-up, and for a tenth of it


class ConMeZO(Estimator):
    """Central difference along a direction that leans towards the momentum of previous estimates.

    After ConMeZO (arXiv 2511.02757), as in the authors' code: z = √n·cos θ·m/|m| + sin θ·u with u normal, and
    m ← βm + (1−β)·g·z. Directions are as long as normal ones, so ε and the rate keep their meaning. The estimate is
    biased on purpose: its mean is (n·cos²θ·mm'/|m|² + sin²θ)·∇L, so the component along m counts about n·cos²θ times.
    β warms up as in the code: 0.1 for the first tenth, then β − (β − 0.1)/(1 + 8p)³ with p rising from 0 to 1 as the
    power 1.8. Own choices: m starts at zero, with normal directions until there is a momentum (as in the authors'
    synthetic experiments; their code for models starts with a random m); |m| is computed at every step; the length of
    the warm-up is a setting, whose default fits a run of 2,000 steps as the code's 2,000 fit its 20,000.
    """

    title: ClassVar[str] = "ConMeZO (cone around a momentum)"
    paper: ClassVar[str] = "ConMeZO, arXiv 2511.02757"
    state_vectors: ClassVar[int] = 1
    rule: Literal["conmezo"] = "conmezo"
    epsilon: float = epsilon_setting()
    angle: float = setting(
        1.35, "Half-angle of the cone in radians; at π/2 (1.57) the momentum has no effect.",
        unit="radians", ge=0, le=1.5708, sane=(1.2, 1.5),
        title="Cone angle",
    )  # fmt: skip
    memory: float = setting(
        0.99, "Decay β of the momentum; higher is slower.", ge=0, lt=1, sane=(0.9, 0.995), title="Momentum decay"
    )
    warm_up: int = setting(200, "Steps until the decay reaches that value.", unit="steps", ge=0, sane=(0, 2000))

    @property
    def forward_passes(self) -> int:
        """θ + εz and θ − εz."""
        return 2

    def start(self, values: Tensor, source: Source) -> tuple[Tensor, int]:
        """m (n,), and the number of steps in it."""
        return values.new_zeros(values.shape), 0

    def shape(self, drawn: Tensor, state: tuple[Tensor, int]) -> Tensor:
        """See `Estimator.shape`."""
        from sparsezo_gui.engine.zo.sums import total

        momentum = state[0]
        length = math.sqrt(total(momentum.double().square()))
        if not length > 0:
            return drawn
        return momentum * (math.sqrt(len(momentum)) * math.cos(self.angle) / length) + drawn * math.sin(self.angle)

    def estimate(self, probe: Probe, state: Any) -> Estimate:
        """See `Estimator.estimate`."""
        import torch

        plus, minus = probe.losses(torch.tensor([[self.epsilon], [-self.epsilon]])).tolist()
        return Estimate(((plus - minus) / (2 * self.epsilon),), (plus + minus) / 2)

    def projected_grads(
        self, directions: Tensor, recorded: Sequence[float], state: tuple[Tensor, int]
    ) -> tuple[Sequence[float], tuple[Tensor, int]]:
        """See `Estimator.projected_grads`."""
        momentum, count = state
        if not any(recorded):
            return recorded, state
        memory = self.memory_at(count + 1)
        return recorded, (momentum * memory + directions[0] * ((1 - memory) * recorded[0]), count + 1)

    def memory_at(self, step: int) -> float:
        """β at ``step`` (from 1)."""
        first = self.warm_up / 10
        if step > self.warm_up:
            return self.memory
        part: float = (max(0.0, step - first) / (self.warm_up - first)) ** 1.8
        return self.memory - (self.memory - FIRST_MEMORY) / (1 + 8 * part) ** 3
