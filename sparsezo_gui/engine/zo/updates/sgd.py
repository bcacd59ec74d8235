"""Plain zeroth-order stochastic gradient descent."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from sparsezo_gui.engine.zo.updates import Gradient, ScalarUpdate, Schedule, schedule_setting
from sparsezo_gui.recipe.variants import setting


class SGD(ScalarUpdate):
    """Stochastic gradient descent: θ ← θ − η·g·z, averaged over the directions.

    Source: MeZO (arXiv 2305.17333) algorithm 1; on a sensitive mask arXiv 2406.02913 equation 3. A sensitive mask
    keeps about half of the curvature, so its stable rate is close to MeZO's (1e-7 … 1e-5 for billions of weights); a
    random mask of the same size needs a rate 25 to 1000 times higher.
    """

    title: ClassVar[str] = "SGD"
    paper: ClassVar[str] = "MeZO, arXiv 2305.17333"
    rule: Literal["sgd"] = "sgd"
    learning_rate: float = setting(
        1e-6, "Step size per unit of projected gradient; too high and the loss diverges.", gt=0, le=10, basic=True,
        sane=(1e-7, 1e-4),
    )  # fmt: skip
    schedule: Schedule = schedule_setting()

    def factors(self, gradient: Gradient, rate: float, state: Any) -> tuple[list[float], float, Any]:
        """See `ScalarUpdate.factors`."""
        grads = gradient.projected_grads
        return [rate * grad / len(grads) for grad in grads], rate, state
