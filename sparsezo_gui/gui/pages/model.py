"""The model, and the precision and device to load it with: bundled, on this computer, or a typed id."""

from __future__ import annotations

from typing import Any

from PySide6.QtGui import QGuiApplication
from PySide6.QtWidgets import QFileDialog, QGridLayout, QLineEdit, QListWidgetItem, QTabWidget, QWidget

from sparsezo_gui import resources
from sparsezo_gui.answers import ModelSummary
from sparsezo_gui.gui.formatting import count, size
from sparsezo_gui.gui.hub_requests import RemoveDownload
from sparsezo_gui.gui.model_entries import KINDS, entry_of, recent_entry, recent_models, remember
from sparsezo_gui.gui.problems import Problem
from sparsezo_gui.gui.recommended import in_order, recommended
from sparsezo_gui.gui.requests import CheckComputer, CheckFits, EstimateMemory, ListModels, ReadModel
from sparsezo_gui.gui.theme import GRID
from sparsezo_gui.gui.widgets.basic import Page, button, card, clear, column, label, row
from sparsezo_gui.gui.widgets.dialogs import Confirmation
from sparsezo_gui.gui.widgets.fields import Combo, SettingField
from sparsezo_gui.gui.widgets.hub import DownloadBar, HubSearch
from sparsezo_gui.gui.widgets.memory import verdict_of
from sparsezo_gui.gui.widgets.model_list import ID, Entry, ModelList
from sparsezo_gui.gui.widgets.safe_text import safe_name
from sparsezo_gui.gui.widgets.sides import NARROW, Sides
from sparsezo_gui.gui.wording import in_form_words
from sparsezo_gui.gui.workspace import Workspace
from sparsezo_gui.recipe.recipe import ModelTable

BITS = [
    ("4 bits (NF4, smallest)", "4"), ("8 bits (int8, fastest)", "8 int8"), ("8 bits", "8"),
    ("16 bits", "16"), ("32 bits (full precision)", "32"),
]  # fmt: skip
"""Title and value: the bits, and the compute type unless the device decides."""
DEVICES = [("Automatic", "auto"), ("CPU", "cpu"), ("CUDA GPU", "cuda")]


