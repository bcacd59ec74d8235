"""Back-propagation through the last blocks, zeroth order in the others."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from sparsezo_gui.engine.zo.estimators import Estimate, Estimator, Probe
from sparsezo_gui.engine.zo.estimators.two_sided import epsilon_setting
from sparsezo_gui.recipe.variants import setting


class Elastic(Estimator):
    """Exact gradients in the last decoder blocks, and a two-sided slope for the values in all others.

    After ElasticZO (arXiv 2501.04287): the last layers hold most of what back-propagation would give, and only their
    activations have to be kept. Own choice: the exact part is the mean of the gradients on both perturbed passes, so
    that it costs no further forward pass and its bias is of second order in ε. The last blocks are not perturbed.
    """

    title: ClassVar[str] = "Elastic (last blocks exactly)"
    paper: ClassVar[str] = "ElasticZO, arXiv 2501.04287"
    backwards: ClassVar[bool] = True
    exact: ClassVar[bool] = True
    rule: Literal["elastic"] = "elastic"
    epsilon: float = epsilon_setting()
    blocks: int = setting(1, "Last decoder blocks to back-propagate in.", unit="blocks", ge=1, le=1000, sane=(1, 4))
    weight: float = setting(
        1.0, "Factor on the exact part, whose best rate can differ from the other's.", gt=0, le=1000, sane=(0.1, 10)
    )

    @property
    def sides(self) -> int:
        """Two, each with its way back through the last blocks."""
        return 2

    def scalars(self, batch_size: int) -> int:
        """The slope, and the length of the exact part: where the mask lies in the last blocks alone, the slope is 0 at
        every step, and a step whose scalars are all zero is one that was skipped."""
        return 2

    @property
    def tail(self) -> int:
        """See `Estimator.tail`."""
        return self.blocks

    @property
    def passes(self) -> int:
        """Two, and two ways back through the last blocks: each block counts as one more, as of a model with four of
        them, up to what the whole way costs."""
        return 2 + min(self.blocks, 4)

    def measure(self, probe: Probe, state: Any) -> Estimate:
        """See `Estimator.measure`."""
        import torch

        (plus, up), (minus, down) = (
            probe.gradient(torch.tensor([offset]), self.blocks) for offset in (self.epsilon, -self.epsilon)
        )
        slope = (up - down) / (2 * self.epsilon)
        exact = (plus + minus) * (self.weight / 2)
        return Estimate((slope, exact.double().norm().item()), (up + down) / 2, exact)

    def slopes(self, directions: Any, scalars: Any, state: Any) -> tuple[tuple[float], Any]:
        """See `Estimator.slopes`."""
        return (scalars[0],), state
