"""The sensitive weights, tuned along a few directions that the task's own gradients span."""

from __future__ import annotations

import math
from collections.abc import Generator, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from sparsezo_gui.engine.masks.rule import DENSITY, Search
from sparsezo_gui.engine.masks.sensitive import ByFisher
from sparsezo_gui.recipe.events import Progress
from sparsezo_gui.recipe.variants import setting

if TYPE_CHECKING:
    from torch import Tensor

    from sparsezo_gui.engine.data.encode import Encoded
    from sparsezo_gui.engine.frozen import FrozenModel
    from sparsezo_gui.engine.pretrained.spec import ModelSpec
    from sparsezo_gui.engine.spaces.mask import Mask
    from sparsezo_gui.engine.spaces.sparse import SparseValues

STAGE = "Finding the directions"
MOST = 8  # directions, where their number is not set
PASSES = 3  # forward passes that a gradient costs; see `FirstOrder.cost`
RELATIVE = 1e-6  # of the largest eigenvalue, below which groups have the same gradient


class GradientSubspace(ByFisher):
    """Sensitive weights that move along a few directions, each of which changes the loss of other training examples.

    A random direction in n weights shows the slope along one of n dimensions, the bottleneck of zeroth-order tuning. So
    training examples are sorted by their answers and split into k groups, and the exact gradient G (k, n) of each
    group's loss is computed before the first step, block by block. Steps are random combinations of the rows of
    (G·Gᵀ)⁻¹·G, the transposed pseudo-inverse of G: to first order, a row changes the loss of one group and of no other.
    Gradients of a task are nearly parallel (all say how often an answer should be given); the pseudo-inverse weakens
    what groups share, which would hide what tells their answers apart.

    Own, after guided evolutionary strategies (arXiv 1806.10230), which draw directions in the span of surrogate
    gradients. Own choices: gradients are those of the likelihood, whatever the run's objective, so that counted ones
    can be tuned too; they have length one before they are combined; and directions are as long as those of single
    weights. What a few gradients span is soon used up, so every ``refresh`` steps the directions are found again, from
    examples of the coming steps; a run records them, in 16 bits, beside its scalars. The mask is no longer the same for
    all tasks of a model, as that of SensZOQ is.
    """

    title: ClassVar[str] = "Gradient subspace"
    paper: ClassVar[str] = "after guided evolutionary strategies, arXiv 1806.10230"
    space: ClassVar[str] = "span"
    rate_factor: ClassVar[float] = 0.125
    rule: Literal["gradient-subspace"] = "gradient-subspace"
    density: float = setting(0.0, DENSITY, unit="fraction", ge=0, le=1, basic=True, sane=(0, 1e-1))
    directions: int = setting(
        0, f"Directions to tune along, each from a group of training examples; 0: two for each answer, {MOST} at most.",
        ge=0, le=256, basic=True, sane=(0, 32),
    )  # fmt: skip
    examples: int = setting(
        512, "Training examples in all groups; each costs a forward and a backward pass.", unit="examples", ge=1,
        le=65536, sane=(128, 2048),
    )  # fmt: skip
    refresh: int = setting(
        100, "Steps before the directions are found again, with what was learnt so far; 0: never.", unit="steps", ge=0,
        le=10_000_000, sane=(50, 500),
    )  # fmt: skip

    @property
    def reads_task(self) -> bool:
        """See `MaskRule.reads_task`."""
        return True

    def reads(self, model: FrozenModel, search: Search) -> tuple[Any, ...]:
        """See `MaskRule.reads`."""
        return (*super().reads(model, search), self._examples(model, search))

    def work(self, model: FrozenModel, search: Search, own: bool = False) -> int:
        """See `MaskRule.work`: three passes of each example for its gradient."""
        from sparsezo_gui.engine.objective import count_tokens

        return super().work(model, search, own) + PASSES * sum(map(count_tokens, self._examples(model, search)))

    def bases(self, spec: ModelSpec) -> int:
        """See `MaskRule.bases`."""
        return (self.directions or MOST) * self.tuned(spec)

    @property
    def refreshed(self) -> int:
        """See `MaskRule.refreshed`."""
        return (self.directions or MOST) if self.refresh else 0

    def due(self, step: int) -> bool:
        """See `MaskRule.due`."""
        return self.refresh > 0 and step > 1 and (step - 1) % self.refresh == 0

    def refresh_cost(self, steps: int, batch_size: int) -> int:
        """See `MaskRule.refresh_cost`."""
        return math.ceil(PASSES * self.examples / (batch_size * self.refresh)) if 0 < self.refresh < steps else 0

    def source(self) -> str:
        """See `MaskRule.source`."""
        again = f", found again every {self.refresh:,} steps" if self.refresh else ""
        return (
            f"{super().source()} Directions from the gradients of {self.directions or f'up to {MOST}'} groups of "
            f"training examples, {self.examples} in all{again}."
        )

    def cost(self) -> str:
        """See `MaskRule.cost`."""
        again = f", and again every {self.refresh:,} steps" if self.refresh else ""
        return (
            f"{super().cost()} Then a forward and a backward pass for each of {self.examples} training examples{again}."
        )

    def find(self, model: FrozenModel, search: Search) -> Generator[Progress, None, Mask]:
        """See `MaskRule.find`. Raises `UserError` if there are no examples."""
        from dataclasses import replace

        from sparsezo_gui.engine.spaces.span import BASIS
        from sparsezo_gui.engine.spaces.sparse import SparseValues

        mask = yield from super().find(model, search)
        yield Progress("Reading examples for the directions")
        examples = self._examples(model, search)
        answers = {tuple(answer(each)) for each in examples}
        count = min(self.directions or min(2 * len(answers), MOST), len(examples))
        basis = yield from directions(model, SparseValues(model, mask), examples, count)
        return replace(mask, space=self.space, parts={BASIS: basis.cpu()})

    def _examples(self, model: FrozenModel, search: Search) -> list[Encoded]:
        from sparsezo_gui.engine.data import answered

        return search.once(self.examples, lambda: answered(search.data, model.tokenizer, self.examples))


