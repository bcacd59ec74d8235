"""Searching the Hub, and downloading from it: results as rows, then bytes, speed and time left."""

from __future__ import annotations

from collections.abc import Callable

from PySide6.QtCore import QSize, Qt, Signal
from PySide6.QtWidgets import QLineEdit, QListWidget, QListWidgetItem, QVBoxLayout, QWidget

from sparsezo_gui.answers import Found
from sparsezo_gui.gui import formatting, inputs
from sparsezo_gui.gui.formatting import count, size
from sparsezo_gui.gui.hub_requests import DiscardParts, DownloadDataSet, DownloadModel, SearchDataSets, SearchModels
from sparsezo_gui.gui.requests import JudgeFound
from sparsezo_gui.gui.theme import GRID
from sparsezo_gui.gui.widgets.basic import ProgressBar, badge, button, column, label, restyle, row
from sparsezo_gui.gui.widgets.dialogs import Dialog
from sparsezo_gui.gui.widgets.memory import verdict_of
from sparsezo_gui.gui.widgets.safe_text import safe_name, tooltip
from sparsezo_gui.gui.workspace import Workspace
from sparsezo_gui.recipe.events import Progress
from sparsezo_gui.stages import ONE, Stages


class HubSearch(QWidget):
    """A field for words, the models or data sets that have them in their name, and a button to download one."""

    chosen = Signal(str)  # the id of a result

    def __init__(self, workspace: Workspace, downloads: DownloadBar, datasets: bool = False) -> None:
        super().__init__()
        self._workspace, self._downloads = workspace, downloads
        self._kind: type[SearchModels] = SearchDataSets if datasets else SearchModels
        self._recipe = workspace.recipe  # which the verdicts are for
        what = "data sets" if datasets else "models"
        fits = "" if datasets else " Each result says whether tuning it fits this computer."
        self._hint = f"Enter words from the name of a {what[:-1]}.{fits}"
        self._words = QLineEdit()
        self._words.setAccessibleName(f"Search {what} on the Hub")
        self._words.setPlaceholderText("customer reviews" if datasets else "qwen3 0.6b")
        self._words.returnPressed.connect(self._ask)
        self._go = button("Search", self._ask, name=f"Search the Hub for {what}")
        self._stop = button("Stop", lambda: workspace.cancel(self._kind), name="Stop searching")
        self.list = QListWidget()
        self.list.setAccessibleName(f"{what.capitalize()} on the Hub")
        self.list.setVerticalScrollMode(QListWidget.ScrollMode.ScrollPerPixel)
        self.list.itemSelectionChanged.connect(self._choose)
        self._said = label("", "dim", wrap=True, name="Search result")
        self._download = button("Download", self._start, image="download", name="Download the selected one")
        search = row(self._words, self._go, self._stop)
        search.setStretch(0, 1)
        said = row(self._said, self._download)
        said.setStretch(0, 1)
        body = column(search, self.list, said)
        body.setStretch(1, 1)
        self.setLayout(body)
        workspace.on(self._kind, call=self._show)
        workspace.of(self._kind).answered.connect(self._found)
        if not datasets:
            workspace.of(JudgeFound).answered.connect(self._judged)
            workspace.recipe_stable.connect(self._judge)
        workspace.blocker_changed.connect(self._show)
        downloads.changed.connect(self._show)
        self._show()

    def _ask(self) -> None:
        words = self._words.text().strip()
        if words and not self._workspace.blocker:
            self._workspace.of(self._kind).forget()
            self._workspace.ask(self._kind(self._workspace.recipe, words))
            self._fill([])
            self._show()

    def _found(self, request: SearchModels, found: list[Found]) -> None:
        self._recipe = request.recipe
        self._fill(found)
        self._judge()

    def _judge(self) -> None:
        """Lets the verdicts follow the recipe."""
        found, recipe = self._workspace.of(self._kind).answer, self._workspace.recipe
        if found and inputs.of_fits(self._recipe) != inputs.of_fits(recipe):
            self._recipe = recipe
            self._workspace.ask(JudgeFound(recipe, tuple(found)))

    def _judged(self, request: JudgeFound, found: list[Found]) -> None:
        search, chosen, bar = self._workspace.of(self._kind), self.selected(), self.list.verticalScrollBar()
        if [each.id for each in search.answer or ()] != [each.id for each in found]:
            return  # there was another search meanwhile
        place, search.answer = bar.value(), found
        self._fill(found, chosen.id if chosen else "")
        bar.setValue(place)
        self._show()

    def _fill(self, found: list[Found], selected: str = "") -> None:
        self.list.blockSignals(True)
        self.list.clear()
        for entry in found:
            item, shown = QListWidgetItem(), _Result(entry)
            item.setData(Qt.ItemDataRole.UserRole, entry)
            item.setData(Qt.ItemDataRole.AccessibleTextRole, shown.text)
            item.setToolTip(tooltip(entry.problem or entry.id))
            item.setSizeHint(shown.room())
            self.list.addItem(item)
            self.list.setItemWidget(item, shown)
            item.setSelected(entry.id == selected)
        self.list.blockSignals(False)

    def selected(self) -> Found | None:
        """The selected result."""
        return next((item.data(Qt.ItemDataRole.UserRole) for item in self.list.selectedItems()), None)

    def _choose(self) -> None:
        if entry := self.selected():
            self.chosen.emit(entry.id)
        self._show()

    def _start(self) -> None:
        if entry := self.selected():
            self._downloads.start(entry.id)

    def _show(self) -> None:
        search, blocker = self._workspace.of(self._kind), self._workspace.blocker
        entry = self.selected()
        self._go.setVisible(not search.busy)
        self._go.setEnabled(not blocker)
        self._go.setToolTip(blocker)
        self._stop.setVisible(search.busy)
        self._download.setEnabled(entry is not None and not entry.problem and not blocker and self._downloads.free)
        self._download.setToolTip(blocker or "")
        restyle(self._said, role="error" if search.problem or (entry and entry.problem) else "dim")
        self._said.setText(self._words_about(entry, blocker))

    def _words_about(self, entry: Found | None, blocker: str) -> str:
        search = self._workspace.of(self._kind)
        if search.busy:
            return f"{search.progress.stage}…" if search.progress else "Searching the Hub…"
        if search.problem:
            return search.problem.message
        if entry is not None and entry.problem:
            return entry.problem
        if entry is not None and entry.gated:
            return "Gated: accept its terms on the Hub first."
        if search.answer is None:
            return blocker if self._words.text() else self._hint
        found = len(search.answer)
        return f"{count(found)} found, most downloaded first." if found else "Nothing has these words in its name."


