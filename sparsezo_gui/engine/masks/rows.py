"""Whole rows of weights: all inputs of one output of a layer."""

from __future__ import annotations

from collections.abc import Generator
from typing import TYPE_CHECKING, ClassVar, Literal

from sparsezo_gui.engine.masks.calibration import OnText
from sparsezo_gui.engine.masks.rule import DensityRule, Search
from sparsezo_gui.recipe.events import Progress
from sparsezo_gui.recipe.variants import setting

if TYPE_CHECKING:
    from torch import Tensor

    from sparsezo_gui.engine.frozen import FrozenModel
    from sparsezo_gui.engine.pretrained.spec import ModelSpec
    from sparsezo_gui.engine.spaces.mask import Mask


class Rows(OnText, DensityRule):
    """Whole rows of the weight matrices with the highest scores.

    After SPruFT (arXiv 2502.11439, by its published code): the best rows of each matrix are tuned, ranked by their l2
    norm, and each score is divided by the mean over its matrix, which makes rows of different matrices comparable if
    they are ranked together. The norm is the root of the paper's sum of squares, and the other score is the row's sum
    of |W_ij| · ‖X_j‖₂; both are our own choice, and so are zeroth-order steps on rows. Attention is included. Every
    matrix contributes at least one row, or, if ranked together, as many rows as fit into the density.
    """

    title: ClassVar[str] = "Whole rows"
    paper: ClassVar[str] = "after SPruFT, arXiv 2502.11439"
    rate_factor: ClassVar[float] = 4.0
    rule: Literal["rows"] = "rows"
    score: Literal["l2", "weight-activation"] = setting(
        "l2", "Rank rows by their norm (l2), or by weight times activation on text (weight-activation)."
    )
    spread: Literal["tensor", "global"] = setting(
        "tensor", "Take the same share of rows from every weight matrix (tensor), or the best rows of all (global)."
    )

    @property
    def reads_task(self) -> bool:
        """See `MaskRule.reads_task`."""
        return self.score != "l2" and super().reads_task

    def tuned(self, spec: ModelSpec) -> int:
        """See `MaskRule.tuned`."""
        from sparsezo_gui.engine.masks.select import count_of, part_of

        if self.spread == "global":
            return count_of(self.share(spec), spec.linears)
        return sum(part_of(self.share(spec), rows) * columns for rows, columns in spec.linears.values())

    def source(self) -> str:
        """See `MaskRule.source`."""
        if self.score == "l2":
            return "Whole rows of weights, ranked by their norm, without data."
        return f"Whole rows of weights, ranked by weight times activation on {self.texts_used()}."

    def cost(self) -> str:
        """See `MaskRule.cost`."""
        passes = "no forward pass" if self.score == "l2" else f"{self.sequences} forward passes, without gradients"
        return f"Every eligible weight is read once the first time; {passes}."

    def find(self, model: FrozenModel, search: Search) -> Generator[Progress, None, Mask]:
        """See `MaskRule.find`."""
        import torch

        from sparsezo_gui.engine.masks.activations import activations
        from sparsezo_gui.engine.spaces.mask import Mask

        norms: dict[str, Tensor] = {}
        if self.score != "l2":
            yield Progress("Reading text for the mask")
            [passages] = self.passages(model, search)
            norms = (yield from activations(model, passages)).norms
        scores: dict[str, Tensor] = {}
        for number, name in enumerate(model.spec.linears):
            yield Progress("Ranking the rows", number, len(model.spec.linears), "layers")
            weight = model.original(name).float()
            found = weight.abs() @ norms[name] if norms else torch.linalg.vector_norm(weight, dim=1)
            scores[name] = found / found.mean().clamp_min(torch.finfo(torch.float32).tiny)
        indices = {}
        for name, rows in self._chosen(scores, model.spec).items():
            columns = model.spec.linears[name][1]
            indices[name] = (rows[:, None] * columns + torch.arange(columns)).flatten().to(torch.int32)
        return Mask(indices, self.model_dump(mode="json"), model.fingerprint, model.spec.eligible)

    def _chosen(self, scores: dict[str, Tensor], spec: ModelSpec) -> dict[str, Tensor]:
        """Ascending rows by name; the first wins a tie."""
        import torch

        from sparsezo_gui.engine.masks.select import count_of, part_of

        orders = {name: each.argsort(descending=True, stable=True) for name, each in scores.items()}
        share, shapes = self.share(spec), spec.linears
        counts = {name: part_of(share, len(each)) for name, each in scores.items()}
        if self.spread == "global":
            widths = torch.cat([torch.full((len(each),), shapes[name][1]) for name, each in scores.items()])
            order = torch.cat(list(scores.values())).argsort(descending=True, stable=True)
            fitting = int((widths[order].cumsum(0) <= count_of(share, shapes)).sum())
            best = order[: max(1, fitting)]
            owners = torch.arange(len(scores)).repeat_interleave(torch.tensor([len(each) for each in scores.values()]))
            counts = dict(zip(scores, owners[best].bincount(minlength=len(scores)).tolist(), strict=True))
        return {name: orders[name][:count].sort().values for name, count in counts.items() if count}
