"""Tuned values: one flat vector that acts on the frozen model as its space says.

The frozen weights are never modified, except by the dense space, whose values are the weights themselves. The values of
a space are in one file with its description, which is read before torch is loaded; so nothing here imports torch at the
top.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from hashlib import sha256
from typing import TYPE_CHECKING, Any, NamedTuple

from sparsezo_gui.engine.layers.patch import Patch
from sparsezo_gui.errors import UserError
from sparsezo_gui.recipe.registry import SPACES

if TYPE_CHECKING:
    from torch import Tensor

    from sparsezo_gui.engine.frozen import FrozenModel
    from sparsezo_gui.engine.layers.patch import Owners
    from sparsezo_gui.engine.spaces.mask import Mask
    from sparsezo_gui.engine.spaces.space import Space
    from sparsezo_gui.engine.zo.estimators import Estimator
    from sparsezo_gui.engine.zo.generator import Source

HASHED = 2**20  # values at a time


class Product(NamedTuple):
    """The change of a weight (out, in) as a product, ``scale``·B·A: ``a`` (r, in) and ``b`` (out, r), fp32, CPU."""

    a: Tensor
    b: Tensor
    scale: float


class TunedValues(ABC):
    """Base: ``values`` (n,) of ``mask`` on ``model``; ``start`` (n,) are the original values.

    If there are as many values as weights, ``start`` is an object that reads ``start[part]`` instead of a tensor.
    """

    model: FrozenModel
    mask: Mask
    values: Tensor
    start: Any
    slices: dict[str, slice]
    """Slices of the values by weight name, in the order of `Space.counts`."""

    def __init__(self, model: FrozenModel, mask: Mask) -> None:
        self.model, self.mask, self.slices = model, mask, {}
        first = 0
        for name, count in self.space.counts(mask, model.spec).items():
            self.slices[name] = slice(first, first + count)
            first += count

    @property
    def space(self) -> Space:
        """How they act on the weights."""
        return SPACES[self.mask.space]

    def reset(self) -> None:
        """Restores the original values."""
        self.values.copy_(self.start)

    def draw(self, estimator: Estimator, source: Source, batch_size: int) -> Any:
        """Random numbers for `shape`, independent of the values: a replay draws them ahead."""
        return estimator.draw(source, batch_size)

    def shape(self, estimator: Estimator, drawn: Any, step: int, state: Any, basis: Tensor | None = None) -> Any:
        """The directions of ``step``, (q, n), a tensor or `sparsezo_gui.engine.zo.updates.Pieces`, from the ``drawn``
        numbers; ``basis`` (k, n) replaces that of the mask."""
        directions = estimator.shape(drawn, state)
        if estimator.suffix:
            kept = tuple(last_blocks(self.model, estimator.suffix))
            for name, part in self.slices.items():
                if name.startswith(kept):
                    directions[:, part] = 0
        return directions

    @property
    def freedom(self) -> int:
        """Number of random numbers in a direction."""
        return self.values.numel()

    @abstractmethod
    def probed(self, directions: Any, offsets: Tensor) -> AbstractContextManager[None]:
        """Inside, the model runs with values + ``offsets`` (points, q) · ``directions`` (q, n)."""

    def per_example(self, directions: Any, offsets: Tensor, owners: Owners) -> AbstractContextManager[None]:
        """Inside, the model runs example i with values + offsets·(direction i), for ``directions`` (examples, n) and
        ``offsets`` (points,); ``owners`` says which example a row belongs to. Only single weights support it."""
        raise UserError("This [mask] does not support directions per example. Set [estimator] rule = 'two-sided'.")

    @abstractmethod
    def applied(self) -> AbstractContextManager[None]:
        """Inside, the model runs with the current values."""

    @abstractmethod
    def base(self) -> AbstractContextManager[None]:
        """Inside, the model runs with the original values."""

    @abstractmethod
    def changes(self, held: bool = False) -> Mapping[str, tuple[Tensor, Tensor]]:
        """(indices int32, values fp32) of every changed weight, on the CPU; changes of whole matrices are added to the
        checkpoint's weight, or to the ``held`` (quantised) one."""

    def products(self) -> Mapping[str, Product]:
        """What was added to each weight, by name, if the space adds products of low rank; else nothing. Raises
        `UserError` if they would be larger than the weights."""
        return {}

    @abstractmethod
    def project(self, name: str, gradient: Tensor, x: Tensor) -> Tensor:
        """The gradient (k,) of the values of weight ``name``, fp32, from that at its layer's output, ``gradient``
        (rows, out), and the layer's input ``x`` (rows, in): their product gradientᵀ·x is the weight's own gradient.
        Called where the model runs: inside `probed`, at its first point."""

    def hash(self) -> str:
        """SHA-256 of the values' fp32 bits."""
        digest = sha256()
        for part in self.values.split(HASHED):
            digest.update(part.float().cpu().numpy().astype("<f4").data)
        return digest.hexdigest()

    @contextmanager
    def _held(self, tuned: dict[str, Patch], points: int = 1) -> Iterator[None]:
        """Inside, the layers hold their ``tuned`` values, by name."""
        try:
            for name, layer in self.model.tunable.items():
                layer.patch = tuned.get(name) or Patch(points)
            yield
        finally:
            for layer in self.model.tunable.values():
                layer.patch = None


