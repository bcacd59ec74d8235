"""Random subspaces of every weight matrix."""

from __future__ import annotations

from collections.abc import Generator
from typing import TYPE_CHECKING, ClassVar, Literal

from sparsezo_gui.engine.masks.rule import MaskRule, Search
from sparsezo_gui.recipe.events import Progress
from sparsezo_gui.recipe.variants import setting

if TYPE_CHECKING:
    from sparsezo_gui.engine.frozen import FrozenModel
    from sparsezo_gui.engine.pretrained.spec import ModelSpec
    from sparsezo_gui.engine.spaces.mask import Mask


class Subspace(MaskRule):
    """Low-rank tuning in random subspaces that change over time: W + U·S·Vᵀ, where the small core S is tuned.

    SubZero (arXiv 2410.08989): S ← S − η·g·Z with a normal Z (r × r); U and V have orthonormal columns, drawn again
    every T₀ steps. As in the authors' code, but not in their formula, U·S·Vᵀ includes √(mn)/r, so that ε and the rate
    mean the same as for all entries of W. Rank and T₀ are from their example (24 and 1000).

    Own choices: the base model stays quantised and frozen, so what was learnt in a subspace stays in its core; a run
    goes through a fixed number of subspaces and then returns to the first, which bounds memory (with steps / T₀ of them
    it never returns); only the linear weights of the blocks are tuned; the rank is limited by a weight's smaller side.
    """

    title: ClassVar[str] = "Random subspaces"
    paper: ClassVar[str] = "SubZero, arXiv 2410.08989"
    space: ClassVar[str] = "low-rank"
    rule: Literal["subspace"] = "subspace"
    rank: int = setting(24, "Rank of the subspace of each weight matrix.", ge=1, le=4096, basic=True,
                        sane=(4, 64))  # fmt: skip
    refresh: int = setting(
        1000, "Steps before switching to the next subspace; 0 stays in the first.", unit="steps", ge=0, le=10_000_000,
        sane=(100, 2000),
    )  # fmt: skip
    subspaces: int = setting(4, "Number of subspaces; the first follows the last.", ge=1, le=1000, sane=(1, 20))

    @property
    def count(self) -> int:
        """See `MaskRule.count`."""
        return self.subspaces if self.refresh else 1

    def tuned(self, spec: ModelSpec) -> int:
        """See `MaskRule.tuned`."""
        return self.count * sum(min(self.rank, *shape) ** 2 for shape in spec.linears.values())

    def bases(self, spec: ModelSpec) -> int:
        """See `MaskRule.bases`."""
        return self.count * sum(min(self.rank, *shape) * sum(shape) for shape in spec.linears.values())

    def source(self) -> str:
        """See `MaskRule.source`."""
        several = f"; there are {self.count}, of {self.refresh} steps each" if self.count > 1 else ""
        return f"Subspaces of rank {self.rank} in every weight matrix, drawn from the seed{several}."

    def cost(self) -> str:
        """See `MaskRule.cost`."""
        return "No search is needed; a subspace is drawn when its turn comes, which takes as long as a few steps."

    def find(self, model: FrozenModel, search: Search) -> Generator[Progress, None, Mask]:
        """See `MaskRule.find`."""
        from sparsezo_gui.engine.spaces.low_rank import SUBSPACES, Subspaces

        yield Progress("Drawing the subspaces")
        spec = model.spec
        found = Subspaces(spec.linears, self.rank, self.refresh, self.count, search.seed)
        return self.mask_of(model, {SUBSPACES: found.part}, self.tuned(spec))
