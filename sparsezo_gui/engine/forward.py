"""Packed forward passes: no padding, several sides at once, logits only where they are scored.

The sequences of a pack lie one after the other in one row of tokens, (sides, tokens) in all; linear layers, norms and
position embeddings see no padding, and attention works within each sequence. Sequences of equal shape stand together,
so that each run of them is one call of scaled-dot-product attention. A sequence may branch at its end: the candidate
answers to a prompt go on from it without seeing one another, so that the prompt is computed once.

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

from sparsezo_gui.engine.data.encode import Row, places_of

ATTENTION = "sparsezo"
PACK_ROWS = {"cpu": 1024, "cuda": 4096}
"""Rows of activations, sides × tokens, that go through the model at once, by kind of device: enough to make a weight
dense for (twice as many are 3 % faster on a CPU, four times as many slower), few enough to stay at inference memory."""
SMALL_ROWS = {device: rows // 4 for device, rows in PACK_ROWS.items()}
"""The same where memory is tight; then sides mostly go one at a time."""

# (first token, number of sequences, tokens of each, lengths of its branches) of every run of sequences of one shape.
Run = tuple[int, int, int, tuple[int, ...]]
Runs = tuple[Run, ...]
_runs: ContextVar[Runs | None] = ContextVar("runs", default=None)
_masks: ContextVar[dict[Any, Tensor]] = ContextVar("masks")  # of this pack, the same for every layer and side


@dataclass(frozen=True, slots=True)
class Pack:
    """Sequences through the model at once, those of one shape together, and the scored pairs in them.

    ``tokens`` (N,) and ``positions`` (N,) are int64; ``shapes`` are the length and the branches of each sequence;
    ``scored`` (P,) are places in ``tokens`` whose logits predict ``targets`` (P,).
    """

    tokens: Tensor
    positions: Tensor
    shapes: tuple[tuple[int, tuple[int, ...]], ...]
    scored: Tensor
    targets: Tensor

    @classmethod
    def of(cls, rows: Sequence[Row], scored: Sequence[int], targets: Sequence[int], device: Any) -> Pack:
        """A pack on ``device`` from rows in order of their shape."""
        shapes = tuple((len(row.tokens), row.branches) for row in rows)
        tokens = [token for row in rows for token in row.tokens]
        positions = [place for row in rows for place in row.places]
        tensors = (torch.tensor(values, dtype=torch.int64) for values in (tokens, positions, scored, targets))
        tokens, positions, scored, targets = (tensor.to(device, non_blocking=True) for tensor in tensors)
        return cls(tokens, positions, shapes, scored, targets)

    @property
    def runs(self) -> Runs:
        """Runs of equal shapes; see `Runs`."""
        found, first = [], 0
        for (length, branches), group in groupby(self.shapes):
            count = len(list(group))
            found.append((first, count, length, branches))
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
    lengths = [length for length, _ in pack.shapes]
    rows = torch.nn.utils.rnn.pad_sequence(pack.tokens.split(lengths), batch_first=True)
    logits = module(input_ids=rows.repeat(sides, 1), use_cache=False).logits
    starts = torch.tensor(lengths, device=places.device).cumsum(0)
    row = torch.searchsorted(starts, places, right=True)
    return logits.unflatten(0, (sides, -1))[:, row, pack.positions[places]]


@contextmanager
def _attending(runs: Runs) -> Iterator[None]:
    tokens = _runs.set(runs), _masks.set({})
    try:
        yield
    finally:
        _runs.reset(tokens[0])
        _masks.reset(tokens[1])


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
    query: Tensor, key: Tensor, value: Tensor, run: Run, scaling: float | None, window: int | None, cap: float | None
) -> Tensor:
    """Attention within the sequences of one run, (sides, count · length, heads, size).

    A single sequence goes in with all its sides at once, several go side by side; both need no copy of what goes in.
    """
    first, count, length, branches = run
    parts = [part[:, :, first : first + count * length] for part in (query, key, value)]
    mask = None
    if branches or cap is not None or (window is not None and window < length):
        mask = _seen(length, branches, window, query.device)
    if count == 1:
        return _causal(*parts, mask, scaling, cap).transpose(1, 2)
    sides = zip(*(part.unflatten(2, (count, length)).transpose(1, 2) for part in parts), strict=True)
    return torch.stack([_causal(*side, mask, scaling, cap).transpose(1, 2).flatten(0, 1) for side in sides])


def _seen(length: int, branches: tuple[int, ...], window: int | None, device: torch.device) -> Tensor:
    """Which token (row) sees which (column): those before it in its text, not in another branch, within the window."""
    known, key = _masks.get(), (length, branches, window)
    if key in known:
        return known[key]
    trunk = length - sum(branches)
    places = torch.tensor(places_of(trunk, branches))
    owner = torch.tensor([0] * trunk + [number for number, size in enumerate(branches, 1) for _ in range(size)])
    distance = places[:, None] - places
    seen = (distance >= 0) & ((owner == 0) | (owner[:, None] == owner))
    known[key] = (seen if window is None else seen & (distance < window)).to(device)
    return known[key]


def _causal(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, scaling: float | None, softcap: float | None
) -> Tensor:
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
