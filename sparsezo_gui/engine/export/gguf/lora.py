"""Exports what a run added to weights as products of low rank: a LoRA adapter that llama.cpp adds to a GGUF model."""

from __future__ import annotations

import shlex
from collections.abc import Generator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sparsezo_gui.engine.export.form import ExportFormat, entries_bytes
from sparsezo_gui.engine.export.gguf.programs import in_ollama
from sparsezo_gui.recipe.events import Notice, Progress
from sparsezo_gui.sizes import size

if TYPE_CHECKING:
    from sparsezo_gui.engine.runs.folder import RunFolder
    from sparsezo_gui.engine.session import Session
    from sparsezo_gui.engine.spaces.space import Space


class GgufLora(ExportFormat):
    """B·A of every tuned weight, beside a base model in GGUF of any kind."""

    title = "GGUF adapter"
    help = "Only the tuned values of low rank, as a LoRA adapter for a GGUF base model, with a Modelfile for Ollama."
    opens = "llama.cpp, and Ollama with the Modelfile beside it"
    suffix = ".gguf"

    def refusal(self, space: Space) -> str:
        """See `ExportFormat.refusal`."""
        if not (space.in_place or space.lists_entries):
            return ""
        tuned = "all weights" if space.in_place else "single weights"
        return f"A GGUF adapter holds low-rank changes, but this run tuned {tuned}. Export it with --format gguf."

    def serve(self, out: str, base: str, space: Space, rank: int = 0) -> dict[str, str]:
        """See `ExportFormat.serve`: for llama.cpp, the base model is a GGUF file too."""
        return {"Ollama": in_ollama(out), "llama.cpp": shlex.join(["llama-server", "-m", "BASE.gguf", "--lora", out])}

    def size(self, tuned: int, parameters: int, space: Space, options: Mapping[str, str]) -> int:
        """See `ExportFormat.size`."""
        return entries_bytes(tuned, space)

    def write(  # type: ignore[override]  # takes its own options by name
        self, session: Session, run: RunFolder, out: Path, accept: bool
    ) -> Generator[Progress | Notice, None, dict[str, Any]]:
        """See `ExportFormat.write`."""
        from sparsezo_gui.engine.export import adapter
        from sparsezo_gui.engine.export.check import compared, plain_base, why_original
        from sparsezo_gui.engine.export.earlier import all_products
        from sparsezo_gui.engine.export.gguf import lora_file, written
        from sparsezo_gui.engine.export.gguf.making import modelfile_of, write_beside
        from sparsezo_gui.engine.export.gguf.modelfile import from_base, modelfile
        from sparsezo_gui.engine.export.stops import told_stop
        from sparsezo_gui.engine.files import replacing

        yield Progress("Writing the GGUF adapter")
        source, beside = session.model.source, modelfile_of(out)
        made = adapter.lora(all_products(session), source.spec)
        plan = lora_file.plan(session, made)
        with replacing(out, new=True) as draft:
            yield from written.fill(draft, plan)
            yield from written.read_back(draft, plan)
            found = lora_file.read(draft, source)
        write_beside(beside, modelfile(session, from_base(session), f"./{out.name}"), out)
        plain = plain_base(source, why_original(session.recipe.model.bits), found.attach)
        same = yield from compared(session, run, plain, accept)
        told = f"LoRA adapter: {size(plan.length)}, for the base model {source.pretrained} as a GGUF file of any kind."
        return {"told": [told, *told_stop(session.model), same]}
