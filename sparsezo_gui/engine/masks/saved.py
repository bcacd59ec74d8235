"""A mask found earlier, for any task on the same model."""

from __future__ import annotations

from collections.abc import Generator
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

from sparsezo_gui.engine.masks.rule import MaskRule, Search
from sparsezo_gui.errors import UserError
from sparsezo_gui.recipe.events import Progress
from sparsezo_gui.recipe.registry import SPACES
from sparsezo_gui.recipe.variants import setting

if TYPE_CHECKING:
    from sparsezo_gui.engine.frozen import FrozenModel
    from sparsezo_gui.engine.pretrained.spec import ModelSpec
    from sparsezo_gui.engine.spaces.mask import Mask


class Saved(MaskRule):
    """A mask from a file that 'sparsezo mask' wrote; one mask serves all tasks of its model."""

    title: ClassVar[str] = "Saved"
    rule: Literal["saved"] = "saved"
    file: str = setting("", "The mask file (.safetensors).", basic=True)

    def tuned(self, spec: ModelSpec) -> int:
        """See `MaskRule.tuned`."""
        from sparsezo_gui.engine.spaces.mask import share

        return round(share(Path(self.file)) * spec.eligible)

    def source(self) -> str:
        """See `MaskRule.source`."""
        return f"Read from {self.file}." if self.file else "No mask file is chosen yet."

    def cost(self) -> str:
        """See `MaskRule.cost`."""
        return "The file is read at the start of every run; no search is needed."

    def find(self, model: FrozenModel, search: Search) -> Generator[Progress, None, Mask]:
        """See `MaskRule.find`."""
        from sparsezo_gui.engine.spaces.mask import load

        yield Progress("Reading the mask")
        mask = load(Path(self.file), model.spec.linears, model.fingerprint)
        if mask.parts or not SPACES[mask.space].lists_entries:
            raise UserError(f"{self.file}: this mask does not list entries. Set its rule in [mask] instead.")
        return mask
