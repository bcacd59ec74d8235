"""Kinds of files: which data can be read, what a run can be exported as, and which tuned models a run can start from.
Adding one is one file and one line here.

Paths are strings, so that the window and the command line can list the formats without loading the engine.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, cast

from sparsezo_gui.errors import UserError, did_you_mean
from sparsezo_gui.lazy import load

if TYPE_CHECKING:
    from sparsezo_gui.engine.data.record import Record
    from sparsezo_gui.engine.export.form import ExportFormat
    from sparsezo_gui.engine.log.form import LogFormat
    from sparsezo_gui.engine.pretrained.tuned import TunedModel
    from sparsezo_gui.engine.spaces.space import Space

_ENGINE = "sparsezo_gui.engine"


@dataclass(frozen=True)
class DataFormat:
    """A kind of data file; ``path`` names the function that reads its rows."""

    title: str
    suffixes: tuple[str, ...]
    path: str

    @property
    def reader(self) -> Callable[[Path], Iterator[Record]]:
        """Yields the rows of a file. Raises `UserError`."""
        return cast("Callable[[Path], Iterator[Record]]", load(self.path))


DATA = (
    DataFormat("CSV", (".csv",), f"{_ENGINE}.data.delimited:read"),
    DataFormat("TSV", (".tsv",), f"{_ENGINE}.data.delimited:read"),
    DataFormat("JSON", (".json",), f"{_ENGINE}.data.objects:read"),
    DataFormat("JSON Lines", (".jsonl", ".ndjson"), f"{_ENGINE}.data.objects:read_lines"),
    DataFormat("Parquet", (".parquet",), f"{_ENGINE}.data.parquet:read"),
    DataFormat("Plain text", (".txt",), f"{_ENGINE}.data.text:read"),
)
COMPRESSED = {".gz": "gzip", ".xz": "lzma"}
"""Suffixes that may follow those of data, and the modules that open such files."""
EXPORTS = {
    "overlay": f"{_ENGINE}.export.overlay:Overlay",
    "peft": f"{_ENGINE}.export.peft:Peft",
    "hf": f"{_ENGINE}.export.hf:HuggingFace",
    "gguf": f"{_ENGINE}.export.gguf.model:Gguf",
    "gguf-lora": f"{_ENGINE}.export.gguf.lora:GgufLora",
}
TUNED = (
    f"{_ENGINE}.tuned.run:TunedRun",
    f"{_ENGINE}.tuned.overlay:TunedOverlay",
    f"{_ENGINE}.tuned.adapter:TunedAdapter",
)
"""What a model may be besides a pretrained one: something tuned, on top of the model that it was tuned on."""
LOGS = {
    "csv": f"{_ENGINE}.log.csv_file:CsvFile",
    "parquet": f"{_ENGINE}.log.parquet_file:ParquetFile",
    "tensorboard": f"{_ENGINE}.log.tensorboard:TensorBoard",
    "trackio": f"{_ENGINE}.log.trackio:Trackio",
}


def data_suffixes() -> list[str]:
    """Suffixes of data files, without those of compressed ones."""
    return [suffix for each in DATA for suffix in each.suffixes]


def data_format(path: Path) -> DataFormat | None:
    """The format of a data file by its suffix, whatever its case and compression: CSV for 'cats.CSV.gz'."""
    suffixes = [suffix.lower() for suffix in path.suffixes]
    if suffixes and suffixes[-1] in COMPRESSED:
        suffixes.pop()
    return next((each for each in DATA if suffixes and suffixes[-1] in each.suffixes), None)


def supported() -> str:
    """The kinds of data files, for a sentence."""
    return f"{', '.join(data_suffixes())}, also compressed as {' or '.join(COMPRESSED)}"


def markdown() -> str:
    """Tables of all formats, for the documentation."""
    return "\n".join([
        "| data | files |", "| --- | --- |",
        *(f"| {each.title} | {', '.join(f'`{suffix}`' for suffix in each.suffixes)} |" for each in DATA),
        "", f"Data files may also be compressed ({', '.join(f'`{suffix}`' for suffix in COMPRESSED)}).", "",
        "| export | writes | contains |", "| --- | --- | --- |",
        *(f"| `--format {name}` | {form.title} | {form.help} |" for name, form in export_formats().items()),
    ])  # fmt: skip


def export_format(name: str) -> ExportFormat:
    """The export format of that name. Raises `UserError` for an unknown one."""
    if name not in EXPORTS:
        raise UserError(f"Unknown export format '{name}'. {did_you_mean(name, EXPORTS)}")
    return cast("ExportFormat", load(EXPORTS[name])())


def export_formats() -> dict[str, ExportFormat]:
    """All export formats by name."""
    return {name: export_format(name) for name in EXPORTS}


def default_export(space: Space) -> str:
    """The name of the export format for tuned values of ``space``, unless the user chooses another."""
    return next(name for name, form in export_formats().items() if form.suits(space))


def log_format(name: str) -> LogFormat:
    """The kind of log of that name. Raises `UserError` for an unknown one."""
    if name not in LOGS:
        raise UserError(f"Unknown log '{name}'. {did_you_mean(name, LOGS)}")
    return cast("LogFormat", load(LOGS[name])())


def tuned_models() -> list[type[TunedModel]]:
    """All kinds of tuned models."""
    return [load(path) for path in TUNED]


def tuned_model(id: str) -> TunedModel | None:
    """The tuned model that ``id`` names; None if it can only be a pretrained one. Raises `UserError`."""
    return next((found for kind in tuned_models() if (found := kind.at(id)) is not None), None)