class HubDialog(Dialog):
    """Data sets on the Hub: search, use, download. It stays when closed, because a download continues."""

    def __init__(self, workspace: Workspace, use: Callable[[str], object], parent: QWidget) -> None:
        super().__init__("Data sets on the Hub", parent)
        self.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose, False)
        self.resize(80 * GRID, 64 * GRID)
        self._id, self._take = "", use
        downloads = DownloadBar(workspace, datasets=True)
        self.search = HubSearch(workspace, downloads, datasets=True)
        self.search.chosen.connect(self._chosen)
        downloads.finished.connect(use)
        self._use = button("Use", self._used, role="primary", name="Use this data set")
        self._use.setEnabled(False)
        self.layout_.addWidget(self.search, 1)
        self.layout_.addWidget(downloads)
        self.layout_.addLayout(row(None, button("Close", self.reject, name="Close the search"), self._use))

    def _chosen(self, id: str) -> None:
        self._id = id
        self._use.setEnabled(True)

    def _used(self) -> None:
        self._take(self._id)
        self.accept()


class _Result(QWidget):
    """A row: the name, then size, licence and downloads, and the verdict on a model."""

    def __init__(self, entry: Found) -> None:
        super().__init__()
        downloads = f"{count(entry.downloads)} downloads" if entry.downloads else ""
        facts = [count(entry.parameters) if entry.parameters else "", f"{entry.rows} rows" if entry.rows else "",
                 size(entry.bytes) if entry.bytes else "", entry.licence.replace("other", "other licence"), downloads,
                 "gated" if entry.gated else ""]  # fmt: skip
        line = " · ".join(fact for fact in facts if fact)
        word, level = (
            verdict_of(entry.fit) if entry.fit else ("Cannot be tuned", "large") if entry.problem else ("", "")
        )
        self.text = safe_name(f"{entry.id}, {line}, {word}")
        mark = badge("")
        mark.setText(word)
        mark.setVisible(bool(word))
        restyle(mark, level=level)
        head = row(column(label(entry.id), label(line, "hint"), spacing=2), None, mark)
        self.setLayout(head)
        self.setAttribute(Qt.WidgetAttribute.WA_TransparentForMouseEvents)

    def room(self) -> QSize:
        """Its size with the style sheet's padding of items, which Qt takes away from it."""
        self.ensurePolished()
        return self.sizeHint() + QSize(2 * GRID, 2 * GRID)


