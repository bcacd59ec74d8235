"""Packed forward passes: no padding, several sides at once, logits only where they are scored.

The sequences of a pack lie one after the other in one row of tokens, (sides, tokens) in all; linear layers, norms and
position embeddings see no padding, and attention works within each sequence. Sequences of equal length stand together,
so that each run of them is one call of scaled-dot-product attention.

This rides on transformers' attention interface: a model's own code runs unchanged, with our attention function in it.
Architectures without that interface get the same sequences padded on the right, which a causal model cannot see.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

ATTENTION = "sparsezo"

# (first token, number of sequences, tokens of each) of every run of equally long sequences in the pack at work.
Runs = tuple[tuple[int, int, int], ...]
_runs: ContextVar[Runs | None] = ContextVar("runs", default=None)


@dataclass(frozen=True, slots=True)
class Pack:
    """Sequences through the model at once, sorted by length, and the scored (position, target) pairs in them.

    ``tokens`` (N,) and ``positions`` (N,) are int64; ``scored`` (P,) are places in ``tokens`` whose logits predict
    ``targets`` (P,).
    """

    tokens: Tensor
    positions: Tensor
    lengths: tuple[int, ...]
    scored: Tensor
    targets: Tensor

    @classmethod
    def of(cls, sequences: Sequence[Sequence[int]], scored: Sequence[int], targets: Sequence[int], device: Any) -> Pack:
        """A pack on ``device`` from token lists in order of their length."""
        lengths = tuple(map(len, sequences))
        tokens = [token for sequence in sequences for token in sequence]
        positions = [place for length in lengths for place in range(length)]
        tensors = (torch.tensor(values, dtype=torch.int64) for values in (tokens, positions, scored, targets))
        tokens, positions, scored, targets = (tensor.to(device, non_blocking=True) for tensor in tensors)
        return cls(tokens, positions, lengths, scored, targets)

    @property
    def runs(self) -> Runs:
        """Runs of equal lengths; see `Runs`."""
        found, first = [], 0
        for length, group in groupby(self.lengths):
            count = len(list(group))
            found.append((first, count, length))
            first += count * length
        return tuple(found)


def log_probabilities(module: Any, pack: Pack, sides: int) -> Tensor:
    """log p(target) at every scored place, fp32 (sides, P), of a causal LM whose layers hold ``sides`` sides."""
    if pack.scored.numel() == 0:
        return torch.zeros(sides, 0, device=pack.tokens.device)
    # Several targets may be scored at one place (the candidates of a choice): its logits are computed once.
    places, inverse = torch.unique_consecutive(pack.scored, return_inverse=True)
    logits = (_packed if packs(module) else _padded)(module, pack, places, sides).float()
    normaliser = logits.logsumexp(dim=-1)
    return logits[:, inverse, pack.targets] - normaliser[:, inverse]


def packs(module: Any) -> bool:
    """Whether the model can run packed sequences."""
    return module.config._attn_implementation == ATTENTION


def _packed(module: Any, pack: Pack, places: Tensor, sides: int) -> Tensor:
    with _attending(pack.runs):
        return module(
            input_ids=pack.tokens.expand(sides, -1),
            position_ids=pack.positions.expand(sides, -1),
            logits_to_keep=places,
            use_cache=False,
        ).logits


def _padded(module: Any, pack: Pack, places: Tensor, sides: int) -> Tensor:
    rows = torch.nn.utils.rnn.pad_sequence(pack.tokens.split(list(pack.lengths)), batch_first=True)
    logits = module(input_ids=rows.repeat(sides, 1), use_cache=False).logits
    starts = torch.tensor(pack.lengths, device=places.device).cumsum(0)
    row = torch.searchsorted(starts, places, right=True)
    return logits.unflatten(0, (sides, -1))[:, row, pack.positions[places]]


@contextmanager
def _attending(runs: Runs) -> Iterator[None]:
    token = _runs.set(runs)
    try:
        yield
    finally:
        _runs.reset(token)


def _attention(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    sliding_window: int | None = None,
    softcap: float | None = None,
    **options: Any,
) -> tuple[Tensor, None]:
    """Attention of (sides, heads, N, size) within each sequence of the pack; the model's usual one outside of packs."""
    runs = _runs.get()
    if runs is None:
        if softcap is not None:
            return _capped(query, key, value, attention_mask, scaling, softcap).transpose(1, 2).contiguous(), None
        return sdpa_attention_forward(module, query, key, value, attention_mask, scaling=scaling, **options)
    parts = [_sequences(query, key, value, run, scaling, sliding_window, softcap) for run in runs]
    return parts[0] if len(parts) == 1 else torch.cat(parts, dim=1), None


def _sequences(
    query: Tensor, key: Tensor, value: Tensor, run: tuple[int, int, int], *options: float | None
) -> Tensor:
    """Attention within the sequences of one run, (sides, count · length, heads, size).

    A single sequence goes in with all its sides at once, several go side by side; both need no copy of what goes in.
    """
    first, count, length = run
    parts = [part[:, :, first : first + count * length] for part in (query, key, value)]
    if count == 1:
        return _causal(*parts, *options).transpose(1, 2)
    sides = zip(*(part.unflatten(2, (count, length)).transpose(1, 2) for part in parts), strict=True)
    return torch.stack([_causal(*side, *options).transpose(1, 2).flatten(0, 1) for side in sides])


def _causal(
    query: Tensor, key: Tensor, value: Tensor, scaling: float | None, window: int | None, softcap: float | None
) -> Tensor:
    length = query.shape[2]
    windowed = window is not None and window < length
    mask = None
    if windowed or softcap is not None:
        distance = torch.arange(length, device=query.device)[:, None] - torch.arange(length, device=query.device)
        mask = (distance >= 0) & (distance < (window if windowed else length))
    if softcap is not None:
        return _capped(query, key, value, mask, scaling, softcap)
    return F.scaled_dot_product_attention(
        query,
        key,
        value,
        attn_mask=mask,
        is_causal=mask is None,
        scale=scaling,
        enable_gqa=query.shape[1] != key.shape[1],
    )


def _capped(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, scaling: float | None, softcap: float
) -> Tensor:
    """Attention whose scores are held within ±``softcap`` (Gemma 2, arXiv 2408.00118 section 2)."""
    groups = query.shape[1] // key.shape[1]
    key, value = key.repeat_interleave(groups, 1), value.repeat_interleave(groups, 1)
    scores = query @ key.transpose(-1, -2) * (query.shape[-1] ** -0.5 if scaling is None else scaling)
    scores = softcap * torch.tanh(scores / softcap)
    if mask is None and query.shape[2] > 1:
        mask = torch.ones(query.shape[2], key.shape[2], dtype=torch.bool, device=query.device).tril(
            key.shape[2] - query.shape[2]
        )
    if mask is not None:
        scores = scores.masked_fill(~mask, float("-inf"))
    return scores.softmax(dim=-1, dtype=torch.float32).to(query.dtype) @ value


def _mask(*args: Any, **kwargs: Any) -> Tensor | None:
    """No mask within packs (attention there knows its sequences); transformers' own otherwise."""
    if _runs.get() is None:
        return sdpa_mask(*args, **kwargs)
    return None


AttentionInterface.register(ATTENTION, _attention)
AttentionMaskInterface.register(ATTENTION, _mask)
