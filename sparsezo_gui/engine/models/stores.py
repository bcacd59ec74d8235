"""How a frozen weight is held: in 4 bits, in 8 bits, or as it is. Stores are read only."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from bitsandbytes.functional import QuantState, dequantize_4bit
from torch import Tensor


class Store(ABC):
    """A frozen weight of ``shape`` (out, in)."""

    shape: tuple[int, int]

    @abstractmethod
    def dense(self, dtype: torch.dtype) -> Tensor:
        """The weight (out, in) in ``dtype``: a fresh tensor that the caller may write to."""

    @property
    @abstractmethod
    def nbytes(self) -> int:
        """Bytes held, quantisation statistics included."""


@dataclass(frozen=True)
class NF4(Store):
    """bitsandbytes NF4: two codes a byte and an fp32 scale per block of 64 (QLoRA, arXiv 2305.14314)."""

    packed: Tensor
    state: QuantState

    @property
    def shape(self) -> tuple[int, int]:
        """(out, in)."""
        return tuple(self.state.shape)

    def dense(self, dtype: torch.dtype) -> Tensor:
        """See `Store.dense`."""
        return dequantize_4bit(self.packed, self.state).to(dtype)

    @property
    def nbytes(self) -> int:
        """See `Store.nbytes`."""
        return self.packed.nbytes + self.state.absmax.nbytes


@dataclass(frozen=True)
class Int8(Store):
    """int8 codes (out, in) and the largest magnitude of each row (out,), as LLM.int8() holds them (arXiv 2208.07339).
    """

    codes: Tensor
    scales: Tensor

    @property
    def shape(self) -> tuple[int, int]:
        """(out, in)."""
        return tuple(self.codes.shape)

    def dense(self, dtype: torch.dtype) -> Tensor:
        """See `Store.dense`."""
        return (self.codes * (self.scales.float() / 127).unsqueeze(1)).to(dtype)

    @property
    def nbytes(self) -> int:
        """See `Store.nbytes`."""
        return self.codes.nbytes + self.scales.nbytes


@dataclass(frozen=True)
class Dense(Store):
    """The weight (out, in) itself, in 16 or 32 bits."""

    weight: Tensor

    @property
    def shape(self) -> tuple[int, int]:
        """(out, in)."""
        return tuple(self.weight.shape)

    def dense(self, dtype: torch.dtype) -> Tensor:
        """See `Store.dense`."""
        return self.weight.to(dtype, copy=True)

    @property
    def nbytes(self) -> int:
        """See `Store.nbytes`."""
        return self.weight.nbytes