def directions(
    model: FrozenModel, values: SparseValues, examples: Sequence[Encoded], count: int
) -> Generator[Progress, None, Tensor]:
    """The basis (count, n) fp32 from the gradients of so many groups of ``examples``, at the current ``values``."""
    import torch

    from sparsezo_gui.engine.gradient import gradient
    from sparsezo_gui.recipe.registry import OBJECTIVES

    ordered, objective, found = sorted(examples, key=answer), OBJECTIVES.build({"rule": "likelihood"}), []
    with values.applied():
        for group in range(count):
            yield Progress(STAGE, group, count, "directions")
            part = ordered[len(ordered) * group // count : len(ordered) * (group + 1) // count]
            found.append(gradient(model, values, objective, part)[0])
    gradients = torch.stack(found)
    return dual(gradients) if gradients.shape[1] else gradients


def answer(example: Encoded) -> list[int]:
    """The trained tokens: examples with the same answer are in the same groups, as far as possible."""
    from sparsezo_gui.engine.data.rendering import trained_sequence

    tokens, learned = trained_sequence(example)
    return [tokens[place] for place in learned]


def dual(gradients: Tensor) -> Tensor:
    """The rows of (G·Gᵀ)⁻¹·G for ``gradients`` (k, n) of length one, fp32 (k, n), scaled so that a random combination
    is as long as a normal vector of n numbers."""
    import torch

    scaled = torch.nn.functional.normalize(gradients, dim=1)
    inner = torch.stack([(scaled.double() * row.double()).sum(1) for row in scaled])
    found: Tensor = (torch.linalg.pinv(inner.cpu(), rtol=RELATIVE, hermitian=True).to(scaled) @ scaled).float()
    length = found.double().square().sum().sqrt()
    return found * (gradients.shape[1] ** 0.5 / length).float() if length > 0 else found
