"""Steps of the same size for every value."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Literal

from sparsezo_gui.engine.zo.updates import Schedule, VectorUpdate, schedule_setting
from sparsezo_gui.recipe.variants import setting

if TYPE_CHECKING:
    from torch import Tensor


class Sign(VectorUpdate):
    """Step by the signs of the estimate: θ ← θ − η·sign(ĝ), the same size for every value.

    Source: ZO-signSGD (Liu et al., ICLR 2019), in the benchmark of arXiv 2402.11592 as ZO-SGD-Sign. With one direction
    the magnitude of the projected gradient is lost; with several the signs vote. Steps never get smaller on their own,
    so the rate should decay.
    """

    title: ClassVar[str] = "Sign"
    paper: ClassVar[str] = "ZO-SGD-Sign, arXiv 2402.11592"
    rule: Literal["sign"] = "sign"
    learning_rate: float = setting(
        1e-4, "Change of every tuned value per step.", unit="weight", gt=0, le=1, basic=True, sane=(1e-5, 1e-2)
    )
    schedule: Schedule = schedule_setting("linear")

    def step(self, gradient: Tensor, state: Any) -> tuple[Tensor, Any]:
        """See `VectorUpdate.step`."""
        return gradient.sign_(), state
