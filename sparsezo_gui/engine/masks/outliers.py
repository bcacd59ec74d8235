"""The first block with activation outliers, and its outlier channels."""

from __future__ import annotations

from collections.abc import Generator
from typing import TYPE_CHECKING, ClassVar, Literal

from sparsezo_gui.engine.masks.calibration import OnText
from sparsezo_gui.engine.masks.rule import Search
from sparsezo_gui.errors import UserError
from sparsezo_gui.recipe.events import Progress
from sparsezo_gui.recipe.variants import setting

if TYPE_CHECKING:
    from torch import Tensor

    from sparsezo_gui.engine.frozen import FrozenModel
    from sparsezo_gui.engine.pretrained.spec import ModelSpec
    from sparsezo_gui.engine.spaces.mask import Mask


class OutlierChannels(OnText):
    """The outlier channels of the first decoder block with activation outliers, or that whole block.

    After arXiv 2606.05516, which tunes the first such block of the pre-trained model, all of it or the top 1 % of the
    outlier channels of its feed-forward part. The definition of an outlier is our own, since we know of no published
    threshold: an output of the block that is ``threshold`` times the median of all. A channel is an input c of the
    block's down projection, ranked by the largest |input| on the text. Column c of the down projection and rows c of
    the projections before it (up, and gate if there is one) are tuned. The first token of each sequence is included:
    massive activations are mostly there.
    """

    title: ClassVar[str] = "Outlier channels of one block"
    paper: ClassVar[str] = "after arXiv 2606.05516"
    rate_factor: ClassVar[float] = 4.0
    rule: Literal["outlier-channels"] = "outlier-channels"
    what: Literal["channels", "block"] = setting(
        "channels", "Tune the outlier channels of the block's feed-forward part, or all linear weights of the block."
    )
    channels: float = setting(
        0.01, "Fraction of that block's channels; 0.01 is 1 %.", unit="fraction", gt=0, le=1, sane=(0.001, 0.1)
    )
    threshold: float = setting(
        1000.0, "Minimum size of an outlier, as a multiple of the median activation.", gt=1, sane=(100, 1000)
    )

    def tuned(self, spec: ModelSpec) -> int:
        """See `MaskRule.tuned`. Blocks are assumed to be alike."""
        return sum(len(indices) for indices in self._indices(spec, spec.tunable_blocks[0], None).values())

    def source(self) -> str:
        """See `MaskRule.source`."""
        part = "All linear weights" if self.what == "block" else f"The top {100 * self.channels:g} % outlier channels"
        return f"{part} of the first block with activation outliers on {self.texts_used()}."

    def cost(self) -> str:
        """See `MaskRule.cost`."""
        return f"{self.sequences} forward passes the first time; no gradients, and little more memory."

    def find(self, model: FrozenModel, search: Search) -> Generator[Progress, None, Mask]:
        """See `MaskRule.find`."""
        import torch

        from sparsezo_gui.engine.masks.activations import activations
        from sparsezo_gui.engine.spaces.mask import Mask

        yield Progress("Reading text for the mask")
        [passages] = self.passages(model, search)
        seen = yield from activations(model, passages)
        ratios = (seen.peaks / seen.medians.clamp_min(torch.finfo(torch.float32).tiny)).tolist()
        number = self._first(ratios, model.spec.tunable_blocks)
        yield Progress(f"Block {number} is the first with outliers ({ratios[number]:,.0f} times the median)")
        indices = self._indices(model.spec, number, seen.largest)
        rule = {**self.model_dump(mode="json"), "block": number, "ratio": round(ratios[number], 1)}
        return Mask(indices, rule, model.fingerprint, model.spec.eligible)

    def _first(self, ratios: list[float], blocks: list[int]) -> int:
        found = next((number for number in blocks if ratios[number] >= self.threshold), None)
        if found is None:
            most = max(ratios[number] for number in blocks)
            raise UserError(
                "No block of this model has activation outliers, which is common in small models: the largest "
                f"activation is {most:.3g} times the median, after block {ratios.index(most)}, below the threshold of "
                f"{self.threshold:g}. Set [mask] threshold = {max(1.01, 0.99 * most):.3g} to use that block, or "
                "[mask] rule = 'weight-activation', which uses the activations of all blocks."
            )
        return found

    def _indices(self, spec: ModelSpec, number: int, largest: dict[str, Tensor] | None) -> dict[str, Tensor]:
        """The mask in block ``number``; without activations to rank by, with the same number of channels."""
        import torch

        from sparsezo_gui.engine.masks.select import part_of

        prefix = f"{spec.blocks}.{number}."
        shapes = {name: shape for name, shape in spec.linears.items() if name.startswith(prefix)}
        if self.what == "block":
            return {name: torch.arange(rows * columns, dtype=torch.int32) for name, (rows, columns) in shapes.items()}
        down, makers = feed_forward(shapes)
        channels = shapes[down][1]
        scores = largest[down] if largest else torch.zeros(channels)
        best = scores.argsort(descending=True, stable=True)[: part_of(self.channels, channels)].sort().values
        found = {}
        for name, (rows, columns) in shapes.items():
            if name == down:
                places = torch.arange(rows)[:, None] * columns + best
            elif name in makers:  # a fused projection holds gate and up, in this order
                chosen = torch.cat([best + first for first in range(0, rows, channels)])
                places = chosen[:, None] * columns + torch.arange(columns)
            else:
                continue
            found[name] = places.flatten().to(torch.int32)
        return found


def feed_forward(shapes: dict[str, tuple[int, int]]) -> tuple[str, list[str]]:
    """From a block's linear weights: the down projection, and the projections that produce its input."""
    inner = max(columns for _, columns in shapes.values())
    down = [name for name, (_, columns) in shapes.items() if columns == inner][-1]
    home = _module(down).rpartition(".")[0]
    makers = [
        name for name, (rows, _) in shapes.items()
        if name != down and rows in (inner, 2 * inner) and _module(name).rpartition(".")[0] == home
    ]  # fmt: skip
    return down, makers


def _module(name: str) -> str:
    return name.removesuffix(".weight")
