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

import itertools
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from sparsezo_gui.engine.data.encode import Row, places_of
from sparsezo_gui.engine.layers.head import Head, split_pass

ATTENTION = "sparsezo"
PACK_ROWS = {"cpu": 1024, "cuda": 4096}
"""Rows of activations, points × tokens, that go through the model at once, by kind of device: enough to make a weight
dense for (twice as many are 3 % faster on a CPU, four times as many slower), few enough to stay at inference memory."""
SMALL_ROWS = {device: rows // 4 for device, rows in PACK_ROWS.items()}
"""The same with less memory; perturbations then mostly run one at a time."""
LOGITS_BYTES = 64 << 20  # of fp32 logits at a time

# (first token, number of sequences, tokens of each, lengths of its branches) of every run of sequences of one shape.
Run = tuple[int, int, int, tuple[int, ...]]
Runs = tuple[Run, ...]
_pack: ContextVar[Pack | None] = ContextVar("pack", default=None)
_masks: ContextVar[dict[Any, Tensor]] = ContextVar("masks")  # of this pack, the same for every layer and point


@dataclass(frozen=True, slots=True)
class Pack:
    """Sequences through the model at once, those of one shape together, and the scored pairs in them.

    ``tokens`` (N,) and ``positions`` (N,) are int64; the first ``prefix`` of them begin every sequence, of which
    ``shapes`` are the further length and the branches. ``places`` (U,) are the places in ``tokens`` at which logits are
    needed; the i-th pair is ``targets[i]`` as predicted at ``places[inverse[i]]``.
    """

    tokens: Tensor
    positions: Tensor
    prefix: int
    shapes: tuple[tuple[int, tuple[int, ...]], ...]
    places: Tensor
    inverse: Tensor
    targets: Tensor

    @classmethod
    def of(cls, rows: Sequence[Row], prefix: int, device: torch.device) -> Pack:
        """A pack on ``device`` from rows in order of their shape, the first ``prefix`` tokens of which are the same.

        Its pairs are those of the rows, in their order.
        """
        shapes = tuple((len(row.tokens) - prefix, row.branches) for row in rows)
        tokens = [*rows[0].tokens[:prefix], *(token for row in rows for token in row.tokens[prefix:])]
        positions = [*range(prefix), *(place for row in rows for place in row.places[prefix:])]
        starts = itertools.accumulate((length for length, _ in shapes), initial=0)
        # Several targets may be scored at one place (the candidates of a choice): its logits are computed once.
        scored = [
            position if position < prefix else start + position
            for row, start in zip(rows, starts, strict=False)
            for position in row.positions
        ]
        places = sorted(set(scored))
        number = {place: index for index, place in enumerate(places)}
        inverse = [number[place] for place in scored]
        targets = [target for row in rows for target in row.targets]
        one, two, three, four, five = (
            _moved(values, device) for values in (tokens, positions, places, inverse, targets)
        )
        return cls(one, two, prefix, shapes, three, four, five)

    @property
    def runs(self) -> Runs:
        """Runs of equal shapes; see `Runs`."""
        found, first = [], self.prefix
        for (length, branches), group in groupby(self.shapes):
            count = len(list(group))
            found.append((first, count, length, branches))
            first += count * length
        return tuple(found)


def log_probabilities(model: Any, pack: Pack, points: int) -> Tensor:
    """log p(target) at every scored place, fp32 (points, P), of a `FrozenModel` patched for ``points`` points."""
    found = torch.zeros(points, len(pack.targets), device=pack.tokens.device)
    if not pack.targets.numel():
        return found
    hidden, head = (_packed if packs(model.module) else _padded)(model, pack, points)
    chunk = max(1, LOGITS_BYTES // (4 * model.vocabulary * points))
    if hidden.shape[1] <= chunk and not hidden.requires_grad:
        return _scores(head, hidden, pack.inverse, pack.targets)
    for first, part in zip(range(0, hidden.shape[1], chunk), hidden.split(chunk, dim=1), strict=True):
        # Avoids a GPU sync to select the pairs of this chunk: scores of other pairs are discarded.
        index = pack.inverse - first
        inside = (index >= 0) & (index < part.shape[1])
        inputs = (head, part, index.clamp(0, part.shape[1] - 1), pack.targets)
        # The backward pass recomputes a chunk's logits instead of keeping them.
        again = partial(checkpoint, _scores, use_reentrant=False, preserve_rng_state=False)
        scores = again(*inputs) if hidden.requires_grad else _scores(*inputs)
        found = torch.where(inside, scores, found)
    return found


def _scores(head: Head, hidden: Tensor, index: Tensor, targets: Tensor) -> Tensor:
    """log p(target) fp32 (points, P) of pairs: what follows ``hidden[:, index]``, and its token."""
    logits = head(hidden).float()
    picked = logits[:, index, targets]
    if logits.requires_grad:
        return picked - logits.logsumexp(dim=-1)[:, index]
    # As logsumexp does it, but in place: the logits are most of the memory here.
    top = logits.amax(dim=-1, keepdim=True)
    top.masked_fill_(top.isinf(), 0)
    normaliser = logits.sub_(top).exp_().sum(dim=-1).log_().add_(top.squeeze(-1))
    return picked - normaliser[:, index]


def packs(module: Any) -> bool:
    """Whether the model can run packed sequences."""
    return bool(module.config._attn_implementation == ATTENTION)


def _moved(values: list[int], device: torch.device) -> Tensor:
    """int64 on ``device``; copied asynchronously from pinned memory to a GPU."""
    tensor = torch.tensor(values, dtype=torch.int64, pin_memory=device.type == "cuda")
    return tensor.to(device, non_blocking=True)


def _packed(model: Any, pack: Pack, points: int) -> tuple[Tensor, Head]:
    """Hidden states (points, U, hidden) at the pack's places, and what makes logits of them."""
    with _attending(pack):
        hidden, head = split_pass(
            model.module,
            model.body,
            input_ids=pack.tokens.expand(points, -1),
            position_ids=pack.positions.expand(points, -1),
        )
    return hidden[:, pack.places], head


def _padded(model: Any, pack: Pack, points: int) -> tuple[Tensor, Head]:
    lengths = [length for length, _ in pack.shapes]
    rows = torch.nn.utils.rnn.pad_sequence(pack.tokens.split(lengths), batch_first=True)
    hidden, head = split_pass(model.module, model.body, input_ids=rows.repeat(points, 1))
    starts = torch.tensor(lengths, device=rows.device).cumsum(0)
    row = torch.searchsorted(starts, pack.places, right=True)
    return hidden.unflatten(0, (points, -1))[:, row, pack.positions[pack.places]], head


@contextmanager
def _attending(pack: Pack) -> Iterator[None]:
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
    pack = _pack.get()
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
    owner = torch.tensor([0] * trunk + [number for number, size in enumerate(branches, 1) for _ in range(size)])
    distance = places[prefix:, None] - places
    seen = (distance >= 0) & ((owner == 0) | (owner[prefix:, None] == owner))
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
