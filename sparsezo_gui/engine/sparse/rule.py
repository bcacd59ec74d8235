"""Base of mask rules, and the streamed choice of the top k."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Generator
from typing import TYPE_CHECKING

from sparsezo_gui.recipe.events import Progress
from sparsezo_gui.recipe.variants import Variant, setting

if TYPE_CHECKING:
    from sparsezo_gui.engine.models.frozen import FrozenModel
    from sparsezo_gui.engine.sparse.mask import Mask


class MaskRule(Variant):
    """Base of mask rules: which coordinates of the frozen model are tuned."""

    @abstractmethod
    def find(self, model: FrozenModel, seed: int) -> Generator[Progress, None, Mask]:
        """Finds the mask of ``model``; tells its progress and returns the mask. Closing the generator cancels."""


def density_setting(default: float = 0.001) -> float:
    """The density's field, the same for every rule that has one."""
    return setting(
        default, "Part of the eligible weights that is tuned; 0.001 is 0.1 %.", unit="fraction", gt=0, le=1, basic=True,
        sane=(1e-4, 1e-1),
    )