class CopiedValues(TunedValues):
    """Base of values few enough to be copied for every point."""

    @abstractmethod
    def patches(self, points: Tensor) -> dict[str, Patch]:
        """What ``points`` (points, n) change in each weight, by name; weights left out stay as they are."""

    def probed(self, directions: Tensor, offsets: Tensor) -> AbstractContextManager[None]:
        """See `TunedValues.probed`."""
        return self.applied(self.values + offsets.to(directions) @ directions)

    def applied(self, points: Tensor | None = None) -> AbstractContextManager[None]:
        """Inside, the model runs with ``points`` (points, n), or with the current values."""
        points = self.values.unsqueeze(0) if points is None else points
        return self._held(self.patches(points), len(points))

    def base(self) -> AbstractContextManager[None]:
        """See `TunedValues.base`."""
        return self.applied(self.start.unsqueeze(0))

    def changes(self, held: bool = False) -> Mapping[str, tuple[Tensor, Tensor]]:
        """See `TunedValues.changes`. Weights with a changed value change as wholes, computed one at a time, on
        access."""
        import torch

        moved = [name for name, part in self.slices.items() if not torch.equal(self.values[part], self.start[part])]
        patches = self.patches(self.values.unsqueeze(0))

        def weight(name: str) -> Tensor:
            whole = self.model.layers[name].frozen.dense(torch.float32) if held else self.model.original(name).float()
            return patches[name].whole(whole.to(self.values.device, copy=True)).cpu()

        return WholeWeights(moved, weight)


def tuned_values(model: FrozenModel, mask: Mask) -> TunedValues:
    """The values of ``mask`` on ``model``, at their start. Raises `UserError` if they do not fit it."""
    return SPACES[mask.space].tuned_values(model, mask)


def last_blocks(model: FrozenModel, count: int) -> Iterator[str]:
    """The name prefixes of the last ``count`` decoder blocks."""
    path = model.spec.blocks
    total = len(model.module.get_submodule(path))
    yield from (f"{path}.{number}." for number in range(max(0, total - count), total))


def words_of(seed: int) -> list[int]:
    """A seed as four 16-bit words, lowest first, which a part of a mask can hold."""
    return [seed >> 16 * place & 0xFFFF for place in range(4)]


def seed_of(words: Sequence[int]) -> int:
    """The seed of `words_of`. Raises ValueError."""
    if len(words) != 4 or not all(0 <= word < 2**16 for word in words):
        raise ValueError("its seed is invalid")
    return sum(word << 16 * place for place, word in enumerate(words))


class WholeWeights(Mapping[str, "tuple[Tensor, Tensor]"]):
    """All entries of the weights ``names``: their indices, and their values from ``weight``."""

    def __init__(self, names: Sequence[str], weight: Callable[[str], Tensor]) -> None:
        self._names = dict.fromkeys(names)
        self._weight = weight

    def __getitem__(self, name: str) -> tuple[Tensor, Tensor]:
        import torch

        if name not in self._names:
            raise KeyError(name)
        values = self._weight(name).flatten()
        return torch.arange(values.numel(), dtype=torch.int32), values

    def __contains__(self, name: object) -> bool:
        return name in self._names

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)
