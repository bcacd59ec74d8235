"""Exports the whole model as a GGUF file with an Ollama Modelfile beside it.

The file is read back by this program's own reader, and its output is compared with its weights' and with the run's.
"""

from __future__ import annotations

import shlex
from collections.abc import Generator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sparsezo_gui.engine.export.form import ExportFormat, Option
from sparsezo_gui.engine.export.gguf.programs import in_lm_studio, in_ollama
from sparsezo_gui.recipe.events import Notice, Progress

if TYPE_CHECKING:
    from sparsezo_gui.engine.runs.folder import RunFolder
    from sparsezo_gui.engine.session import Session
    from sparsezo_gui.engine.spaces.space import Space

BITS = {"f32": 32, "f16": 16, "bf16": 16, "q8_0": 8.5, "q5_1": 6, "q5_0": 5.5, "q4_1": 5, "q4_0": 4.5}  # of a weight
KIND = Option(
    "kind",
    "Kind of numbers",
    "kind of numbers of the weight matrices (default: f16); same: those that the model's own GGUF file has",
    {
        "f16": ("f16", "16 bits, close to the original weights."),
        "bf16": ("bf16", "16 bits, exactly the original weights of most models; slower on some computers."),
        "q8_0": ("q8_0", "8.5 bits, hardly different from 16."),
        "q5_1": ("q5_1", "6 bits."),
        "q5_0": ("q5_0", "5.5 bits."),
        "q4_1": ("q4_1", "5 bits."),
        "q4_0": ("q4_0", "4.5 bits, the smallest and least exact."),
        "f32": ("f32", "32 bits, exactly the tuned weights."),
        "same": ("As it came", "For models that came as a GGUF file: all that the run did not tune stays as it is."),
    },
)
TO = Option(
    "to",
    "Program",
    "ollama: also add the model to Ollama; lmstudio: write it where LM Studio lists it, without --out (default: file)",
    {
        "file": ("Only the file", "Any program based on llama.cpp opens it."),
        "ollama": ("Ollama", "Also adds it to Ollama, under the name of the file."),
        "lmstudio": ("LM Studio", "Writes it into the folder of LM Studio's models."),
    },
)


class Gguf(ExportFormat):
    """The base model's own weights with the tuned values, in one file."""

    title = "GGUF file"
    help = "The whole model in one file, for Ollama, LM Studio and llama.cpp, with a Modelfile for Ollama beside it."
    opens = "Ollama, LM Studio, llama.cpp and other programs based on it"
    suffix = ".gguf"
    options = (KIND, TO)

    def serve(self, out: str, base: str, space: Space, rank: int = 0) -> dict[str, str]:
        """See `ExportFormat.serve`."""
        return {"Ollama": in_ollama(out), "llama.cpp": shlex.join(["llama-server", "-m", out])}

    def place(self, name: str, **options: str) -> Path | None:
        """See `ExportFormat.place`."""
        return in_lm_studio(name) if options.get("to") == "lmstudio" else None

    def size(self, tuned: int, parameters: int, space: Space, options: Mapping[str, str]) -> int:
        """See `ExportFormat.size`."""
        return int(parameters * BITS.get(options.get("kind", "f16"), 16) / 8)

    def write(  # type: ignore[override]  # takes its own options by name
        self, session: Session, run: RunFolder, out: Path, accept: bool, kind: str = "f16", to: str = "file"
    ) -> Generator[Progress | Notice, None, dict[str, Any]]:
        """See `ExportFormat.write`."""
        from sparsezo_gui.engine.export.gguf.making import make

        return {"told": (yield from make(session, run, out, accept, kind, to))}
