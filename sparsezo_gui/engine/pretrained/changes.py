"""What was tuned in one weight: single entries, or a product of low rank."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from sparsezo_gui.engine.pretrained.weights import Entry
from sparsezo_gui.errors import UserError, quoted


class Change(ABC):
    """What was tuned in one weight."""

    @abstractmethod
    def applied(self, weight: Tensor) -> Tensor:
        """``weight`` (out, in), fp32, with the change; may be the same tensor, changed in place."""


@dataclass(frozen=True, eq=False)
class Entries(Change):
    """The entries at ``indices`` (int64, flat in (out, in)) take the ``values`` (fp32), or grow by them (``added``)."""

    indices: Tensor
    values: Tensor
    added: bool

    def applied(self, weight: Tensor) -> Tensor:
        """See `Change.applied`."""
        weight.view(-1).index_put_((self.indices,), self.values, accumulate=self.added)
        return weight


@dataclass(frozen=True, eq=False)
class LowRank(Change):
    """Adds ``scale``·B·A; ``a`` (r, in) and ``b`` (out, r) are read from their file when needed."""

    name: str
    a: Entry
    b: Entry
    scale: float

    def product(self) -> tuple[Tensor, Tensor, float]:
        """``a``, ``b`` and ``scale``, fp32. Raises `UserError` if they are not finite."""
        a, b = (finite_change(each.file, self.name, each.read().float()) for each in (self.a, self.b))
        return a, b, self.scale

    def applied(self, weight: Tensor) -> Tensor:
        """See `Change.applied`."""
        a, b, scale = self.product()
        return weight.addmm_(b, a, alpha=scale)


def finite_change(what: object, name: str, tensor: Tensor) -> Tensor:
    """``tensor``. Raises `UserError` if it is not finite."""
    if not bool(torch.isfinite(tensor).all()):
        raise UserError(f"{what}: its values for {quoted(name)} contain NaN or infinity. Download or export it again.")
    return tensor
