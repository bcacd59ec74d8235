"""Low-rank tuned values: cores between fixed bases, next to frozen weights that stay quantised.

An effective weight is W + Σ left·core·rightᵀ. All cores start at zero, which leaves the frozen model unchanged. Two
kinds:

- Random subspaces, one after the other (`Subspaces`): left and right are drawn from the seed, and a core is (r, r). The
  cores of earlier subspaces stay unchanged, and directions outside the current one are zero. The bases are many times
  larger than the cores, so the mask stores only what they are drawn from: its part "subspaces" holds rank, refresh,
  count, and the four 16-bit words of the seed, lowest first. Bases are drawn when a core first differs from zero. QR
  may give different last bits on another computer; a replay is not affected, because it only moves cores.
- Given bases (`Given`): a part of the mask for each tuned weight, A (r, in), under the weight's name; left is the
  identity, and the core is (out, r).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar, cast

from sparsezo_gui.engine.layers.patch import LowRankPatch, Patch
from sparsezo_gui.engine.spaces.space import Space
from sparsezo_gui.engine.spaces.values import CopiedValues, Product, TunedValues, seed_of, words_of
from sparsezo_gui.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor

    from sparsezo_gui.engine.frozen import FrozenModel
    from sparsezo_gui.engine.pretrained.spec import ModelSpec
    from sparsezo_gui.engine.spaces.mask import Mask
    from sparsezo_gui.engine.zo.estimators import Estimator
    from sparsezo_gui.engine.zo.generator import Stream
    from sparsezo_gui.recipe.recipe import Recipe

SUBSPACES = "subspaces"  # name of the part
Shapes = Mapping[str, tuple[int, int]]
Factors = dict[str, tuple["Tensor | None", "Tensor"]]
"""Left (out, a), None for the identity, and right (in, r) by weight."""


class LowRankSpace(Space):
    """Small cores between bases of each weight, added to it; the mask has the bases, or what they are drawn from."""

    relation: ClassVar[str] = "values that change all"
    whole_weights: ClassVar[str] = "changed whole matrices in a low-rank subspace"

    def tuned_values(self, model: FrozenModel, mask: Mask) -> TunedValues:
        """See `Space.tuned_values`."""
        return LowRankValues(model, mask)

    def refusal(self, recipe: Recipe) -> str:
        """See `Space.refusal`."""
        mask, estimator, update = recipe.mask, recipe.estimator, recipe.update
        if mask.count > 1 and (estimator.exact or update.long or update.decay):
            if estimator.exact:
                part = f"[estimator] rule = '{estimator.rule}'"
            else:
                part = f"[update] rule = '{update.rule}'" if update.long else f"[update] decay = {update.decay:g}"
            return (
                f"[mask] rule = '{mask.rule}' switches between {mask.count} subspaces, and {part} would also change "
                "those that wait. Set [mask] refresh = 0 to keep one subspace, or [estimator] rule = "
                "'two-sided' with [update] rule = 'scalar-normalised' and decay = 0."
            )
        return super().refusal(recipe)

    def counts(self, mask: Mask, spec: ModelSpec) -> Mapping[str, int]:
        """See `Space.counts`."""
        return {name: math.prod(core) for name, core in bases_of(mask, spec.linears).cores.items()}


@dataclass(frozen=True)
class Subspaces:
    """``count`` random subspaces of weights of ``shapes``; each is used for ``refresh`` steps (0: for ever), and the
    first follows the last."""

    shapes: Shapes
    rank: int
    refresh: int
    count: int
    seed: int

    @classmethod
    def read(cls, part: Tensor, shapes: Shapes) -> Subspaces:
        """From the mask's part. Raises ValueError and others."""
        rank, refresh, count, *words = (int(number) for number in part.tolist())
        if min(rank, refresh + 1, count) < 1:
            raise ValueError("its subspaces are invalid")
        return cls(shapes, rank, refresh, count, seed_of(words))

    @property
    def part(self) -> Tensor:
        """The mask's part, as read by `read`."""
        import torch

        return torch.tensor([self.rank, self.refresh, self.count, *words_of(self.seed)], dtype=torch.float32)

    @property
    def cores(self) -> dict[str, tuple[int, int, int]]:
        """Shape of the cores, (subspaces, a, r), of each weight; ranks are limited by the weight's size."""
        ranks = {name: min(self.rank, *shape) for name, shape in self.shapes.items()}
        return {name: (self.count, rank, rank) for name, rank in ranks.items()}

    def present(self, step: int) -> int:
        """Number of the subspace used in ``step`` (from 1)."""
        return max(0, step - 1) // self.refresh % self.count if self.refresh else 0

    def factors(self, number: int) -> Factors:
        """The bases of a subspace. They include √(out/r) and √(in/r), so that a normal core changes a weight as much as
        normal values for all its entries would."""
        found: Factors = {}
        for place, (name, shape) in enumerate(self.shapes.items()):
            rank = min(self.rank, *shape)
            left, right = (
                orthonormal(self._drawn(number, 2 * place + side, size, rank)) * math.sqrt(size / rank)
                for side, size in enumerate(shape)
            )
            found[name] = left, right
        return found

    def _drawn(self, number: int, side: int, size: int, rank: int) -> Tensor:
        from sparsezo_gui.engine.zo import generator

        return generator.normal(self.seed, number, side, size * rank, stream=generator.Stream.BASES).view(size, rank)


