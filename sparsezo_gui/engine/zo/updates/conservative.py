"""Steps taken only if they reduce the loss."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from sparsezo_gui.engine.zo.updates import Gradient, ScalarUpdate, Schedule, schedule_setting
from sparsezo_gui.recipe.variants import setting

if TYPE_CHECKING:
    from torch import Tensor

    from sparsezo_gui.engine.zo.estimators import Probe

MOVES = (0.0, 1.0, -1.0)  # stay, step, step the other way


class Conservative(ScalarUpdate):
    """An SGD step, its opposite, or none: whichever gives the batch the lowest loss.

    Source: ZO-SGD-Cons in the benchmark of arXiv 2402.11592: L is measured at θ, θ − η·ĝ and θ + η·ĝ on the batch of
    the step, which takes three more forward passes. Own choices: they run together; θ wins a tie; the journal records
    the best move (0, 1 or −1), so that a replay needs no loss.
    """

    title: ClassVar[str] = "Conservative"
    paper: ClassVar[str] = "ZO-SGD-Cons, arXiv 2402.11592"
    forward_passes: ClassVar[int] = len(MOVES)
    recorded: ClassVar[int] = 1
    rule: Literal["conservative"] = "conservative"
    learning_rate: float = setting(
        1e-6, "Step size per unit of projected gradient; steps that would increase the loss are rejected.",
        gt=0, le=10, basic=True, sane=(1e-7, 1e-4),
    )  # fmt: skip
    schedule: Schedule = schedule_setting()

    def factors(self, gradient: Gradient, rate: float, state: Any) -> tuple[list[float], float, Any]:
        """See `ScalarUpdate.factors`."""
        grads = gradient.projected_grads
        return [rate * grad / len(grads) for grad in grads], rate, state

    def measure(self, probe: Probe, gradient: Gradient, rate: float, state: Any) -> tuple[float, ...]:
        """See `Update.measure`."""
        import torch

        step = torch.tensor(self.factors(gradient, rate, state)[0])
        losses = probe.losses(torch.stack([step * -move for move in MOVES])).tolist()
        best = min(range(len(MOVES)), key=lambda place: losses[place] if math.isfinite(losses[place]) else math.inf)
        return (MOVES[best],)

    def rejects(self, measured: Sequence[float]) -> bool:
        """See `Update.rejects`."""
        return measured[0] == 0

    def apply(self, values: Tensor, gradient: Gradient, rate: float, state: Any, measured: Sequence[float] = ()) -> Any:
        """See `Update.apply`."""
        projected_grads = [projected_grad * measured[0] for projected_grad in gradient.projected_grads]
        return super().apply(values, replace(gradient, projected_grads=projected_grads), rate, state)
