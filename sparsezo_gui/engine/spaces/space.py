"""What a space of tuned values is: everything that depends on how the values act on the weights.

A space is one file and one line in `sparsezo_gui.recipe.registry`. The file has its description, a `Space`, and the
class of its values, a `sparsezo_gui.engine.spaces.values.TunedValues`. It must not import torch at the top: recipes are
checked before torch is loaded. A mask rule names its space; nothing else compares names of spaces.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, ClassVar

from sparsezo_gui.answers import Part

if TYPE_CHECKING:
    from sparsezo_gui.engine.frozen import FrozenModel
    from sparsezo_gui.engine.masks.rule import MaskRule
    from sparsezo_gui.engine.passes import Shape
    from sparsezo_gui.engine.pretrained.spec import ModelSpec
    from sparsezo_gui.engine.spaces.mask import Mask
    from sparsezo_gui.engine.spaces.values import TunedValues
    from sparsezo_gui.recipe.recipe import Recipe


class Space(ABC):
    """Base of the descriptions, which have no state: values in fp32 beside frozen weights that stay as they are."""

    in_place: ClassVar[bool] = False
    """Whether the values are the weights themselves: as many as the model has, so that no copy of them fits."""
    lists_entries: ClassVar[bool] = False
    """Whether the values are single weights, which the mask lists."""
    packs: ClassVar[int] = 1
    """Times the usual rows of activations at once."""
    mask_version: ClassVar[str] = "2"
    """Version of its mask files."""
    relation: ClassVar[str] = "of"
    """In a model card, between the number of tuned values and the model's linear weights."""
    whole_weights: ClassVar[str] = ""
    """What a run does if its values change whole weight matrices: 'this run …'. Empty if they change single weights."""

    @abstractmethod
    def tuned_values(self, model: FrozenModel, mask: Mask) -> TunedValues:
        """The values of ``mask`` on ``model``, at their start. Raises `UserError` if they do not fit it."""

    def refusal(self, recipe: Recipe) -> str:
        """Why the mask of ``recipe`` does not work with its other parts, in sentences; empty if it does."""
        mask, estimator = recipe.mask, recipe.estimator
        if not estimator.per_example:
            return ""
        return (
            f"[estimator] rule = '{estimator.rule}' draws a separate direction for each example, which only works for "
            f"a sparse mask of single weights, and [mask] rule = '{mask.rule}' is not one. Set [estimator] rule = "
            "'two-sided', or [mask] rule = 'sensitive'."
        )

    # The mask

    def mask_header(self, mask: Mask) -> dict[str, str]:
        """What the metadata of its mask file has besides what every mask file has."""
        return {"space": mask.space, "tuned": str(mask.size)}

    def mask_digest(self, mask: Mask) -> bytes:
        """What the mask's hash covers between its indices and its parts."""
        return mask.space.encode() + b"\0" + mask.size.to_bytes(8, "little")

    def mask_bytes(self, rule: MaskRule, spec: ModelSpec) -> int:
        """Bytes of the mask file of ``rule``, if they are many."""
        return 0

    @abstractmethod
    def counts(self, mask: Mask, spec: ModelSpec) -> Mapping[str, int]:
        """Tuned values by weight. Raises `UserError` if the mask does not fit the model."""

    # Memory

    def memory(self, recipe: Recipe, spec: ModelSpec, width: int) -> Iterator[Part]:
        """Values, start values and indices; directions, drawn and scaled; points, and a copy of them while they are
        made; the state of estimator and update. ``width`` are the bytes of a number in activations."""
        tuned, bases = recipe.mask.tuned(spec), recipe.mask.bases(spec)
        estimator, update = recipe.estimator, recipe.update
        directions = 2 * estimator.perturbations(recipe.loop.batch_size)
        held = 12 + 4 * (directions + 2 * recipe.forward_passes + estimator.state_vectors + update.state_vectors)
        yield Part("Tuned values", held * tuned, f"{tuned} weights in full precision, and their perturbed copies.")
        if bases:
            yield Part("Bases", bases * width, "The directions in each weight matrix along which values are tuned.")

    def workspace(self, recipe: Recipe, spec: ModelSpec, shape: Shape, largest: int, device_kind: str) -> Part:
        """What one layer takes while it runs: a weight of ``largest`` entries made dense (int8 goes by way of fp32)."""
        factor = shape.width + (4 if recipe.model.bits == 8 and shape.width < 4 else 0)
        needed = factor * largest + self.layer_bytes(recipe, spec, shape, largest)
        return Part("Workspace", needed, "One frozen weight at a time, dequantised to multiply.")

    def layer_bytes(self, recipe: Recipe, spec: ModelSpec, shape: Shape, largest: int) -> int:
        """What the values of one layer take at the same time."""
        return 0

    def stand_in(self, rule: MaskRule, spec: ModelSpec) -> MaskRule:
        """A rule whose masks take as much memory as those of ``rule`` and are found at once, to measure a step with."""
        return rule
