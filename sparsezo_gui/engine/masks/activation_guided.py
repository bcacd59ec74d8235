"""The subspace spanned by a layer's inputs."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, ClassVar, Literal

from sparsezo_gui.engine.masks.calibration import OnText
from sparsezo_gui.engine.masks.rule import Search
from sparsezo_gui.recipe.events import Progress
from sparsezo_gui.recipe.variants import setting

if TYPE_CHECKING:
    from torch import Tensor

    from sparsezo_gui.engine.frozen import FrozenModel
    from sparsezo_gui.engine.layers.blocks import Call
    from sparsezo_gui.engine.layers.linear import FrozenLinear
    from sparsezo_gui.engine.pretrained.spec import ModelSpec
    from sparsezo_gui.engine.spaces.mask import Mask

STAGE = "Analysing activations"


class ActivationSubspace(OnText):
    """Low-rank tuning along the principal directions of each layer's inputs: W + B·A, where B is tuned.

    AGZO (arXiv 2601.17261): the gradient of W is Q·Hᵀ with the layer's inputs H, so it lies in the span of H. The rows
    of A are its principal directions, found by subspace iteration, A ← QR(H·Hᵀ·A); a direction is R·A with normal R,
    without rescaling. The paper's main results use rank 1 and three iterations. (From notes on the paper: its text and
    code were not available.)

    Own choices: A is found once, with the frozen base model on a calibration text, not at every step on the batch: a
    run then remains a list of scalars that is replayed without a forward pass, and the base model can stay quantised.
    The projected gradient is the estimator's (theirs is one-sided). Only the linear weights of the blocks are tuned.
    Inputs are not centred; if a few channels are far larger than others, a higher rank helps. Without rescaling, the
    entries of W move by √(r/in) of the change of B, so it needs a higher rate than single entries do.
    """

    title: ClassVar[str] = "Activation subspace"
    paper: ClassVar[str] = "after AGZO, arXiv 2601.17261"
    space: ClassVar[str] = "low-rank"
    rate_factor: ClassVar[float] = 4.0
    rule: Literal["activation-subspace"] = "activation-subspace"
    rank: int = setting(1, "Principal input directions per weight matrix.", ge=1, le=4096, basic=True, sane=(1, 16))
    text: str = setting(
        "task",
        "Text to compute activations on: 'task' (your examples as plain text), 'answers' (your examples one by one), "
        "'general', a file, or a Hub data set.",
    )
    iterations: int = setting(3, "Passes over the text to find the directions.", ge=1, le=100, sane=(3, 10))

    def tuned(self, spec: ModelSpec) -> int:
        """See `MaskRule.tuned`."""
        return sum(rows * min(self.rank, columns) for rows, columns in spec.linears.values())

    def bases(self, spec: ModelSpec) -> int:
        """See `MaskRule.bases`."""
        return sum(columns * min(self.rank, columns) for _, columns in spec.linears.values())

    def source(self) -> str:
        """See `MaskRule.source`."""
        return f"Found on {self.texts_used()}."

    @property
    def repeats(self) -> int:
        """See `Calibrated.repeats`."""
        return self.iterations

    def cost(self) -> str:
        """See `MaskRule.cost`."""
        return (
            f"About {self.iterations * self.sequences} forward passes the first time, block by block, with "
            "little more memory than training."
        )

    def find(self, model: FrozenModel, search: Search) -> Generator[Progress, None, Mask]:
        """See `MaskRule.find`. Block by block: all sequences pass through a block once per iteration."""
        import torch

        from sparsezo_gui.engine.layers.blocks import Blocks
        from sparsezo_gui.engine.spaces.low_rank import orthonormal, start_basis
        from sparsezo_gui.engine.zo.generator import Stream

        yield Progress("Reading text for the mask")
        (passages,) = self.passages(model, search)
        spec, blocks = model.spec, Blocks(model)
        parts: dict[str, Tensor] = {}
        stream = Stream.SEARCHES.of(search.generator)
        starts = {
            name: start_basis(search.seed, place, columns, min(self.rank, columns), stream)
            for place, (name, (_, columns)) in enumerate(spec.linears.items())
        }
        ids = [torch.tensor([passage.tokens], device=model.device) for passage in passages]
        hidden: list[Tensor] = []
        calls: dict[int, list[Call]] = {}  # the arguments of blocks depend on the number of tokens, not on the tokens
        for each in ids:
            first, called = blocks.enter(input_ids=each)
            calls.setdefault(each.shape[1], called)
            hidden.append(first)
        passes, done = len(blocks) * self.iterations * len(ids), 0
        for number, layers in enumerate(blocks.layers):
            bases = {layer.name: starts[layer.name].to(model.device) for layer in layers}
            for _ in range(self.iterations if layers else 1):
                sums = {name: torch.zeros_like(basis) for name, basis in bases.items()}
                given = []
                for index, each in enumerate(ids):
                    yield Progress(STAGE, done, passes, "passes")
                    with torch.no_grad(), _watched(layers, bases, sums):
                        given.append(blocks.run(number, hidden[index], calls[each.shape[1]][number]))
                    done += 1
                bases = {name: orthonormal(found).to(model.device) for name, found in sums.items()}
            hidden = given
            parts |= {name: basis.t().contiguous().cpu() for name, basis in bases.items()}
        return self.mask_of(model, parts, self.tuned(spec))


@contextmanager
def _watched(layers: list[FrozenLinear], bases: dict[str, Tensor], sums: dict[str, Tensor]) -> Iterator[None]:
    """Inside, Xᵀ·X·A of each layer's inputs is added to its sum; Xᵀ·X, as large as a weight, is never formed."""

    def look(layer: FrozenLinear, given: tuple[Tensor, ...]) -> None:
        x = given[0].reshape(-1, given[0].shape[-1]).float()
        sums[layer.name] += x.t() @ (x @ bases[layer.name])

    hooks = [layer.register_forward_pre_hook(look) for layer in layers]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
