"""Files, folders and Hub pages that are dropped anywhere on the window go to where they belong."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, cast

from PySide6.QtCore import QEvent, QObject, QUrl
from PySide6.QtGui import QDropEvent
from PySide6.QtWidgets import QGraphicsView, QLineEdit, QPlainTextEdit, QTextEdit, QWidget

from sparsezo_gui.formats import data_format
from sparsezo_gui.gui.problems import Problem
from sparsezo_gui.gui.run_requests import ReceiveRun
from sparsezo_gui.gui.widgets.safe_text import safe_name

if TYPE_CHECKING:
    from sparsezo_gui.gui.main_window import MainWindow
    from sparsezo_gui.gui.pages.data import DataPage
    from sparsezo_gui.gui.pages.model import ModelPage

TEMPLATES = (".jinja", ".jinja2", ".j2")
LARGEST = 100_000  # characters of a template
LARGEST_HEADER = 10_000_000  # bytes, of a file of weights
MODEL, RUN = ("config.json", "adapter_config.json"), ("run.json", "recipe.toml")  # what their folders have
HUB = ("huggingface.co", "hf.co")
EVENTS = (QEvent.Type.DragEnter, QEvent.Type.DragMove, QEvent.Type.Drop)


def kind_of(path: Path) -> str:
    """What is at ``path``: 'run', 'model', 'data', 'recipe', 'shared', 'template', 'mask' or ''."""
    if path.is_dir():
        if any((path / name).is_file() for name in RUN):
            return "run"
        return "model" if any((path / name).is_file() for name in MODEL) or any(path.glob("*.gguf")) else "data"
    if path.exists() and not path.is_file():
        return ""  # such as a pipe, which would never end
    suffix = path.suffix.lower()
    if suffix == ".safetensors":
        return {"sparsezo-mask": "mask", "sparsezo-overlay": "model"}.get(_format(path), "")
    known = {".gguf": "model", ".toml": "recipe", ".zip": "shared", **dict.fromkeys(TEMPLATES, "template")}
    return known.get(suffix) or ("data" if data_format(path) else "")


def on_hub(url: QUrl) -> tuple[str, str]:
    """Whether a page of the Hub is of a 'model' or of 'data', and its id; else two empty texts."""
    parts = url.path().strip("/").split("/")
    if url.host().removeprefix("www.") not in HUB or len(parts) < 2:
        return "", ""
    if parts[0] == "datasets":
        return ("data", "/".join(parts[1:3])) if len(parts) > 2 else ("", "")
    return "model", "/".join(parts[:2])


def _format(path: Path) -> str:
    """The format that the header of a safetensors file names."""
    try:
        with open(path, "rb") as file:
            length = int.from_bytes(file.read(8), "little")
            header = json.loads(file.read(length)) if length < LARGEST_HEADER else {}
        return str(header["__metadata__"]["format"])
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return ""


class Drops(QObject):
    """Takes what is dropped on the window, also on its fields, which would insert a file's name."""

    def __init__(self, window: MainWindow) -> None:
        super().__init__(window)
        self._window = window
        window.setAcceptDrops(True)
        window.installEventFilter(self)

    def watch(self, page: QWidget) -> None:
        """Takes what is dropped on the editors and plots of ``page``."""
        for editor in page.findChildren(QLineEdit):
            editor.installEventFilter(self)
        for kind in (QPlainTextEdit, QTextEdit):
            for text in page.findChildren(kind):
                text.viewport().installEventFilter(self)
        for plot in page.findChildren(QGraphicsView):
            plot.setAcceptDrops(False)

    def eventFilter(self, watched: QObject, event: QEvent) -> bool:
        """Anything but text, which fields take themselves."""
        if event.type() not in EVENTS or not isinstance(event, QDropEvent) or not event.mimeData().hasUrls():
            return False
        event.acceptProposedAction()
        if event.type() == QEvent.Type.Drop:
            self.take(event.mimeData().urls())
        return True

    def take(self, urls: list[QUrl]) -> None:
        """Uses the first of ``urls`` that the program knows, or says what could have been dropped."""
        found = [("" if url.isLocalFile() else on_hub(url)[0], url) for url in urls]
        known = [(kind or kind_of(Path(url.toLocalFile())), url) for kind, url in found if kind or url.isLocalFile()]
        for kind, url in known:
            if kind:
                self._use(kind, os.path.normpath(url.toLocalFile()) if url.isLocalFile() else on_hub(url)[1])
                return
        name = safe_name(urls[0].fileName() or urls[0].toString()) if urls else "This"
        self._window.show_problem(Problem(
            f"'{name}' is nothing that SparseZO opens. Drop a model folder or GGUF file, a file or folder of data, a "
            "recipe, a run, a shared run, a mask or a prompt template."
        ), "info")  # fmt: skip

    def _use(self, kind: str, place: str) -> None:
        window = self._window
        calls: dict[str, tuple[str, Callable[[], object]]] = {
            "model": ("model", lambda: cast("ModelPage", window.page("model")).use(place)),
            "data": ("data", lambda: cast("DataPage", window.page("data")).use(place)),
            "template": ("data", lambda: self._use_template(Path(place))),
            "mask": ("method", lambda: self._use_mask(place)),
            "recipe": ("", lambda: window.open_recipe(Path(place))),
            "run": ("run", lambda: self._open_run(Path(place))),
            "shared": ("runs", lambda: window.workspace.ask(ReceiveRun(Path(place)))),
        }
        page, call = calls[kind]
        if page:
            window.go(page)
        call()

    def _open_run(self, folder: Path) -> None:
        if self._window.workspace.run.running:
            told = "A run holds the engine. Drop the other one again when it has ended."
            self._window.show_problem(Problem(told), "info")
        else:
            self._window.open_run(folder)

    def _use_template(self, path: Path) -> None:
        try:
            with open(path, encoding="utf-8-sig") as file:
                text = file.read(LARGEST + 1)
        except (OSError, ValueError) as error:
            self._refuse(f"{path}: cannot be read as text ({error}). Save it as UTF-8.")
            return
        long = f"{path}: a prompt template has at most {LARGEST:,} characters. Is this another file?"
        self._refuse(long if len(text) > LARGEST else self._window.workspace.change("data", template=text))

    def _use_mask(self, path: str) -> None:
        self._refuse(self._window.workspace.change("mask", rule="saved", file=path))

    def _refuse(self, why: str) -> None:
        """Says ``why`` something could not be used, if it could not."""
        if why:
            self._window.show_problem(Problem(why))
