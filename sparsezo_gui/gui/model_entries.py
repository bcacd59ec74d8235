"""Models as rows of a list, and the folders and files that were chosen before."""

from __future__ import annotations

import os

from PySide6.QtCore import QSettings

from sparsezo_gui.answers import ModelSummary
from sparsezo_gui.gui.formatting import count, size
from sparsezo_gui.gui.kept import texts
from sparsezo_gui.gui.widgets.memory import verdict_of
from sparsezo_gui.gui.widgets.model_list import Entry
from sparsezo_gui.gui.wording import in_form_words

IMAGES = {"bundled": "sparsezo", "folder": "folder", "file": "file", "run": "run"}
RECENT = 6  # of the chosen folders and files
KINDS = {"bundled": "bundled", "cache": "downloaded", "folder": "folder", "file": "GGUF file", "ollama": "in Ollama",
         "lmstudio": "in LM Studio", "hub": "on the Hub", "run": "your run", "adapter": "adapter",
         "overlay": "overlay file"}  # fmt: skip


def entry_of(model: ModelSummary, verdict: str) -> Entry:
    """The row of a model; ``verdict`` says whether tuning it fits, empty if that is not known."""
    parts = [count(model.parameters) if model.parameters else "", size(model.bytes) if model.bytes else "",
             model.family, model.licence, KINDS.get(model.kind, model.kind or "")]  # fmt: skip
    badge = verdict_of(verdict) if verdict else ("", "")
    return Entry(model.id, model.title or model.id, " · ".join(part for part in parts if part),
                 IMAGES.get(model.kind, "model"), *badge, in_form_words(model.problem))  # fmt: skip


def recent_entry(path: str) -> Entry:
    """The row of a folder or file that was chosen before."""
    kind = "folder" if os.path.isdir(path) else "file"
    return Entry(path, os.path.basename(path), f"{kind}, used recently", kind)


def recent_models(store: QSettings) -> list[str]:
    """Folders and files that were chosen before and are still there, newest first."""
    return [path for path in texts(store, "recent_models") if os.path.exists(path)]


def remember(store: QSettings, path: str) -> None:
    """Adds a folder or file to the recent ones."""
    if os.path.isabs(path) and os.path.exists(path):
        kept = [path, *(each for each in recent_models(store) if each != path)]
        store.setValue("recent_models", kept[:RECENT])
