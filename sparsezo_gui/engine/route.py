"""The path of a pack through the blocks of a model, one at a time: all of them, or from the first tunable one on.

Where the blocks below are skipped, so is most of the last one: tokens that are not scored only give keys and values
there.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from torch import Tensor

from sparsezo_gui.engine.attention import at_places
from sparsezo_gui.engine.forward import packs, running
from sparsezo_gui.engine.layers.blocks import Blocks
from sparsezo_gui.engine.layers.head import Head
from sparsezo_gui.engine.pack import Pack

if TYPE_CHECKING:
    from sparsezo_gui.engine.frozen import FrozenModel

FEW = 4  # tokens for each scored one, from which the last block on these alone saves more than it costs


class Route:
    """Made by `route`; block ``first`` is the first one to run."""

    def __init__(self, model: FrozenModel, pack: Pack, inputs: dict[str, Tensor], places: Any, points: int) -> None:
        self.pack, self.inputs, self.places = pack, inputs, places
        self.blocks = Blocks(model) if model.prefix is None else model.prefix.blocks
        self.first, (entering, self.calls) = 0, self.blocks.enter(**inputs)
        self._entering: Tensor | None = entering
        self.short = None
        if model.prefix is None:
            return
        self.first, self._entering = model.prefix.first, model.prefix.states(pack, points)
        by_row = any(layer.patch is not None and layer.patch.by_row for layer in self.blocks.layers[-1])
        if packs(model.module) and not by_row and FEW * len(pack.places) <= len(pack.tokens):
            self.inputs = {name: each[:, pack.places] for name, each in inputs.items()}
            self.places = lambda hidden: hidden
            self.short = self.blocks.enter(**self.inputs)[1][-1]

    def enter(self) -> Tensor:
        """Hidden states (rows, tokens, hidden) that enter block `first`; asked for once, and not held here."""
        entering, self._entering = self._entering, None
        assert entering is not None, "nobody asked before"
        return entering

    def run(self, number: int, hidden: Tensor) -> Tensor:
        """Output of block ``number``."""
        call = self.calls[number]
        if self.short is None or number < len(self.calls) - 1:
            return self.blocks.run(number, hidden, call)
        short, places = self.short, self.pack.places
        with self.blocks.held(number):
            return at_places(
                self.pack,
                lambda: self.blocks.run(number, hidden, call),
                lambda: self.blocks.run(number, hidden[:, places], short),
            )

    def backward(self, number: int, hidden: Tensor, gradient: Tensor) -> Tensor:
        """See `Blocks.backward`."""
        return self.blocks.backward(number, hidden, gradient, lambda hidden: self.run(number, hidden))

    def leave(self, hidden: Tensor) -> tuple[Tensor, Head]:
        """Hidden states (points, U, hidden) at the pack's places from the output of the last block, and the head."""
        states, head = self.blocks.leave(hidden, **self.inputs)
        return self.places(states), head


@contextmanager
def route(model: FrozenModel, pack: Pack, points: int = 1) -> Iterator[Route]:
    """Inside, the layers of ``model`` hold ``points`` points, and ``pack`` goes through its blocks."""
    with running(model, pack, points) as (inputs, places):
        yield Route(model, pack, inputs, places, points)
