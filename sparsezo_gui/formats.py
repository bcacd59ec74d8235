"""Kinds of files: what a run can be exported as. Adding one is one file and one line here.

Paths are strings, so that the window and the command line can list the formats without loading the engine.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from sparsezo_gui.errors import UserError, did_you_mean

if TYPE_CHECKING:
    from sparsezo_gui.engine.export.form import ExportFormat

_ENGINE = "sparsezo_gui.engine"
EXPORTS = {
    "overlay": f"{_ENGINE}.export.overlay:Overlay",
    "hf": f"{_ENGINE}.export.hf:HuggingFace",
}


def export_format(name: str) -> ExportFormat:
    """The export format of that name. Raises `UserError` for an unknown one."""
    if name not in EXPORTS:
        raise UserError(f"Unknown export format '{name}'. {did_you_mean(name, EXPORTS)}")
    return _load(EXPORTS[name])()


def export_formats() -> dict[str, ExportFormat]:
    """All export formats by name."""
    return {name: export_format(name) for name in EXPORTS}


def _load(path: str) -> Any:
    module, name = path.split(":")
    return getattr(import_module(module), name)