@dataclass(frozen=True)
class Given:
    """The same bases for the whole run: ``parts`` A (r, in) of weights of ``shapes``."""

    shapes: Shapes
    parts: Mapping[str, Tensor]
    count = 1

    @classmethod
    def read(cls, parts: Mapping[str, Tensor], shapes: Shapes) -> Given:
        """From the mask's parts. Raises ValueError and others."""
        if any(part.dim() != 2 or part.shape[1] != shapes[name][1] for name, part in parts.items()):
            raise ValueError("its bases do not fit their weights")
        return cls(shapes, {name: parts[name] for name in shapes if name in parts})

    @property
    def cores(self) -> dict[str, tuple[int, int, int]]:
        """See `Subspaces.cores`."""
        return {name: (1, self.shapes[name][0], len(part)) for name, part in self.parts.items()}

    def present(self, step: int) -> int:
        """See `Subspaces.present`."""
        return 0

    def factors(self, number: int) -> Factors:
        """The bases."""
        return {name: (None, part.t()) for name, part in self.parts.items()}


def bases_of(mask: Mask, shapes: Shapes) -> Subspaces | Given:
    """The bases that a low-rank ``mask`` describes, for the eligible weights of ``shapes``. Raises `UserError`."""
    try:
        subspaces = mask.parts.get(SUBSPACES)
        found = Given.read(mask.parts, shapes) if subspaces is None else Subspaces.read(subspaces, shapes)
        if sum(map(math.prod, found.cores.values())) != mask.size:
            raise ValueError("the number of values differs")
    except (ValueError, KeyError, OverflowError, TypeError) as error:
        raise UserError(f"This low-rank mask does not fit the model ({error}). Find the mask again.") from error
    return found


def start_basis(seed: int, place: int, size: int, rank: int, stream: Stream | None = None) -> Tensor:
    """Orthonormal columns (size, rank), fp32, drawn from ``seed``, to start a search for better ones."""
    from sparsezo_gui.engine.zo import generator

    drawn = generator.normal(seed, 0, place, size * rank, stream=stream or generator.Stream.SEARCHES)
    return orthonormal(drawn.view(size, rank))


def orthonormal(columns: Tensor) -> Tensor:
    """Orthonormal columns with the same span as ``columns`` (n, r), fp32: by QR in fp64 on the CPU, with signs that
    make the diagonal of R positive, so that the result is unique."""
    import torch

    q, r = torch.linalg.qr(columns.double().cpu())
    return cast("Tensor", (q * torch.where(r.diagonal() < 0, -1.0, 1.0)).float())


