"""Random subspaces of every weight matrix."""

from __future__ import annotations

from collections.abc import Generator
from typing import TYPE_CHECKING, ClassVar, Literal

from sparsezo_gui.engine.sparse.rule import MaskRule, Search
from sparsezo_gui.recipe.events import Progress
from sparsezo_gui.recipe.variants import setting

if TYPE_CHECKING:
    from sparsezo_gui.engine.models.anatomy import Anatomy
    from sparsezo_gui.engine.models.frozen import FrozenModel
    from sparsezo_gui.engine.sparse.mask import Mask


class Subspace(MaskRule):
    """Small square cores between random bases of every weight matrix, W + U·S·Vᵀ, with new bases from time to time.

    SubZero (arXiv 2410.08989): S is moved along S ← S − η·g·Z with a normal Z (r × r), and U and V have orthonormal
    columns, drawn anew every T₀ steps. As in the authors' code, not in their formula, √(mn)/r is in U·S·Vᵀ, by which
    ε and the rate mean what they do for all entries of W. Rank and T₀ are those of their example (24 and 1000).

    Own choices: the base stays frozen in few bits, so that what was learnt in a subspace stays in its core; a run goes
    through a set number of subspaces, and then comes back to the first, so that memory is bounded (with steps / T₀ of
    them it never does); only the linear weights of the blocks are tuned; the rank is cut to a weight's smaller side.
    """

    title: ClassVar[str] = "Random subspaces"
    paper: ClassVar[str] = "SubZero, arXiv 2410.08989"
    space: ClassVar[str] = "low-rank"
    rule: Literal["subspace"] = "subspace"
    rank: int = setting(24, "Rows and columns of the core of each weight matrix.", ge=1, le=4096, basic=True,
                        sane=(4, 64))  # fmt: skip
    refresh: int = setting(
        1000, "Steps in one subspace before the next one; 0 stays in the first.", unit="steps", ge=0, le=10_000_000,
        sane=(100, 2000),
    )  # fmt: skip
    subspaces: int = setting(
        4, "How many subspaces there are; after the last one the first comes again.", ge=1, le=1000, sane=(1, 20)
    )

    @property
    def count(self) -> int:
        """See `MaskRule.count`."""
        return self.subspaces if self.refresh else 1

    def tuned(self, anatomy: Anatomy) -> int:
        """See `MaskRule.tuned`."""
        return self.count * sum(min(self.rank, *shape) ** 2 for shape in anatomy.linears.values())

    def bases(self, anatomy: Anatomy) -> int:
        """See `MaskRule.bases`."""
        return self.count * sum(min(self.rank, *shape) * sum(shape) for shape in anatomy.linears.values())

    def source(self) -> str:
        """See `MaskRule.source`."""
        several = f"; there are {self.count}, of {self.refresh} steps each" if self.count > 1 else ""
        return f"Subspaces of rank {self.rank} in every weight matrix, drawn by the seed{several}."

    def cost(self) -> str:
        """See `MaskRule.cost`."""
        return "Nothing is searched; a subspace is drawn when its turn comes, which takes as long as a few steps."

    def find(self, model: FrozenModel, search: Search) -> Generator[Progress, None, Mask]:
        """See `MaskRule.find`."""
        from sparsezo_gui.engine.sparse.low_rank import SUBSPACES, Subspaces
        from sparsezo_gui.engine.sparse.mask import Mask

        yield Progress("Choosing the subspaces")
        anatomy = model.anatomy
        found = Subspaces(anatomy.linears, self.rank, self.refresh, self.count, search.seed)
        return Mask(
            {}, self.model_dump(mode="json"), model.fingerprint, anatomy.eligible, self.space, {SUBSPACES: found.part},
            self.tuned(anatomy),
        )  # fmt: skip
