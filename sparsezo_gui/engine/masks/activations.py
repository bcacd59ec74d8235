"""Inputs of the frozen layers on text: one forward pass per sequence, with only the memory of inference."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from sparsezo_gui.engine.data import Passage
from sparsezo_gui.engine.frozen import FrozenModel
from sparsezo_gui.engine.layers.head import split_pass
from sparsezo_gui.errors import UserError
from sparsezo_gui.recipe.events import Progress


@dataclass(frozen=True)
class Activations:
    """Statistics of the layers' inputs, by name, fp32 (in,) on the CPU; and of the blocks' outputs, fp32 (blocks,)."""

    norms: dict[str, Tensor]
    """‖X_j‖₂ of each input j: over the tokens of a sequence, root mean square over sequences."""
    largest: dict[str, Tensor]
    """The largest |X_j|."""
    peaks: Tensor
    """The largest |h| in a block's output."""
    medians: Tensor
    """The median |h| in a block's output, averaged over sequences."""


def activations(model: FrozenModel, passages: Sequence[Passage]) -> Generator[Progress, None, Activations]:
    """Runs the frozen model on ``passages``. Raises `UserError` for activations that are not finite."""
    seen = _Seen(model)
    for done, passage in enumerate(passages):
        yield Progress("Computing activations", done, len(passages), "sequences")
        ids = torch.tensor([passage.tokens], device=model.device)
        with torch.no_grad(), seen.looking():
            split_pass(model.module, model.body, input_ids=ids)  # logits are not needed
    yield Progress("Computing activations", len(passages), len(passages), "sequences")
    return seen.result(len(passages))


class _Seen:
    """Running sums over the sequences."""

    def __init__(self, model: FrozenModel) -> None:
        self.layers = model.tunable
        self.blocks = list(model.module.get_submodule(model.spec.blocks))
        widths = {name: layer.frozen.shape[1] for name, layer in self.layers.items()}
        self.squares = {name: torch.zeros(width, device=model.device) for name, width in widths.items()}
        self.largest = {name: torch.zeros(width, device=model.device) for name, width in widths.items()}
        self.peaks, self.medians = torch.zeros(2, len(self.blocks), device=model.device)

    @contextmanager
    def looking(self) -> Iterator[None]:
        """Inside, inputs of layers and outputs of blocks are recorded."""
        with ExitStack() as hooks:
            for name, layer in self.layers.items():
                hooks.callback(layer.register_forward_pre_hook(self._into(name)).remove)
            for number, block in enumerate(self.blocks):
                hooks.callback(block.register_forward_hook(self._out_of(number)).remove)
            yield

    def _into(self, name: str) -> Callable[[Any, Any], None]:
        def look(_layer: Any, inputs: Any) -> None:
            rows = inputs[0].flatten(0, -2)
            self.squares[name] += torch.linalg.vector_norm(rows, dim=0, dtype=torch.float32).square()
            largest = torch.linalg.vector_norm(rows, ord=torch.inf, dim=0, dtype=torch.float32)
            torch.maximum(self.largest[name], largest, out=self.largest[name])

        return look

    def _out_of(self, number: int) -> Callable[[Any, Any, Any], None]:
        def look(_block: Any, _inputs: Any, out: Any) -> None:
            sizes = (out[0] if isinstance(out, tuple) else out).float().abs()
            self.peaks[number] = torch.maximum(self.peaks[number], sizes.max())
            self.medians[number] += sizes.median()

        return look

    def result(self, sequences: int) -> Activations:
        squares = {name: each.cpu() / sequences for name, each in self.squares.items()}
        if not all(each.isfinite().all() for each in (*squares.values(), self.peaks)):
            raise UserError("The model's activations on the mask's text are not finite. Use more bits or another text.")
        largest = {name: each.cpu() for name, each in self.largest.items()}
        norms = {name: each.sqrt() for name, each in squares.items()}
        return Activations(norms, largest, self.peaks.cpu(), self.medians.cpu() / sequences)
