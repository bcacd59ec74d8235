"""What a run makes small: a loss of the examples of a batch, from what the model makes of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from sparsezo_gui.recipe.variants import Variant

if TYPE_CHECKING:
    from sparsezo_gui.engine.data.encode import Encoded
    from sparsezo_gui.engine.models.frozen import FrozenModel
    from sparsezo_gui.engine.models.tuned import Owners
    from sparsezo_gui.engine.objective import Measured


class Objective(Variant):
    """Base of objectives."""

    def measure(
        self, model: FrozenModel, examples: Sequence[Encoded], sides: int = 1, owners: Owners | None = None
    ) -> Measured:
        """Losses of ``examples`` under the ``sides`` that the model's layers hold; see `engine.objective.measure`."""
        from sparsezo_gui.engine.objective import measure

        return self.judge(measure(model, examples, sides, owners), examples)

    def judge(self, measured: Measured, examples: Sequence[Encoded]) -> Measured:
        """The objective's own losses, from the likelihoods of the answers."""
        return measured
