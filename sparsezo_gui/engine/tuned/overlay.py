"""An overlay file as a model. The file is described in `sparsezo_gui.engine.export.overlay_file`."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Generator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from sparsezo_gui.engine.export.overlay_file import OverlayFile, is_overlay, read_overlay
from sparsezo_gui.engine.export.tensors import raw
from sparsezo_gui.engine.pretrained.changes import Entries
from sparsezo_gui.engine.pretrained.source import ModelSource
from sparsezo_gui.engine.pretrained.tuned import Layer, TunedModel, beside, fitting, weight_shape
from sparsezo_gui.errors import UserError, quoted
from sparsezo_gui.recipe.events import Progress
from sparsezo_gui.recipe.recipe import ModelTable
from sparsezo_gui.untrusted import resolved


@dataclass(frozen=True)
class TunedOverlay(TunedModel):
    """The tuned values in the overlay file at ``path``."""

    path: Path
    kind = "overlay"

    @classmethod
    def at(cls, id: str) -> TunedOverlay | None:
        """See `TunedModel.at`: a safetensors file that is an overlay."""
        path = Path(os.path.expanduser(id))
        found = path.suffix == ".safetensors" and os.path.isfile(path) and is_overlay(path)
        return cls(resolved(path)) if found else None

    @cached_property
    def _file(self) -> OverlayFile:
        return read_overlay(self.path)

    @property
    def base(self) -> tuple[str, str]:
        """See `TunedModel.base`."""
        return beside(self._file.model, self.path), self._file.revision or "main"

    def layer(self, base: ModelSource, table: ModelTable) -> Generator[Progress, None, Layer]:
        """See `TunedModel.layer`."""
        yield Progress("Reading the tuned values")
        return Layer(f"the overlay file {self.path.name}", table.id, *entries_of(self._file, self.path, base))


def entries_of(overlay: OverlayFile, path: Path, base: ModelSource) -> tuple[dict[str, Entries], str]:
    """The changes of an overlay file at ``path`` and their digest. Raises `UserError` if they belong to another model
    than ``base``."""
    if overlay.fingerprint != base.checkpoint.fingerprint():
        raise UserError(
            f"{path}: was tuned on {quoted(overlay.model)}, but the weights of that model on this computer are others. "
            "Restore the original ones, or export the run again."
        )
    changes, digest = {}, hashlib.sha256()
    for name, (indices, values) in sorted(overlay.changes.items()):
        fitting(path, weight_shape(base, name), name, overlay.shapes[name])
        changes[name] = Entries(indices.long(), values, added=False)
        digest.update(f"{name}\0{len(indices)}\0".encode())
        digest.update(raw(indices))
        digest.update(raw(values))
    return changes, digest.hexdigest()
