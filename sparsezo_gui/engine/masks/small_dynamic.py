"""The smallest weights at each step: the rule of Sparse MeZO."""

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


class SmallMagnitudeDynamic(MaskRule):
    """The smallest weights by absolute value, chosen again at each step; needs a model in 16 or 32 bits.

    Source: Sparse MeZO, arXiv 2402.15751. Before the run, every weight matrix gets a threshold, a percentile of its
    |θ|; at each step the weights with |θ| ≤ threshold are perturbed and updated, determined from the unperturbed
    weights during the forward pass, so weights join and leave as they change. The paper's sparsity is the fraction left
    out, 0.5 to 0.8 (0.8 is best on most of its tasks); ``smallest`` is the rest. Own choices: the threshold is an order
    statistic of the loaded weights; embeddings, head, norms and biases stay frozen.
    """

    title: ClassVar[str] = "Small magnitude (dynamic)"
    paper: ClassVar[str] = "Sparse MeZO, arXiv 2402.15751"
    space: ClassVar[str] = "dense"
    rate_factor: ClassVar[float] = 0.25
    rule: Literal["small-magnitude-dynamic"] = "small-magnitude-dynamic"
    # Not called density: when only the rule changes, another rule's density must not carry over.
    smallest: float = setting(
        0.2,
        "Initial fraction of each weight matrix to tune, its smallest weights; 0.2 leaves out 80 %.",
        unit="fraction",
        gt=0,
        le=1,
        basic=True,
        sane=(0.2, 0.5),
    )

    def tuned(self, spec: ModelSpec) -> int:
        """See `MaskRule.tuned`."""
        return round(self.smallest * spec.eligible)

    def source(self) -> str:
        """See `MaskRule.source`."""
        return "Chosen at every step by magnitude, without data."

    def cost(self) -> str:
        """See `MaskRule.cost`."""
        return "Every eligible weight is read once the first time; no forward pass."

    def find(self, model: FrozenModel, search: Search) -> Generator[Progress, None, Mask]:
        """See `MaskRule.find`."""
        from sparsezo_gui.engine.spaces.dense import weight

        thresholds = {}
        for number, name in enumerate(model.spec.linears):
            yield Progress("Ranking the weights", number, len(model.spec.linears), "layers")
            sizes = weight(model, name).float().abs().flatten()
            thresholds[name] = sizes.kthvalue(max(1, round(self.smallest * len(sizes)))).values.view(1)
        return self.mask_of(model, thresholds, model.spec.eligible)
