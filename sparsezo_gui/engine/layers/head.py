"""The end of a forward pass apart from the rest: logits of some places at a time, of all of which they would be large.

A model's own code runs throughout, with all that it does around its head (capping, scaling). First its forward pass
with no place left for the head, which gives the hidden states after the blocks; then its forward pass of as many places
as are asked for, in which that stands for all blocks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

Head = Callable[[Tensor], Tensor]
"""Logits (rows, places, vocabulary) of the hidden states (rows, places, hidden) at some places."""


def split_pass(module: Any, body: nn.Module | None, **inputs: Any) -> tuple[Tensor, Head]:
    """Hidden states (rows, tokens, hidden) that the head of the causal LM ``module`` is given, and that head.

    ``body`` is the part of the module that calls its blocks. Without one, where what the module's own code does
    after its blocks is unknown, the hidden states are the logits themselves.
    """
    if body is None:
        return module(**inputs, use_cache=False).logits, lambda logits: logits
    found: list[Any] = []

    def look(_body: nn.Module, _inputs: Any, out: Any) -> Any:
        nothing = _with_states(out, out[0].new_empty(len(out[0]), 0, out[0].shape[-1]))
        found.extend((out[0], nothing))
        return nothing

    hook = body.register_forward_hook(look)
    try:
        module(**inputs, use_cache=False)
    finally:
        hook.remove()
    hidden, nothing = found

    def head(states: Tensor) -> Tensor:
        with _giving(body, _with_states(nothing, states)):
            ids = torch.zeros(1, 1, dtype=torch.int64, device=states.device)
            logits: Tensor = module(input_ids=ids, use_cache=False).logits
        return logits

    return hidden, head


def _with_states(out: Any, hidden: Tensor) -> Any:
    """The body's output ``out`` (a tuple or an object of transformers) with other hidden states, and nothing else."""
    return (hidden, *out[1:]) if isinstance(out, tuple) else type(out)(last_hidden_state=hidden)


@contextmanager
def _giving(body: nn.Module, out: Any) -> Iterator[None]:
    """Within: ``body`` computes nothing and gives ``out``."""
    body.forward = lambda *_args, **_options: out
    try:
        yield
    finally:
        del body.forward
