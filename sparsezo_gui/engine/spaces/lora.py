"""LoRA adapters: an effective weight is W + 2·B·A, beside a frozen W that stays quantised; A and B are both tuned.

The values of a weight are its A (r, in), and then its B (out, r), each row by row. B starts at zero, which leaves the
frozen model unchanged, and A with normal values of variance 1/r: A·x is then as long as x, so that a step of B changes
outputs about as much as the same step of all entries of W would. The factor α/r is 2 (α = 2r), whatever the rank.

The mask has a part for each tuned weight, its rank, under the weight's name; and the part "seed", from which A is
drawn: the four 16-bit words of the seed, lowest first.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from sparsezo_gui.engine.layers.patch import AdapterPatch, Patch
from sparsezo_gui.engine.spaces.space import Space
from sparsezo_gui.engine.spaces.values import CopiedValues, Product, TunedValues, seed_of, words_of
from sparsezo_gui.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor

    from sparsezo_gui.engine.frozen import FrozenModel
    from sparsezo_gui.engine.passes import Shape
    from sparsezo_gui.engine.pretrained.spec import ModelSpec
    from sparsezo_gui.engine.spaces.mask import Mask
    from sparsezo_gui.recipe.recipe import Recipe

SEED = "seed"  # name of the part
SCALE = 2.0  # α/r


class LoraSpace(Space):
    """Two small matrices beside each tuned weight, whose product is added to it; the mask has ranks and a seed."""

    relation: ClassVar[str] = "values of LoRA adapters beside"
    whole_weights: ClassVar[str] = "trained LoRA adapters, which change whole matrices"

    def tuned_values(self, model: FrozenModel, mask: Mask) -> TunedValues:
        """See `Space.tuned_values`."""
        return LoraValues(model, mask)

    def counts(self, mask: Mask, spec: ModelSpec) -> Mapping[str, int]:
        """See `Space.counts`."""
        return adapters_of(mask, spec.linears).sizes

    def layer_bytes(self, recipe: Recipe, spec: ModelSpec, shape: Shape, largest: int) -> int:
        """See `Space.layer_bytes`: what the adapter gives in fp32, and its input where activations have 16 bits."""
        return 4 * shape.rows * (spec.widest + (spec.intermediate if shape.width < 4 else 0))


@dataclass(frozen=True)
class Adapters:
    """Adapters of some of the weights of ``shapes``: their ``ranks`` by name, in the model's order."""

    shapes: Mapping[str, tuple[int, int]]
    ranks: Mapping[str, int]
    seed: int

    @property
    def parts(self) -> dict[str, Tensor]:
        """The mask's parts, as read by `adapters_of`."""
        import torch

        ranks = {name: torch.tensor([float(rank)]) for name, rank in self.ranks.items()}
        return {**ranks, SEED: torch.tensor(words_of(self.seed), dtype=torch.float32)}

    @property
    def sizes(self) -> dict[str, int]:
        """Number of values of each weight."""
        return {name: rank * sum(self.shapes[name]) for name, rank in self.ranks.items()}

    def start(self, name: str) -> Tensor:
        """The first A (r, in) of a weight, fp32; it does not depend on which other weights have adapters."""
        from sparsezo_gui.engine.zo import generator

        rank, columns, place = self.ranks[name], self.shapes[name][1], list(self.shapes).index(name)
        drawn = generator.normal(self.seed, 0, place, rank * columns, stream=generator.Stream.LORA)
        return drawn.view(rank, columns) * float(rank**-0.5)

    def split(self, name: str, points: Tensor) -> tuple[Tensor, Tensor]:
        """A (points, r, in) and B (points, out, r) in a weight's values, (points, n)."""
        (rows, columns), rank = self.shapes[name], self.ranks[name]
        a, b = points.split([rank * columns, rows * rank], dim=1)
        return a.unflatten(1, (rank, columns)), b.unflatten(1, (rows, rank))


def adapters_of(mask: Mask, shapes: Mapping[str, tuple[int, int]]) -> Adapters:
    """The adapters that a ``mask`` describes, for the eligible weights of ``shapes``. Raises `UserError`."""
    try:
        given = {name: int(part.item()) for name, part in mask.parts.items() if name != SEED}
        if not all(1 <= rank <= min(shapes[name]) for name, rank in given.items()):
            raise ValueError("a rank is invalid")
        seed = seed_of([int(word) for word in mask.parts[SEED].tolist()])
        found = Adapters(shapes, {name: given[name] for name in shapes if name in given}, seed)
        if sum(found.sizes.values()) != mask.size:
            raise ValueError("the number of values differs")
    except (ValueError, KeyError, OverflowError, TypeError, RuntimeError) as error:
        raise UserError(f"This LoRA mask does not fit the model ({error}). Find the mask again.") from error
    return found


class LoraValues(CopiedValues):
    """A and B of each weight."""

    def __init__(self, model: FrozenModel, mask: Mask) -> None:
        import torch

        super().__init__(model, mask)
        self.adapters = adapters_of(mask, model.spec.linears)
        self.start = torch.zeros(mask.size)
        for name, part in self.slices.items():
            drawn = self.adapters.start(name).flatten()
            self.start[part.start : part.start + len(drawn)] = drawn
        self.start = self.start.to(model.device)
        self.values = self.start.clone()

    def patches(self, points: Tensor) -> dict[str, Patch]:
        """See `CopiedValues.patches`."""
        return {name: self._patch(name, points) for name in self.slices}

    def _patch(self, name: str, points: Tensor) -> AdapterPatch:
        return AdapterPatch(len(points), *self.adapters.split(name, points[:, self.slices[name]]), SCALE)

    def products(self) -> Mapping[str, Product]:
        """See `TunedValues.products`: A and B themselves."""
        found = {name: self.adapters.split(name, self.values[None, part]) for name, part in self.slices.items()}
        return {name: Product(a[0].cpu(), b[0].cpu(), SCALE) for name, (a, b) in found.items()}

    def base(self) -> AbstractContextManager[None]:
        """See `TunedValues.base`: without adapters, since all of B is zero at the start."""
        return self._held({})

    def project(self, name: str, gradient: Tensor, x: Tensor) -> Tensor:
        """See `TunedValues.project`."""
        held = self.model.layers[name].patch
        patch = held if isinstance(held, AdapterPatch) else self._patch(name, self.values[None])
        return patch.project(gradient.float(), x.float())
