"""How a frozen weight is held: in 4 bits, in 8 bits, or as it is. Stores are read only."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import Tensor

from sparsezo_gui.engine.bnb import QuantState, dequantize_4bit, dequantize_blockwise


class FrozenWeight(ABC):
    """A frozen weight of ``shape`` (out, in)."""

    @property
    @abstractmethod
    def shape(self) -> tuple[int, int]:
        """(out, in)."""

    @property
    def grain(self) -> int:
        """Rows of a part begin at a multiple of this; 0 where the weight can only be read in one piece."""
        return 1

    @abstractmethod
    def dense(self, dtype: torch.dtype, first: int = 0, last: int | None = None) -> Tensor:
        """The weight (out, in), or its rows from ``first`` to before ``last``, in ``dtype``: a fresh tensor that the
        caller may write to."""

    def read(self, dtype: torch.dtype, first: int = 0, last: int | None = None) -> Tensor:
        """The same, but the caller must not write to it."""
        return self.dense(dtype, first, last)

    @property
    @abstractmethod
    def tensors(self) -> tuple[Tensor, ...]:
        """All that is held, quantisation statistics included."""

    @abstractmethod
    def made_of(self, *tensors: Tensor) -> Self:
        """The same weight in copies of its `tensors`."""

    @property
    def nbytes(self) -> int:
        """Bytes held."""
        return sum(tensor.nbytes for tensor in self.tensors)

    @property
    def device(self) -> torch.device:
        """Where it is held."""
        return self.tensors[0].device

    def to(self, device: torch.device) -> Self:
        """A copy on ``device``, which from pinned memory is made without anybody waiting."""
        return self.made_of(*(tensor.to(device, non_blocking=True, copy=True) for tensor in self.tensors))

    def pinned(self) -> Self:
        """A copy in memory from which a GPU fetches without the CPU."""
        return self.made_of(*(tensor.pin_memory() for tensor in self.tensors))

    def used_by(self, stream: Any) -> None:
        """Tells the allocator that a computation in ``stream`` reads it."""
        for tensor in self.tensors:
            tensor.record_stream(stream)


@dataclass(frozen=True)
class NF4Weight(FrozenWeight):
    """NF4 (QLoRA, arXiv 2305.14314): two codes a byte and a scale per block of weights, fp32 per 64 as bitsandbytes
    quantises, or bf16 per 32 as `sparsezo_gui.engine.layers.quantise` does."""

    packed: Tensor
    state: QuantState

    @classmethod
    def of(cls, packed: Tensor, state: QuantState) -> NF4Weight:
        """A weight as bitsandbytes quantised it; scales that were themselves quantised are made whole."""
        if state.nested:
            scales = dequantize_blockwise(state.absmax, state.state2) + state.offset
            state = QuantState(scales, state.shape, state.code, state.blocksize, state.quant_type, state.dtype)
        return cls(packed, state)

    @property
    def shape(self) -> tuple[int, int]:
        """(out, in)."""
        return tuple(self.state.shape)

    @property
    def grain(self) -> int:
        """Rows that begin where a block of weights with one scale does."""
        columns, block = self.shape[1], self.state.blocksize
        return 0 if columns % 2 else block // math.gcd(columns, block)

    def dense(self, dtype: torch.dtype, first: int = 0, last: int | None = None) -> Tensor:
        """See `FrozenWeight.dense`."""
        state, columns, last = self.state, self.shape[1], self.shape[0] if last is None else last
        if columns % 2:
            return dequantize_4bit(self.packed, self._with(state.absmax.float(), state.code)).to(dtype)
        count, block = (last - first) * columns, state.blocksize
        packed = self.packed.view(-1)[first * columns // 2 : last * columns // 2]
        scales = state.absmax[first * columns // block : -(-last * columns // block)].float()
        # bitsandbytes 0.50 on AVX-512 takes wrong scales where a row ends within a block of weights with one scale, so
        # that it is given one such block a row, or a single row (https://github.com/bitsandbytes-foundation
        # /bitsandbytes/pull/2072 indexes the flattened tensor).
        shape = (1, count) if count % block else (count // block, block)
        dequantise = torch.ops.bitsandbytes.dequantize_4bit
        weight: Tensor = dequantise(packed, scales, block, state.quant_type, shape, state.dtype)
        return weight.view(last - first, columns).to(dtype)

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        """See `FrozenWeight.tensors`."""
        return (self.packed, self.state.absmax)

    def made_of(self, *tensors: Tensor) -> NF4Weight:
        """See `FrozenWeight.made_of`."""
        (packed, scales), state = tensors, self.state
        # The table of the 16 values is read only where the library's own function dequantises.
        code = state.code if self.grain else state.code.to(packed.device)
        return NF4Weight(packed, self._with(scales, code))

    def _with(self, scales: Tensor, code: Tensor) -> QuantState:
        state = self.state
        return QuantState(scales, state.shape, code, state.blocksize, state.quant_type, state.dtype)


@dataclass(frozen=True)
class Int8Weight(FrozenWeight):
    """int8 codes (out, in) and the largest magnitude of each row (out,), as in LLM.int8() (arXiv 2208.07339)."""

    codes: Tensor
    scales: Tensor

    @property
    def shape(self) -> tuple[int, int]:
        """(out, in)."""
        rows, columns = self.codes.shape
        return rows, columns

    def dense(self, dtype: torch.dtype, first: int = 0, last: int | None = None) -> Tensor:
        """See `FrozenWeight.dense`."""
        return (self.codes[first:last] * (self.scales[first:last].float() / 127).unsqueeze(1)).to(dtype)

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        """See `FrozenWeight.tensors`."""
        return (self.codes, self.scales)

    def made_of(self, *tensors: Tensor) -> Int8Weight:
        """See `FrozenWeight.made_of`."""
        return Int8Weight(*tensors)


@dataclass(frozen=True)
class DenseWeight(FrozenWeight):
    """The weight (out, in) itself, in 16 or 32 bits."""

    weight: Tensor

    @property
    def shape(self) -> tuple[int, int]:
        """(out, in)."""
        rows, columns = self.weight.shape
        return rows, columns

    def dense(self, dtype: torch.dtype, first: int = 0, last: int | None = None) -> Tensor:
        """See `FrozenWeight.dense`."""
        return self.weight[first:last].to(dtype, copy=True)

    def read(self, dtype: torch.dtype, first: int = 0, last: int | None = None) -> Tensor:
        """See `FrozenWeight.read`."""
        return self.weight[first:last].to(dtype)

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        """See `FrozenWeight.tensors`."""
        return (self.weight,)

    def made_of(self, *tensors: Tensor) -> DenseWeight:
        """See `FrozenWeight.made_of`."""
        return DenseWeight(*tensors)
