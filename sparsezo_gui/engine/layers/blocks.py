"""A model's decoder blocks one at a time: what comes before them, each of them, and what comes after.

A model's own code runs throughout. While every block only passes on its input, a forward pass shows how the model calls
its blocks; with the last block's output in their place, it computes what follows them.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from sparsezo_gui.engine.layers.head import Head, split_pass
from sparsezo_gui.engine.layers.linear import FrozenLinear

if TYPE_CHECKING:
    from sparsezo_gui.engine.frozen import FrozenModel


@dataclass(frozen=True)
class Call:
    """Arguments of a block besides the hidden states: positions, mask and so on. The hidden states come first, or are
    passed by ``name``."""

    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    name: str = ""

    @staticmethod
    def split(forward: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Tensor, Call]:
        """The hidden states that a model's code passes to a block's ``forward``, and the rest."""
        if args:
            return args[0], Call(args[1:], kwargs)
        name = "hidden_states" if "hidden_states" in kwargs else next(iter(inspect.signature(forward).parameters))
        return kwargs[name], Call((), {key: value for key, value in kwargs.items() if key != name}, name)

    def made(self, block: Callable[..., Any], hidden: Tensor) -> Any:
        """What ``block`` gives for ``hidden``."""
        if self.name:
            return block(**{self.name: hidden}, **self.kwargs)
        return block(hidden, *self.args, **self.kwargs)


class Blocks:
    """The blocks of ``model`` by number. Hidden states are (rows, tokens, hidden), and ``inputs`` those of the module:
    ids (rows, tokens), and their positions where sequences are packed."""

    def __init__(self, model: FrozenModel) -> None:
        self.module, self.body, self.streamed = model.module, model.body, model.streamed
        self.blocks: list[nn.Module] = list(model.module.get_submodule(model.spec.blocks))
        self.layers: list[list[FrozenLinear]] = [[] for _ in self.blocks]
        """The eligible layers of each block."""
        for name, layer in model.tunable.items():
            self.layers[model.spec.block(name)].append(layer)
        self._wraps: bool | None = None  # whether blocks return a tuple that starts with the hidden states

    def __len__(self) -> int:
        return len(self.blocks)

    @torch.no_grad()
    def enter(self, **inputs: Tensor) -> tuple[Tensor, list[Call]]:
        """Input of the first block, and the other arguments of all blocks."""
        first, calls = torch.empty(0), []

        def look(number: int, *args: Any, **kwargs: Any) -> Any:
            nonlocal first
            hidden, call = Call.split(self._forwards[number], args, kwargs)
            if number == 0:
                first = hidden
            if self._wraps is None:
                with self.held(number):
                    self._wraps = isinstance(call.made(self._forwards[number], hidden), tuple)
            calls.append(call)
            return self._given(hidden)

        with self._in_place(look):
            split_pass(self.module, self.body, **inputs)
        return first, calls

    def run(self, number: int, hidden: Tensor, call: Call) -> Tensor:
        """Output of block ``number`` for ``hidden``."""
        out = call.made(self.blocks[number], hidden)
        states: Tensor = out[0] if isinstance(out, tuple) else out
        return states

    def backward(self, number: int, hidden: Tensor, gradient: Tensor, run: Callable[[Tensor], Tensor]) -> Tensor:
        """The gradient at the input ``hidden`` of block ``number`` from the ``gradient`` at its output: ``run`` makes
        the block run again, now keeping what it needs for its own backward pass."""
        hidden = hidden.detach().requires_grad_()
        with torch.enable_grad(), self.held(number):
            run(hidden).backward(gradient)
        return grad_of(hidden)

    def leave(self, hidden: Tensor, **inputs: Tensor) -> tuple[Tensor, Head]:
        """`split_pass`, starting from the output of the last block."""
        with self._in_place(lambda _number, *_args, **_kwargs: self._given(hidden)):
            return split_pass(self.module, self.body, **inputs)

    def held(self, number: int) -> AbstractContextManager[None]:
        """Inside, the weights of block ``number`` are on the device."""
        return nullcontext() if self.streamed is None else self.streamed.holding(number)

    def _given(self, hidden: Tensor) -> Any:
        return (hidden,) if self._wraps else hidden

    @contextmanager
    def _in_place(self, forward: Callable[..., Any]) -> Iterator[None]:
        """Within: ``forward`` replaces that of each block, with the block's number before its arguments."""
        self._forwards = [block.forward for block in self.blocks]
        try:
            for number, block in enumerate(self.blocks):
                block.forward = lambda *args, _number=number, **kwargs: forward(_number, *args, **kwargs)
            with nullcontext() if self.streamed is None else self.streamed.resting():
                yield
        finally:
            for block in self.blocks:
                del block.forward


def grad_of(hidden: Tensor) -> Tensor:
    """The gradient at ``hidden`` after a backward pass."""
    assert hidden.grad is not None, "the backward pass reached it"
    return hidden.grad
