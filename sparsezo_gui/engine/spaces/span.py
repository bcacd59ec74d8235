"""Single weights along a few directions: the sparse overlay, tuned within the span of some basis vectors.

The values are those of the sparse space, one for each entry of the mask; the basis B (k, n) restricts how a step moves
them. A rule draws as many random numbers as there are basis vectors, z (q, k), and its directions are z·B (q, n). So k
slopes describe all that a step can do, where single entries have n of them. The mask's part "basis" holds B in fp32.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from sparsezo_gui.answers import Part
from sparsezo_gui.engine.spaces.space import Space
from sparsezo_gui.engine.spaces.sparse import SparseSpace, SparseValues
from sparsezo_gui.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor

    from sparsezo_gui.engine.frozen import FrozenModel
    from sparsezo_gui.engine.masks.rule import MaskRule
    from sparsezo_gui.engine.pretrained.spec import ModelSpec
    from sparsezo_gui.engine.spaces.mask import Mask
    from sparsezo_gui.engine.zo.estimators import Estimator
    from sparsezo_gui.engine.zo.generator import Source
    from sparsezo_gui.recipe.recipe import Recipe

BASIS = "basis"  # name of the part
NUMBER = 4  # bytes of a number in it


class SpanSpace(SparseSpace):
    """Entries of the frozen weights, which move along a few basis vectors; the mask lists both."""

    mask_version = Space.mask_version
    mask_header = Space.mask_header
    mask_digest = Space.mask_digest

    def tuned_values(self, model: FrozenModel, mask: Mask) -> SpanValues:
        """See `Space.tuned_values`."""
        return SpanValues(model, mask)

    def refusal(self, recipe: Recipe) -> str:
        """See `Space.refusal`."""
        from sparsezo_gui.engine.zo.estimators import Estimator

        estimator, name = recipe.estimator, recipe.mask.rule
        if type(estimator).draw is not Estimator.draw:
            return (
                f"[estimator] rule = '{estimator.rule}' chooses single weights, and [mask] rule = '{name}' moves all "
                "of them together along a few directions. Set [estimator] rule = 'two-sided', or [mask] rule = "
                "'sensitive'."
            )
        return ""

    def mask_bytes(self, rule: MaskRule, spec: ModelSpec) -> int:
        """See `Space.mask_bytes`."""
        return super().mask_bytes(rule, spec) + NUMBER * rule.bases(spec)

    def memory(self, recipe: Recipe, spec: ModelSpec, width: int) -> Iterator[Part]:
        """See `Space.memory`: the basis is held in fp32."""
        for part in super().memory(recipe, spec, width):
            yield part if part.name != "Bases" else replace(part, bytes=NUMBER * recipe.mask.bases(spec))


class SpanValues(SparseValues):
    """Entries of the frozen weights, in layer order, with the basis of their directions."""

    def __init__(self, model: FrozenModel, mask: Mask) -> None:
        super().__init__(model, mask)
        basis = mask.parts.get(BASIS)
        if basis is None or basis.dim() != 2 or basis.shape[0] < 1 or basis.shape[1] != mask.size:
            raise UserError("This mask has no basis for its directions, or one of another size. Find the mask again.")
        self.basis = basis.to(model.device)

    def draw(self, estimator: Estimator, source: Source, batch_size: int) -> Any:
        """See `TunedValues.draw`: a random number for each basis vector."""
        return estimator.draw(replace(source, size=len(self.basis)), batch_size)

    def shape(self, estimator: Estimator, drawn: Any, step: int, state: Any, basis: Tensor | None = None) -> Any:
        """See `TunedValues.shape`: the random numbers times the basis vectors."""
        return super().shape(estimator, spanned(drawn, self.basis if basis is None else basis), step, state)

    @property
    def freedom(self) -> int:
        """See `TunedValues.freedom`."""
        return len(self.basis)


def spanned(numbers: Tensor, basis: Tensor) -> Tensor:
    """``numbers`` (q, k) times ``basis`` (k, n), (q, n); summed one vector after the other, so that the result has the
    same bits on any number of threads."""
    import torch

    found = torch.zeros(len(numbers), basis.shape[1], device=basis.device)
    for place, vector in enumerate(basis):
        found += numbers[:, place, None] * vector
    return found