class ModelPage(Page):
    """The list on the left, the selected model on the right."""

    def __init__(self, workspace: Workspace) -> None:
        super().__init__("Model", "Choose the model to tune. Its files are never changed.")
        self._workspace = workspace
        self.list = ModelList("Models on this computer")
        self.offered = ModelList("Recommended models")
        for each in (self.list, self.offered):
            each.itemClicked.connect(self._chosen)
            each.itemActivated.connect(self._chosen)
        self._empty = label("", "dim", wrap=True)
        main = Sides(self._make_choice(), self._make_detail(), stacked=NARROW, spacing=2 * GRID)
        main.box.setStretch(0, 5)
        main.box.setStretch(1, 6)
        self.body.addWidget(main, 1)
        self.body.addLayout(row(None, button("Continue to Data", lambda: self.go_to.emit("data"))))
        workspace.on(ListModels, CheckFits, call=self._fill)
        workspace.on(ListModels, CheckFits, call=self._show)
        workspace.on(ReadModel, call=self._show)
        workspace.on(RemoveDownload, CheckComputer, call=self._show)
        workspace.of(RemoveDownload).answered.connect(lambda *_: self._reload())
        workspace.blocker_changed.connect(self._show_delete)
        workspace.on(EstimateMemory, call=self._offer)
        workspace.recipe_changed.connect(self._refresh)
        self._refresh()

    def _make_detail(self) -> QWidget:
        """The selected model: its facts, precision and device."""
        self._title = label("", "figure", wrap=True, name="Selected model")
        self._facts = QGridLayout()
        self._facts.setHorizontalSpacing(2 * GRID)
        self._facts.setVerticalSpacing(GRID // 2)
        self._facts.setColumnStretch(1, 1)
        self._problem = label("", "error", wrap=True, name="Model problem")
        self._bits = Combo("Bits per weight")
        self._bits.fill(BITS, _precision(self._workspace.recipe.model))
        self._bits.currentIndexChanged.connect(self._set_precision)
        self._device = Combo("Device")
        self._device.currentIndexChanged.connect(lambda: self._set(device=self._device.currentData()))
        self._revision = SettingField("revision", ModelTable.model_fields["revision"], "model")
        self._trust = SettingField("trust_remote_code", ModelTable.model_fields["trust_remote_code"], "model")
        for field in (self._revision, self._trust):
            field.edited.connect(lambda name, value: self._set(**{name: value}))
        return card(
            self._title, self._facts, self._problem, GRID, label("Precision and device", "heading"),
            row(column(label("Bits per weight"), self._bits, spacing=4),
                column(label("Device"), self._device, spacing=4), spacing=2 * GRID),
            label("Fewer bits need less memory; int8 is fastest without a GPU. The tuned weights always keep full "
                  "precision.", "hint", wrap=True),
            self._revision, self._trust, None,
        )  # fmt: skip

    def _make_choice(self) -> QWidget:
        """The models on this computer, others by name, and those on the Hub; below them a download."""
        workspace = self._workspace
        self._id = QLineEdit()
        self._id.setAccessibleName("Model folder or Hub id")
        self._id.setPlaceholderText("A folder, a GGUF file, or a Hub id")
        self._id.returnPressed.connect(self._typed)
        use = button("Use", self._typed, name="Use this model")
        browse = button("Folder…", self._browse, image="folder", name="Choose a model folder")
        self._delete = button("Delete…", self._ask_delete, name="Delete the selected model",
                              tip="Removes a downloaded model from this computer.")  # fmt: skip
        self._get = button("Download", lambda: self.downloads.start(workspace.recipe.model.id), image="download",
                           name="Download the selected model")  # fmt: skip
        below = row(self._empty, None, self._delete)
        below.setStretch(0, 99)
        here = QWidget()
        here.setLayout(column(self.list, below, row(self._id, use, browse)))
        self.downloads = DownloadBar(workspace)
        self.hub = HubSearch(workspace, self.downloads)
        self.hub.chosen.connect(lambda id: self._set(id=id, revision="main", trust_remote_code=False))
        tabs = QTabWidget()
        tabs.setAccessibleName("Where to look for models")
        tabs.setDocumentMode(True)
        offered = QWidget()
        ask = "Small open models from the Hub. Those that fit this computer come first."
        note = row(label(ask, "hint", wrap=True), self._get)
        note.setStretch(0, 1)
        offered.setLayout(column(self.offered, note))
        tabs.addTab(here, "This computer")
        tabs.addTab(offered, "Recommended")
        tabs.addTab(self.hub, "Hub")
        self.downloads.finished.connect(lambda _: self._reload())
        self.downloads.finished.connect(lambda _: tabs.setCurrentIndex(0))
        return card(tabs, self.downloads)

    def _reload(self) -> None:
        """Lists the models again, and asks again about the recipe's."""
        self._workspace.ask(ListModels())
        self._workspace.look_again()

    def _ask_delete(self) -> None:
        if model := self._downloaded():
            sentence = (
                f"Delete {safe_name(model.id)} ({size(model.bytes)}) from this computer?\n\n"
                "It can be downloaded again. Runs that tuned it need it to resume."
            )
            delete = lambda: self._workspace.ask(RemoveDownload(model.id, False))  # noqa: E731
            Confirmation("Delete model", sentence, "Delete", delete, self.window()).open()

    def _downloaded(self) -> ModelSummary | None:
        """The selected model, if it was downloaded from the Hub."""
        models, wanted = self._workspace.of(ListModels).answer or [], self._workspace.recipe.model.id
        return next((model for model in models if model.id == wanted and model.kind == "cache"), None)

    def _set(self, **values: Any) -> None:
        self._say(self._workspace.change("model", **values))

    def _say(self, problem: str) -> None:
        self._problem.setText(in_form_words(problem))
        self._problem.setVisible(bool(problem))

    def _fill(self) -> None:
        workspace, used = self._workspace, self._workspace.recipe.model.id
        models = workspace.of(ListModels).answer
        fits = workspace.of(CheckFits).answer or {}
        # The bundled models are known before the engine answers.
        entries = [
            entry_of(m, fits.get(m.id, ""))
            for m in models or [ModelSummary(name, name, "bundled") for name in resources.BUNDLED_MODELS]
        ]
        found, known = len(entries), {entry.id for entry in entries}
        recent = [recent_entry(id) for id in recent_models(workspace.store)]
        entries += [entry for entry in recent if entry.id not in known]
        if used not in {entry.id for entry in entries}:
            entries.insert(0, Entry(used, used, "in use", "model"))
        self.list.show_entries(entries, used)
        waiting = models is None and workspace.of(ListModels).problem is None
        self._empty.setVisible(waiting or found <= 1)
        self._empty.setText(
            "Looking for models on this computer…"
            if waiting
            else "No other models here yet. Look at the recommended ones or on the Hub, or choose a folder."
        )
        self._offer()

    def _offer(self) -> None:
        """The recommended models, those that fit first."""
        memory, models = self._workspace.of(EstimateMemory).answer, self._workspace.of(ListModels).answer or []
        here = {model.id for model in models}
        ordered = in_order(memory.available) if memory else [(each, "") for each in recommended()]
        self.offered.show_entries([
            Entry(each.id, each.id.split("/")[1], f"{count(each.parameters)} · {size(each.bytes)} · {each.family} · "
                  f"{each.licence}{' · downloaded' if each.id in here else ''}", "model" if each.id in here else
                  "download", *(verdict_of(verdict) if verdict else ("", "")))
            for each, verdict in ordered
        ], self._workspace.recipe.model.id)  # fmt: skip

    def _chosen(self, item: QListWidgetItem) -> None:
        wanted = item.data(ID)
        if wanted != self._workspace.recipe.model.id:
            self._set(id=wanted, revision="main", trust_remote_code=False)

    def use(self, id: str) -> None:
        """Takes a model folder, a file or an id of the Hub, and remembers it."""
        remember(self._workspace.store, id)
        self._set(id=id, trust_remote_code=False)

    def _typed(self) -> None:
        if text := self._id.text().strip():
            self.use(text)

    def _browse(self) -> None:
        folder = QFileDialog.getExistingDirectory(self, "Choose a model folder")
        if folder:
            self._id.setText(folder)
            self.use(folder)

    def _set_precision(self) -> None:
        bits, _, compute = self._bits.currentData().partition(" ")
        self._set(bits=int(bits), compute=compute or "auto")
        self._bits.choose(_precision(self._workspace.recipe.model))  # a refused value is not shown as selected

    def _refresh(self) -> None:
        model = self._workspace.recipe.model
        self._fill()
        self._bits.choose(_precision(model))
        other = [] if model.device in ("auto", "cpu", "cuda") else [(safe_name(model.device), model.device)]
        self._device.fill([*DEVICES, *other], model.device)
        self._revision.set_value(model.revision)
        self._trust.set_value(model.trust_remote_code)
        self._show()

    def _show(self) -> None:
        workspace, model = self._workspace, self._workspace.recipe.model
        summary, problem = workspace.model, workspace.of(ReadModel).problem
        clear(self._facts)
        self._title.setText((summary.title if summary else "") or model.id)
        self._say(problem.message if problem else summary.problem if summary else "")
        defect = problem if problem and problem.is_bug else None
        problems = workspace.problem_of(RemoveDownload, ListModels, CheckComputer)
        if problems or defect:
            self.banner.track(problems or defect)
        else:
            self._show_computer()
        self._show_delete()
        kind = summary.kind if summary else "hub" if problem else ""  # a wrong revision may be the problem
        self._revision.setVisible(kind in ("cache", "hub"))
        needs = bool(problem and problem.code) or bool(summary and summary.code)
        self._trust.setVisible(needs or model.trust_remote_code)
        if problem is None and summary is None:
            self._facts.addWidget(label("Details appear once the engine is loaded.", "dim"), 0, 0)
        elif problem is None and summary is not None:
            for line, (name, value) in enumerate(_facts(summary)):
                self._facts.addWidget(label(name, "dim"), line, 0)
                self._facts.addWidget(label(value, wrap=True), line, 1)

    def _show_computer(self) -> None:
        """What is wrong with this computer, and a button that copies the commands that mend it."""
        wrong = [each for each in self._workspace.of(CheckComputer).answer or [] if each.problem]
        told = Problem("\n".join(f"{each.problem} {each.command}".rstrip() for each in wrong)) if wrong else None
        commands = "\n".join(each.command for each in wrong if each.command)
        copy = ("Copy command", lambda: QGuiApplication.clipboard().setText(commands)) if commands else None
        self.banner.track(told, "warning", copy)

    def _show_delete(self) -> None:
        blocker, models = self._workspace.blocker, self._workspace.of(ListModels).answer or []
        self._delete.setVisible(self._downloaded() is not None)
        self._delete.setEnabled(not blocker)
        here, used = {model.id for model in models}, self._workspace.recipe.model.id
        self._get.setEnabled(not blocker and self.downloads.free and used not in here and used in
                             {each.id for each in recommended()})  # fmt: skip
        self._get.setToolTip(blocker)


def _facts(model: ModelSummary) -> list[tuple[str, str]]:
    facts = [
        ("Family", model.family), ("Parameters", count(model.parameters) if model.parameters else ""),
        ("Files", size(model.bytes) if model.bytes else ""), ("Licence", model.licence or "not stated"),
        ("Source", KINDS.get(model.kind, model.kind or "")),
        ("Access", "gated: accept the terms on the Hub first" if model.gated else ""),
    ]  # fmt: skip
    return [(name, str(value)) for name, value in facts if value]


def _precision(model: ModelTable) -> str:
    """The value in `BITS` for a recipe's model."""
    return f"{model.bits} int8" if model.compute == "int8" else str(model.bits)
