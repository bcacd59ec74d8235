"""Differential privacy by noise on the projected gradient, the only number a zeroth-order step has to hide."""

from __future__ import annotations

import math
import os
import random
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from sparsezo_gui.engine.privacy import Privacy
from sparsezo_gui.recipe.variants import setting

if TYPE_CHECKING:
    from sparsezo_gui.engine.data.encode import Encoded
    from sparsezo_gui.engine.selection import Chosen
    from sparsezo_gui.engine.session import Session
    from sparsezo_gui.engine.zo.estimators import Estimate, Estimator, Probe
    from sparsezo_gui.recipe.recipe import DataTable

_DRAWS = 4  # summed up for one noise value
_system = random.SystemRandom()


class Gaussian(Privacy):
    """DP-ZO: clips each example's projected gradient and adds Gaussian noise to the sum.

    DP-ZO (arXiv 2401.04343) and DPZero (arXiv 2310.09639): sᵢ = [Lᵢ(θ+εz) − Lᵢ(θ−εz)] / 2ε of each example, clipped to
    C; g = (Σ sᵢ + N(0, σ²C²)) / B with the expected batch size B. Batches are Poisson samples and may be empty, which
    is what the accounting assumes. Own choices: with several directions the vector of an example's projected gradients
    is clipped by its norm and each direction gets its own noise, which is the same mechanism in several dimensions; an
    example without a finite loss counts as zero; the loss of a step is not recorded (noise that hides an example in a
    batch of 16 would hide the loss). `sparsezo_gui.engine.privacy` says what the guarantee covers.
    """

    title: ClassVar[str] = "Gaussian noise"
    paper: ClassVar[str] = "DP-ZO, arXiv 2401.04343; DPZero, arXiv 2310.09639"
    rule: Literal["gaussian"] = "gaussian"
    clip: float = setting(
        2.0,
        "Clipping threshold C for the projected gradient of each example.",
        gt=0,
        le=1e6,
        sane=(0.5, 50),
        title="Clipping threshold",
    )
    noise: float = setting(
        1.0, "Noise multiplier σ, relative to C; higher gives more privacy and slower training.", gt=0, le=1e4,
        sane=(0.5, 10),
        title="Noise multiplier",
    )  # fmt: skip
    delta: float = setting(
        1e-5, "Probability δ that the guarantee fails; choose it below 1 / (number of training examples).", gt=0,
        lt=1, sane=(1e-7, 1e-4),
        title="Failure probability",
    )  # fmt: skip

    def refusal(self, data: DataTable) -> str:
        """See `Privacy.refusal`: a label from one example would become a candidate answer of all others."""
        from sparsezo_gui.engine.data.tasks import tasks

        task = tasks().get(data.task)
        if task is None or task.kind != "choice" or task.answers or task.items or data.answers:
            return ""
        return (
            f"[privacy] rule = '{self.rule}' protects the training examples, but the answers to choose from would be "
            "taken from them. List the answers in [data] answers, or set [privacy] rule = 'none'."
        )

    def check(self) -> None:
        """See `Privacy.check`."""
        from sparsezo_gui.engine.privacy.accounting import check

        check()

    def choose(self, session: Session, examples: Sequence[Encoded]) -> Chosen:
        """See `Privacy.choose`."""
        import numpy as np

        from sparsezo_gui.engine.privacy.accounting import rate
        from sparsezo_gui.engine.selection import Chosen

        coins = (np.frombuffer(os.urandom(8 * len(examples)), "<u8") >> np.uint64(11)) * 2.0**-53
        return Chosen([examples[i] for i in np.flatnonzero(coins < rate(session.recipe, len(examples))).tolist()])

    def estimate(self, estimator: Estimator, probe: Probe, state: Any, batch_size: int) -> Estimate:
        """See `Privacy.estimate`."""
        import torch

        from sparsezo_gui.engine.zo.estimators import Estimate
        from sparsezo_gui.engine.zo.estimators.two_sided import TwoSided

        assert isinstance(estimator, TwoSided), "see `sparsezo_gui.recipe.combine`"
        count = estimator.directions
        steps = estimator.epsilon * torch.eye(count)
        losses = probe.isolated_losses(torch.cat((steps, -steps)))
        grads = (losses[:count] - losses[count:]) / (2 * estimator.epsilon)
        grads = grads.where(grads.isfinite().all(dim=0), 0.0)  # NaN would pass through clipping
        clipped = grads * (self.clip / grads.norm(dim=0).clamp(min=self.clip))
        scale = self.noise * self.clip
        noised = (total + scale * secret_normal() for total in clipped.sum(dim=1).tolist())
        return Estimate(tuple(value / batch_size for value in noised), float("nan"))


def secret_normal() -> float:
    """A normal value from the operating system's randomness; the sum of several, so that floating-point artefacts in
    the last bits of a draw do not show (own choice)."""
    return sum(_system.gauss(0.0, 1.0) for _ in range(_DRAWS)) / math.sqrt(_DRAWS)
