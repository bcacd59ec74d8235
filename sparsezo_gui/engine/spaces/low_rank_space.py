"""The space of low-rank cores."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar

from sparsezo_gui.engine.spaces.space import Space

if TYPE_CHECKING:
    from sparsezo_gui.engine.pretrained.spec import ModelSpec
    from sparsezo_gui.engine.spaces.mask import Mask
    from sparsezo_gui.recipe.recipe import Recipe


class LowRankSpace(Space):
    """Small cores between bases of each weight, added to it; the mask has the bases, or what they are drawn from."""

    values: ClassVar[str] = "sparsezo_gui.engine.spaces.low_rank:LowRankValues"
    relation: ClassVar[str] = "values that change all"

    def refusal(self, recipe: Recipe) -> str:
        """See `Space.refusal`."""
        mask, estimator, update = recipe.mask, recipe.estimator, recipe.update
        if mask.count > 1 and (estimator.exact or update.long or update.decay):
            if estimator.exact:
                part = f"[estimator] rule = '{estimator.rule}'"
            else:
                part = f"[update] rule = '{update.rule}'" if update.long else f"[update] decay = {update.decay:g}"
            return (
                f"[mask] rule = '{mask.rule}' switches between {mask.count} subspaces, and {part} would also change "
                "those that wait. Set [mask] refresh = 0 to keep one subspace, or [estimator] rule = "
                "'two-sided' with [update] rule = 'scalar-normalised' and decay = 0."
            )
        return super().refusal(recipe)

    def export_refusal(self, form: str) -> str:
        """See `Space.export_refusal`."""
        if form != "overlay":
            return ""
        return (
            "An overlay file stores single weights, but this run changed whole matrices in a low-rank subspace. "
            "Export it with --format hf, or share the run, which takes the least space."
        )

    def counts(self, mask: Mask, spec: ModelSpec) -> Mapping[str, int]:
        """See `Space.counts`."""
        from sparsezo_gui.engine.spaces.low_rank import bases_of

        return {name: math.prod(core) for name, core in bases_of(mask, spec.linears).cores.items()}
