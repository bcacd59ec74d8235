"""Exports the tuned values as an adapter of Hugging Face PEFT, with a model card, and compares its output with the
run's. PEFT itself is not needed."""

from __future__ import annotations

import json
import shlex
from collections.abc import Generator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sparsezo_gui.engine.export.form import ExportFormat, entries_bytes
from sparsezo_gui.recipe.events import Notice, Progress
from sparsezo_gui.sizes import size

if TYPE_CHECKING:
    from sparsezo_gui.engine.export.adapter import Adapter
    from sparsezo_gui.engine.runs.folder import RunFolder
    from sparsezo_gui.engine.session import Session
    from sparsezo_gui.engine.spaces.space import Space

LOADER = """from peft import PeftModel
from transformers import AutoModelForCausalLM

model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained({base}), "this folder")"""


RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)  # of vLLM


class Peft(ExportFormat):
    """A LoRA adapter for tuned values of low rank, and a SHiRA adapter for single weights."""

    title = "PEFT adapter"
    help = "Only the tuned values, as a LoRA or SHiRA adapter that Hugging Face PEFT loads beside the base model."
    opens = "Hugging Face PEFT, vLLM and other programs that load adapters"

    def refusal(self, space: Space) -> str:
        """See `ExportFormat.refusal`."""
        if not space.in_place:
            return ""
        return "An adapter is small beside its model, but this run tuned all weights. Export it with --format hf."

    def suits(self, space: Space) -> bool:
        """See `ExportFormat.suits`."""
        return not self.refusal(space)

    def serve(self, out: str, base: str, space: Space, rank: int = 0) -> dict[str, str]:
        """See `ExportFormat.serve`: vLLM loads LoRA only, up to a rank that it must know, one of its `RANKS`."""
        if space.lists_entries:
            return {}
        most = next((str(most) for most in RANKS if most >= rank), str(RANKS[-1])) if rank else "RANK"
        command = shlex.join(["vllm", "serve", base, "--enable-lora", "--max-lora-rank", most])
        return {"vLLM": f"{command} --lora-modules {shlex.quote(f'tuned={out}')}"}

    def size(self, tuned: int, parameters: int, space: Space, options: Mapping[str, str]) -> int:
        """See `ExportFormat.size`."""
        return entries_bytes(tuned, space)

    def write(  # type: ignore[override]  # takes its own options by name
        self, session: Session, run: RunFolder, out: Path, accept: bool
    ) -> Generator[Progress | Notice, None, dict[str, Any]]:
        """See `ExportFormat.write`."""
        from sparsezo_gui.engine.export.adapter import read
        from sparsezo_gui.engine.export.card import Use, base_name, card_of
        from sparsezo_gui.engine.export.check import compared, plain_base, why_original
        from sparsezo_gui.engine.export.stops import told_stop
        from sparsezo_gui.engine.pretrained.folder import drafted

        yield Progress("Writing the adapter", 0, 0)
        source, base = session.model.source, base_name(session)
        adapter, what = _adapter(session)
        use = Use("peft", LOADER.format(base=json.dumps(base)))
        rank = max([adapter.config["r"], *adapter.config.get("rank_pattern", {}).values()])
        serve = {place: self.serve(place, base, session.tuned.space, rank) for place in (".", str(out))}
        what_is = "It is an adapter; the weights of the base model stay as they are."
        card = card_of(session, run, what_is, use, serve["."])
        with drafted(out, adapter.bytes) as draft:
            adapter.save(draft, base, source.revision)
            (draft / "README.md").write_text(card, encoding="utf-8")
        told = [f"{what}: {size(adapter.bytes)}, for the base model {source.pretrained}.", *told_stop(session.model)]
        if source.bitsandbytes:
            return {"told": [*told, "Not compared with the run's output: the base model's own weights are quantised."]}
        plain = plain_base(source, why_original(session.recipe.model.bits), read(out).attach)
        same = yield from compared(session, run, plain, accept)
        return {"told": [*told, same], "serve": serve[str(out)]}


def _adapter(session: Session) -> tuple[Adapter, str]:
    """The adapter and what it is, in words."""
    from sparsezo_gui.engine.export.adapter import lora, shira
    from sparsezo_gui.engine.export.earlier import all_changes, all_products, originals

    tuned, model, spec = session.tuned, session.model, session.model.source.spec
    if tuned.products():
        products = all_products(session)
        adapter = lora(products, spec)
        low, high = min(ranks := [len(product.a) for product in products.values()]), max(ranks)
        return adapter, f"LoRA adapter of rank {low if low == high else f'{low} to {high}'}"
    changes = all_changes(session)
    if model.source.layers:
        before = originals(model.checkpoint, changes)
    else:
        before = {name: tuned.start[part].cpu() for name, part in tuned.slices.items()}
    adapter = shira(changes, before, spec)
    entries = sum(tensor.numel() for name, tensor in adapter.tensors.items() if name.endswith("shira_weight"))
    return adapter, f"SHiRA adapter of {entries:,} values, {tuned.values.numel():,} of them tuned"
