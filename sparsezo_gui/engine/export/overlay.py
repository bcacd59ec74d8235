"""Exports only the tuned values. The file is described in `overlay_file`."""

from __future__ import annotations

import json
from collections.abc import Generator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sparsezo_gui.engine.export.form import ExportFormat, entries_bytes
from sparsezo_gui.recipe.events import Progress
from sparsezo_gui.sizes import size

if TYPE_CHECKING:
    from sparsezo_gui.engine.runs.folder import RunFolder
    from sparsezo_gui.engine.session import Session
    from sparsezo_gui.engine.spaces.space import Space


class Overlay(ExportFormat):
    """A file with the indices and values of the tuned weights."""

    title = "Overlay file"
    help = "Only the tuned values, in a small file; ten lines of Python in its card add them to the base model."
    opens = "Python, with the ten lines in its card"
    suffix = ".safetensors"

    def refusal(self, space: Space) -> str:
        """See `ExportFormat.refusal`."""
        if not (changed := space.whole_weights):
            return ""
        return (
            f"An overlay file stores single weights, but this run {changed}. Export it with --format peft or hf, or "
            "share the run, which takes the least space."
        )

    def suits(self, space: Space) -> bool:
        """See `ExportFormat.suits`: not if most weights changed."""
        return space.lists_entries

    def card(self, out: Path) -> str:
        """See `ExportFormat.card`."""
        from sparsezo_gui.engine.export.overlay_file import read_overlay

        return read_overlay(out).card

    def size(self, tuned: int, parameters: int, space: Space, options: Mapping[str, str]) -> int:
        """See `ExportFormat.size`."""
        return entries_bytes(tuned, space)

    def write(  # type: ignore[override]  # takes its own options by name
        self, session: Session, run: RunFolder, out: Path, accept: bool
    ) -> Generator[Progress, None, dict[str, Any]]:
        """See `ExportFormat.write`."""
        from sparsezo_gui import recipe
        from sparsezo_gui.engine.export.card import Use, base_name, card_of
        from sparsezo_gui.engine.export.earlier import all_changes
        from sparsezo_gui.engine.export.overlay_file import LOADER, OverlayFile, read_overlay, write_overlay
        from sparsezo_gui.engine.export.stops import told_stop

        yield Progress("Writing the overlay file", 0, 0)
        source, changes = session.model.source, all_changes(session)
        shapes = {name: source.spec.linears[name] for name in changes}
        fingerprint = session.model.checkpoint.pretrained_fingerprint()
        base, given = base_name(session), recipe.dump(recipe.portable(session.recipe))
        use = Use("transformers", LOADER.replace("BASE", json.dumps(base)).replace("FILE", '"this file"'))
        card = card_of(session, run, "It is an overlay file; all other weights are those of the base model.", use)
        write_overlay(out, OverlayFile(
            changes, shapes, base, source.revision, fingerprint, session.step, given, card
        ))  # fmt: skip
        read_overlay(out)
        return {
            "told": [f"{size(out.stat().st_size)}, for the base model {source.pretrained}.", *told_stop(session.model)]
        }
