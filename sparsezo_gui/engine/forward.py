"""Packed forward passes: no padding, several perturbations at once, logits only where scored, a chunk at a time.

The sequences of a pack are joined to one row of tokens, (points, tokens) in all; linear layers, norms and position
embeddings see no padding, and attention works within each sequence. Sequences of equal shape are adjacent, so that each
run of them is one call of scaled-dot-product attention. The common prefix of a pack, such as an instruction, is
computed once. A sequence may branch at its end: the candidate answers to a prompt continue it without seeing each
other, so that the prompt is computed once.

This uses transformers' attention interface: a model's own code runs unchanged, with our attention function.
Architectures without that interface get the same sequences padded on the right, which a causal model cannot see.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from sparsezo_gui.engine.attention import ATTENTION, within
from sparsezo_gui.engine.layers.head import Head, split_pass
from sparsezo_gui.engine.pack import Pack

PACK_ROWS = {"cpu": 1024, "cuda": 4096}
"""Rows of activations, points × tokens, that go through the model at once, by kind of device: enough to make a weight
dense for (twice as many are 3 % faster on a CPU, four times as many slower), few enough to stay at inference memory."""
SMALL_ROWS = {device: rows // 4 for device, rows in PACK_ROWS.items()}
"""The same with less memory; perturbations then mostly run one at a time."""
BACKWARD_ROWS = {"cpu": 512, "cuda": 1024}
"""The same for back-propagation: what one block keeps of them must fit as well."""
LOGITS_BYTES = 64 << 20  # of fp32 logits at a time
BACKWARD_LOGITS_BYTES = 16 << 20  # the same for back-propagation, which holds them twice


def log_probabilities(model: Any, pack: Pack, points: int) -> Tensor:
    """log p(target) at every scored place, fp32 (points, P), of a `FrozenModel` patched for ``points`` points."""
    if not pack.targets.numel():
        return torch.zeros(points, 0, device=pack.tokens.device)
    if model.prefix is not None:
        return cast("Tensor", model.prefix.log_probabilities(pack, points))
    with running(model, pack, points) as (inputs, places):
        hidden, head = split_pass(model.module, model.body, **inputs)
        return scores(head, places(hidden), pack.inverse, pack.targets, model.vocabulary)


@contextmanager
def running(model: Any, pack: Pack, points: int) -> Iterator[tuple[dict[str, Tensor], Any]]:
    """Inside, a module runs ``pack``: its inputs, and what gives the hidden states (points, U, hidden) at the pack's
    places from those of the module's rows."""
    if packs(model.module):
        inputs = {"input_ids": pack.tokens.expand(points, -1), "position_ids": pack.positions.expand(points, -1)}
        with within(pack):
            yield inputs, lambda hidden: hidden[:, pack.places]
        return
    lengths = [length for length, _ in pack.shapes]
    rows = torch.nn.utils.rnn.pad_sequence(pack.tokens.split(lengths), batch_first=True)
    starts = torch.tensor(lengths, device=rows.device).cumsum(0)
    row = torch.searchsorted(starts, pack.places, right=True)
    yield (
        {"input_ids": rows.repeat(points, 1)},
        lambda hidden: hidden.unflatten(0, (points, -1))[:, row, pack.positions[pack.places]],
    )


def packs(module: Any) -> bool:
    """Whether the model can run packed sequences."""
    return bool(module.config._attn_implementation == ATTENTION)


def scores(head: Head, hidden: Tensor, index: Tensor, targets: Tensor, vocabulary: int) -> Tensor:
    """log p(target) fp32 (points, P) of pairs: what follows ``hidden[:, index]``, (points, U, hidden), and its token.

    Logits are computed for a chunk of places at a time; for back-propagation they are computed again, not kept.
    """
    room = BACKWARD_LOGITS_BYTES if hidden.requires_grad else LOGITS_BYTES
    chunk = max(1, room // (4 * vocabulary * len(hidden)))
    if hidden.shape[1] <= chunk:
        return _scores(head, hidden, index, targets)
    found = torch.zeros(len(hidden), len(targets), device=hidden.device)
    for first, part in zip(range(0, hidden.shape[1], chunk), hidden.split(chunk, dim=1), strict=True):
        # Avoids a GPU sync to select the pairs of this chunk: scores of other pairs are discarded.
        here = index - first
        inside = (here >= 0) & (here < part.shape[1])
        inputs = (head, part, here.clamp(0, part.shape[1] - 1), targets)
        again = partial(checkpoint, _scores, use_reentrant=False, preserve_rng_state=False)
        found = torch.where(inside, again(*inputs) if hidden.requires_grad else _scores(*inputs), found)
    return found


def _scores(head: Head, hidden: Tensor, index: Tensor, targets: Tensor) -> Tensor:
    logits = head(hidden).float()
    if logits.requires_grad:
        return cast("Tensor", _LogProbabilities.apply(logits, index, targets))  # type: ignore[no-untyped-call]
    picked = logits[:, index, targets]
    # As logsumexp does it, but in place: the logits are most of the memory here.
    top = logits.amax(dim=-1, keepdim=True)
    top.masked_fill_(top.isinf(), 0)
    normaliser = logits.sub_(top).exp_().sum(dim=-1).log_().add_(top.squeeze(-1))
    return picked - normaliser[:, index]


class _LogProbabilities(torch.autograd.Function):
    """log-softmax of logits (points, U, vocabulary) at pairs; of that size it holds but one tensor, which becomes the
    gradient (p − 1[target])·g in place."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, index: Tensor, targets: Tensor) -> Tensor:
        top = logits.amax(dim=-1, keepdim=True)
        chances = (logits - top).exp_()
        total = chances.sum(dim=-1, keepdim=True)
        ctx.save_for_backward(chances.div_(total), index, targets)
        return logits[:, index, targets] - total.log_().add_(top).squeeze(-1)[:, index]

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        chances, index, targets = ctx.saved_tensors
        points = torch.arange(len(chances), device=chances.device).unsqueeze(-1)
        # Not index_add_, which on a GPU adds in any order, so that no replay would have the same bits.
        at_places = gradient.new_zeros(chances.shape[:2]).index_put_((points, index), gradient, accumulate=True)
        found = chances.mul_(at_places.neg_().unsqueeze(-1))
        return found.index_put_((points, index, targets), gradient, accumulate=True), None, None