class LowRankValues(CopiedValues):
    """Low-rank cores; the values of a weight are its cores, ordered by subspace."""

    def __init__(self, model: FrozenModel, mask: Mask) -> None:
        import torch

        super().__init__(model, mask)
        self.bases = bases_of(mask, model.spec.linears)
        self.values = torch.zeros(mask.size, device=model.device)
        self.start = self.values.clone()
        self._held_factors: dict[int, Factors] = {}

    @cached_property
    def numbers(self) -> Tensor:
        """The subspace of each value, from 1, int32 (n,)."""
        import torch

        found = [torch.arange(1, count + 1, dtype=torch.int32).repeat_interleave(rows * rank)
                 for count, rows, rank in self.bases.cores.values()]  # fmt: skip
        return torch.cat(found or [torch.empty(0, dtype=torch.int32)]).to(self.values.device)

    def shape(self, estimator: Estimator, drawn: Any, step: int, state: Any, basis: Tensor | None = None) -> Any:
        """See `TunedValues.shape`: zero outside the current subspace."""
        directions = super().shape(estimator, drawn, step, state)
        if self.bases.count == 1:
            return directions
        return directions.masked_fill(self.numbers != 1 + self.bases.present(step), 0.0)

    def patches(self, points: Tensor) -> dict[str, Patch]:
        """See `CopiedValues.patches`. Subspaces without a changed value are left out."""
        used = self._used(points)
        factors = [self._factors(number) for number in range(used)]
        return {
            name: LowRankPatch(len(points), [each[name] for each in factors], self._cores(name, points)[:, :used])
            for name in (self.slices if used else ())
        }

    def _used(self, points: Tensor) -> int:
        """How many of the subspaces, from the first on, have a changed value."""
        return int((self.numbers * (points != 0)).max()) if points.numel() else 0

    def products(self) -> Mapping[str, Product]:
        """See `TunedValues.products`: the bases of all subspaces used so far, side by side."""
        points = self.values[None]
        used = max(self._used(points), 1)
        shapes = {name: self.model.spec.linears[name] for name in self.slices}
        ranks = {name: used * self.bases.cores[name][2] for name in shapes}
        if used > 1 and sum(ranks[name] * sum(shapes[name]) for name in ranks) > sum(map(math.prod, shapes.values())):
            raise UserError(
                f"Together, the {used} subspaces that this run has used have rank {max(ranks.values())}, and an "
                "adapter of that rank would be larger than the weights. Export it with --format hf."
            )
        return {name: self._product([self._factors(k)[name] for k in range(used)], self._cores(name, points)[0])
                for name in self.slices}  # fmt: skip

    def _product(self, factors: Sequence[tuple[Tensor | None, Tensor]], cores: Tensor) -> Product:
        import torch

        both = list(zip(factors, cores[: len(factors)].float(), strict=True))
        b = torch.cat([core if left is None else left.float() @ core for (left, _), core in both], dim=1)
        return Product(torch.cat([right.float() for _, right in factors], dim=1).mT.cpu(), b.cpu(), 1.0)

    def _cores(self, name: str, points: Tensor) -> Tensor:
        cores: Tensor = points[:, self.slices[name]].unflatten(1, self.bases.cores[name])
        return cores

    def _factors(self, number: int) -> Factors:
        """The bases of a subspace, on the device and in the compute type."""
        if number not in self._held_factors:
            kind = self.model.device, self.model.dtype
            self._held_factors[number] = {
                name: (None if left is None else left.to(*kind), right.to(*kind))
                for name, (left, right) in self.bases.factors(number).items()
            }
        return self._held_factors[number]

    def project(self, name: str, gradient: Tensor, x: Tensor) -> Tensor:
        """See `TunedValues.project`: leftᵀ·(gradientᵀ·x)·right of every subspace."""
        import torch

        found, gradient, x = [], gradient.float(), x.float()
        for number in range(self.bases.count):
            left, right = self._factors(number)[name]
            outer = gradient if left is None else gradient @ left.float()
            found.append(outer.mT @ (x @ right.float()))
        return torch.stack(found).flatten()
