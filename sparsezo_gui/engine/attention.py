"""Attention within the sequences of a pack, by transformers' attention interface.

A model's own code runs unchanged, with our attention function: outside of packs it is PyTorch's as usual.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from sparsezo_gui.engine.data.encode import places_of
from sparsezo_gui.engine.pack import Pack, Run

ATTENTION = "sparsezo"
_pack: ContextVar[Pack | None] = ContextVar("pack", default=None)
_masks: ContextVar[dict[Any, Tensor]] = ContextVar("masks")  # of this pack, the same for every layer and point
_scored: ContextVar[Scored | None] = ContextVar("scored", default=None)
Options = tuple[float | None, int | None, float | None]  # scaling, sliding window, cap of the scores


class Scored:
    """Attention of the tokens at a pack's places to all of its tokens: where nothing else of the last block is used,
    the other tokens only give keys and values."""

    def __init__(self, pack: Pack) -> None:
        self.pack = pack
        self.known: tuple[Tensor, Tensor] | None = None

    def attend(self, query: Tensor, key: Tensor, value: Tensor, options: Options) -> Tensor:
        """First called with all tokens, which ends there with `_Known`, then with those at the places."""
        if self.known is None:
            self.known = key, value
            raise _Known
        scaling, window, cap = options
        return _causal(query, *self.known, self._seen(window), scaling, cap).transpose(1, 2)

    def _seen(self, window: int | None) -> Tensor:
        """As `_seen`, (places, tokens) of the whole pack, which has no common prefix."""
        known, key = _masks.get(), ("scored", window)
        if key not in known:
            rows, places, device = self.pack.rows, self.pack.positions, self.pack.tokens.device
            sequence = torch.tensor([number for number, row in enumerate(rows) for _ in row.tokens], device=device)
            branch = torch.tensor([owner for row in rows for owner in _owners(row.trunk, row.branches)], device=device)
            asked = self.pack.places[:, None]
            distance = places[asked] - places
            seen = (sequence[asked] == sequence) & (distance >= 0) & ((branch == 0) | (branch[asked] == branch))
            known[key] = seen if window is None else seen & (distance < window)
        return known[key]


class _Known(Exception):
    """Keys and values of all tokens are known; nothing after them is needed."""


def at_places(pack: Pack, run_all: Callable[[], Any], run_places: Callable[[], Tensor]) -> Tensor:
    """What ``run_places`` gives: a block on the tokens at the pack's places alone, which see those of ``run_all``."""
    token = _scored.set(Scored(pack))
    try:
        with suppress(_Known):
            run_all()
        return run_places()
    finally:
        _scored.reset(token)


@contextmanager
def within(pack: Pack) -> Iterator[None]:
    """Inside, attention is within the sequences of ``pack``."""
    tokens = _pack.set(pack), _masks.set({})
    try:
        yield
    finally:
        _pack.reset(tokens[0])
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
    """Attention of (points, heads, N, size) within each sequence of the pack; the model's own outside of packs."""
    pack, scored = _pack.get(), _scored.get()
    if scored is not None:
        return scored.attend(query, key, value, (scaling, sliding_window, softcap)), None
    if pack is None:
        if softcap is not None:
            return _capped(query, key, value, attention_mask, scaling, softcap).transpose(1, 2).contiguous(), None
        return sdpa_attention_forward(module, query, key, value, attention_mask, scaling=scaling, **options)
    own = (scaling, sliding_window, softcap)
    parts = [_sequences(query, key, value, run, pack.prefix, *own) for run in pack.runs]
    if pack.prefix:
        parts.insert(0, _sequences(query, key, value, (0, 1, pack.prefix, ()), 0, *own))
    return parts[0] if len(parts) == 1 else torch.cat(parts, dim=1), None


def _sequences(
    query: Tensor, key: Tensor, value: Tensor, run: Run, prefix: int,
    scaling: float | None, window: int | None, cap: float | None,
) -> Tensor:  # fmt: skip
    """Attention of the sequences of one run to themselves and to the pack's first ``prefix`` tokens.

    Gives (points, count · length, heads, size). A single sequence goes in with all its points at once, several
    go next to each other; without a prefix neither needs a copy of its input.
    """
    first, count, length, branches = run
    parts = [part[:, :, first : first + count * length] for part in (query, key, value)]
    mask = None
    if prefix or branches or cap is not None or (window is not None and window < length):
        mask = _seen(prefix, length, branches, window, query.device)
    if count > 1:  # (points, count, heads, length, size)
        parts = [part.unflatten(2, (count, length)).transpose(1, 2) for part in parts]
    if prefix:
        for index, whole in ((1, key), (2, value)):
            shared = whole[:, :, :prefix] if count == 1 else whole[:, None, :, :prefix].expand(-1, count, -1, -1, -1)
            parts[index] = torch.cat((shared, parts[index]), dim=-2)
    attend = partial(_causal, mask=mask, scaling=scaling, softcap=cap)
    if count == 1:
        return attend(*parts).transpose(1, 2)
    return torch.stack([attend(*point).transpose(1, 2).flatten(0, 1) for point in zip(*parts, strict=True)])


def _seen(prefix: int, length: int, branches: tuple[int, ...], window: int | None, device: torch.device) -> Tensor:
    """Which token (row) sees which (column): those before it in its text, not in another branch, within the window.

    The prefix has columns and no rows.
    """
    known, key = _masks.get(), (prefix, length, branches, window)
    if key in known:
        return known[key]
    trunk = prefix + length - sum(branches)
    places = torch.tensor(places_of(trunk, branches))
    owner = torch.tensor(_owners(trunk, branches))
    distance = places[prefix:, None] - places
    seen = (distance >= 0) & ((owner == 0) | (owner[prefix:, None] == owner))
    known[key] = (seen if window is None else seen & (distance < window)).to(device)
    return known[key]


def _owners(trunk: int, branches: tuple[int, ...]) -> list[int]:
    """Number of the branch of each token, from 1; 0 in the trunk."""
    return [0] * trunk + [number for number, size in enumerate(branches, 1) for _ in range(size)]


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
        # Not −∞: a padding token sees nothing, and its NaN would reach those after it.
        scores = scores.masked_fill(~mask, torch.finfo(scores.dtype).min)
    return scores.softmax(dim=-1, dtype=torch.float32).to(query.dtype) @ value


def _mask(*args: Any, **kwargs: Any) -> Tensor | None:
    """No mask within packs (attention there knows its sequences); transformers' own otherwise."""
    if _pack.get() is None:
        return sdpa_mask(*args, **kwargs)
    return None


AttentionInterface.register(ATTENTION, _attention)
AttentionMaskInterface.register(ATTENTION, _mask)
