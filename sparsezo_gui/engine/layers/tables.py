"""Token embeddings and head on a CPU: held in the checkpoint's own 16 bits, and computed with in fp32 by rows.

Every 16-bit number is an fp32 number, so results are those of a whole table in fp32, which would be twice as large. A
lookup makes the rows it takes fp32; the head does so with a span of its rows at a time, as `FrozenLinear` does.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import PreTrainedModel

from sparsezo_gui.engine.layers.linear import spans_of
from sparsezo_gui.engine.layers.weights import DenseWeight
from sparsezo_gui.engine.pretrained.spec import ModelSpec

if TYPE_CHECKING:
    from sparsezo_gui.engine.pretrained.weights import Checkpoint

LARGE = 64 * 2**20  # bytes in fp32, below which a table is held as it is computed with: there is little to spare
HALVES = (torch.float16, torch.bfloat16)


def narrow(spec: ModelSpec, dtype: torch.dtype, device_kind: str) -> tuple[str, ...]:
    """Names of the parameters that are held in the checkpoint's own type where that has 16 bits."""
    if device_kind != "cpu" or dtype != torch.float32:
        return ()
    return tuple(name for name in spec.tables if 4 * math.prod(spec.shapes[name]) >= LARGE)


def own_types(checkpoint: Checkpoint, names: tuple[str, ...]) -> dict[str, torch.dtype]:
    """Type of each of the parameters ``names`` that has 16 bits in the checkpoint."""
    types = {name: checkpoint.entries[checkpoint.key(name)].dtype for name in names}
    return {name: dtype for name, dtype in types.items() if dtype in HALVES}


@contextmanager
def loaded_as(types: Mapping[str, torch.dtype]) -> Iterator[None]:
    """Within: transformers loads the parameters that ``types`` names in those types, as it does with those that it
    keeps in fp32 anyway."""
    before = PreTrainedModel._get_dtype_plan
    patched: Any = PreTrainedModel
    patched._get_dtype_plan = lambda model, dtype: {**before(model, dtype), **types}
    try:
        yield
    finally:
        patched._get_dtype_plan = before


def hold(module: Any, types: Mapping[str, torch.dtype], dtype: torch.dtype) -> None:
    """Makes the embeddings and the head of ``module`` whose parameters ``types`` names compute in ``dtype``."""
    held = {id(module.get_parameter(name)) for name in types}
    embedding, head = module.get_input_embeddings(), module.get_output_embeddings()
    # Before the embedding, since a tied head has the same table.
    if id(head.weight) in held:
        module.set_output_embeddings(Head(head.weight.data, head.bias, dtype))
    if id(embedding.weight) in held:
        _look_up_in_rows(embedding, dtype)


def rows(table: Any) -> int:
    """Tokens that an embedding or a head has."""
    return len(table.table if isinstance(table, Rows | Head) else table.weight)


class Rows(nn.Embedding):
    """An embedding whose ``table`` has other numbers than it gives; its ``weight`` has no row and their type."""

    table: Tensor

    def forward(self, input: Tensor) -> Tensor:
        """Rows of the table."""
        return F.embedding(input, self.table).to(self.weight.dtype)


def _look_up_in_rows(embedding: Any, dtype: torch.dtype) -> None:
    """Makes ``embedding`` a `Rows` that does all else as its own class does it (Gemma's scales what it finds)."""
    kind = type(embedding)
    embedding.table = embedding.weight.data
    embedding.weight = _nothing(embedding.table, dtype)
    embedding.__class__ = Rows if kind is nn.Embedding else type(kind.__name__, (kind, Rows), {})


class Head(nn.Module):
    """y = x·Wᵀ + b with a ``table`` W (tokens, hidden) in other numbers than x; its ``weight`` has no row."""

    def __init__(self, table: Tensor, bias: Tensor | None, dtype: torch.dtype) -> None:
        super().__init__()
        self.table, self.bias, self.weight = table, bias, _nothing(table, dtype)
        self.spans = spans_of(DenseWeight(table), dtype)

    def forward(self, input: Tensor) -> Tensor:
        """``input`` (…, hidden) to (…, tokens)."""
        return cast("Tensor", _Product.apply(input, self))  # type: ignore[no-untyped-call]


class _Product(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, head: Head) -> Tensor:
        ctx.head = head
        flat = x.reshape(-1, x.shape[-1])
        out = x.new_empty(len(flat), len(head.table))
        for first, last in head.spans if len(flat) else ():
            torch.mm(flat, head.table[first:last].to(x.dtype).t(), out=out[:, first:last])
        if head.bias is not None:
            out += head.bias
        return out.view(*x.shape[:-1], len(head.table))

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        head = ctx.head
        found = gradient.new_zeros(*gradient.shape[:-1], head.table.shape[1])
        for first, last in head.spans:
            found += gradient[..., first:last] @ head.table[first:last].to(gradient.dtype)
        return found, None


def _nothing(table: Tensor, dtype: torch.dtype) -> nn.Parameter:
    return nn.Parameter(table.new_empty(0, table.shape[1], dtype=dtype), requires_grad=False)
