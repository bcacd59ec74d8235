"""Exports the whole model as a Hugging Face folder, with a model card, and compares its output with the run's."""

from __future__ import annotations

import shlex
from collections.abc import Generator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sparsezo_gui.engine.export.form import ExportFormat, Option
from sparsezo_gui.recipe.events import Notice, Progress

if TYPE_CHECKING:
    from sparsezo_gui.engine.runs.folder import RunFolder
    from sparsezo_gui.engine.session import Session
    from sparsezo_gui.engine.spaces.space import Space


class HuggingFace(ExportFormat):
    """The tuned values merged into the base model's original weights, or into the weights as the run used them."""

    title = "Hugging Face folder"
    help = "The whole model with the tuned values merged in, for any program that loads Hugging Face models."
    opens = "Hugging Face transformers, vLLM, llama.cpp's converter and other programs"
    options = (
        Option(
            "weights",
            "Weights",
            "the original weights of the base model with the tuned values (default), or all weights exactly as the run "
            "used them, so that other programs generate the same text",
            {
                "original": (
                    "Original precision",
                    "Merges the tuned values into the base model's original 16- or 32-bit weights. Best quality; the "
                    "usual choice.",
                ),
                "trained": (
                    "Exactly as trained",
                    "Merges the tuned values into the run's dequantised weights. Other programs then give the same "
                    "output as SparseZO, but the folder is larger.",
                ),
            },
        ),
    )

    def suits(self, space: Space) -> bool:
        """See `ExportFormat.suits`: whatever no smaller format holds."""
        return True

    def serve(self, out: str, base: str, space: Space, rank: int = 0) -> dict[str, str]:
        """See `ExportFormat.serve`."""
        return {"vLLM": shlex.join(["vllm", "serve", out])}

    def size(self, tuned: int, parameters: int, space: Space, options: Mapping[str, str]) -> int:
        """See `ExportFormat.size`."""
        return 2 * parameters  # 16 bits

    def write(  # type: ignore[override]  # takes its own options by name
        self, session: Session, run: RunFolder, out: Path, accept: bool, weights: str = "original"
    ) -> Generator[Progress | Notice, None, dict[str, Any]]:
        """See `ExportFormat.write`."""
        return {"told": (yield from _folder(self, run, session, out, weights, accept))}


def _folder(
    form: HuggingFace, run: RunFolder, session: Session, out: Path, weights: str, accept: bool
) -> Generator[Progress | Notice, None, list[str]]:
    from sparsezo_gui.engine.export.card import card_of
    from sparsezo_gui.engine.export.check import compared, in_folder, why_original
    from sparsezo_gui.engine.export.stops import FILE, added_stop, generation_config

    dtype = str(session.model.dtype).split(".")[-1]
    write, untuned = {
        "original": (_merged, "All other weights are the original ones of the base model."),
        "trained": (_trained, f"All other weights are as the run used them ({session.recipe.model.bits} bits), written "
                    f"in {dtype}."),
    }[weights]  # fmt: skip
    card = card_of(session, run, untuned, serve=form.serve(".", "", session.tuned.space))
    told = yield from write(session, out, {"README.md": card, **generation_config(session.model)})
    if stop := added_stop(session.model):
        told.append(f"{FILE}: added the stop token '{stop}', with which the run learned to end answers.")
    why = why_original(session.recipe.model.bits) if weights == "original" else ""
    plain = in_folder(out, session.model.source.code, why)
    return [*told, (yield from compared(session, run, plain, accept))]


def _merged(session: Session, out: Path, texts: dict[str, str]) -> Generator[Progress, None, list[str]]:
    from sparsezo_gui.engine.export.merged import export_merged

    done = yield from export_merged(session.model.source, session.tuned.changes(), out, texts)
    told = [f"{done.moved:,} of {done.tuned:,} tuned weights differ from the base model."]
    if done.moved < done.tuned // 2:
        form = "an adapter" if session.tuned.space.whole_weights else "an overlay file"
        told.append(
            f"The changes of the others are lost to rounding in the base model's number format; {form} keeps them."
        )
    return told


def _trained(session: Session, out: Path, texts: dict[str, str]) -> Generator[Progress, None, list[str]]:
    from sparsezo_gui.engine.export.trained import export_trained

    yield from export_trained(session.model, session.tuned.changes(held=True), out, texts)
    return ["All weights are written as the run used them."]