class DownloadBar(QWidget):
    """A download in progress, paused or failed, with buttons; hidden when there is none. Pausing keeps what was
    downloaded, cancelling removes it."""

    changed = Signal()
    finished = Signal(str)  # the id of what is complete

    def __init__(self, workspace: Workspace, datasets: bool = False) -> None:
        super().__init__()
        self._workspace = workspace
        self._kind: type[DownloadModel] = DownloadDataSet if datasets else DownloadModel
        self._id, self._last = "", Progress("")
        self._stages = Stages(ONE)
        self._title = label("", "heading", name="Download")
        self._said = label("", "dim", wrap=True, name="Download progress")
        self._bar = ProgressBar("Download bar")
        self._pause = button("Pause", lambda: workspace.cancel(self._kind), name="Pause the download")
        self._resume = button("Resume", lambda: self.start(self._id), name="Resume the download")
        self._cancel = button("Cancel", self._drop, name="Cancel the download",
                              tip="Stops, and removes what was downloaded so far.")  # fmt: skip
        head = row(self._title, self._pause, self._resume, self._cancel)
        head.setStretch(0, 1)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(GRID // 2)
        layout.addLayout(head)
        layout.addWidget(self._bar)
        layout.addWidget(self._said)
        workspace.on(self._kind, call=self._show)
        workspace.blocker_changed.connect(self._show)
        workspace.of(self._kind).answered.connect(lambda *_: self._complete())
        self._show()

    @property
    def free(self) -> bool:
        """Whether no download is in progress or paused."""
        return not self._id

    def start(self, id: str) -> None:
        """Starts or resumes the download of ``id``."""
        if self._workspace.blocker:
            return
        self._id, self._stages = id, Stages(ONE)
        self._workspace.of(self._kind).forget()
        self._workspace.ask(self._kind(id))
        self._show()

    def _drop(self) -> None:
        self._workspace.cancel(self._kind)
        self._workspace.ask(DiscardParts(self._id, self._kind.datasets))
        self._id, self._last = "", Progress("")
        self._workspace.of(self._kind).forget()
        self._show()

    def _complete(self) -> None:
        done, self._id, self._last = self._id, "", Progress("")
        self.finished.emit(done)

    def _show(self) -> None:
        download = self._workspace.of(self._kind)
        self.setVisible(bool(self._id))
        self._pause.setVisible(download.busy)
        self._resume.setVisible(not download.busy)
        self._resume.setText("Try again" if download.problem else "Resume")
        self._resume.setEnabled(not self._workspace.blocker)
        self._resume.setToolTip(self._workspace.blocker)
        self._title.setText(self._id)
        self._last = download.progress or self._last
        self._bar.show_progress(self._last if download.busy or self._last.total else Progress("", 0, 1))
        restyle(self._said, role="error" if download.problem else "dim")
        if download.problem:
            self._said.setText(download.problem.message)
        elif not download.busy:
            amount = f" at {size(self._last.done)} of {size(self._last.total)}" if self._last.total else ""
            self._said.setText(f"Paused{amount}.")
        elif download.progress:
            self._said.setText(formatting.progress(download.progress, self._stages.at(download.progress)))
        else:
            self._said.setText("Waiting for the engine…")
        self.changed.emit()
