"""What a stranger wrote is shown in the window as it stands there: a walk over all that it says, with real files."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PySide6.QtCore import QAbstractItemModel, QAbstractListModel, QEvent, QModelIndex, QSettings, Qt
from PySide6.QtGui import QAction, QHelpEvent, QTextDocument
from PySide6.QtGui import Qt as TextQt
from PySide6.QtWidgets import (
    QAbstractButton,
    QAbstractItemView,
    QApplication,
    QComboBox,
    QDockWidget,
    QGroupBox,
    QLabel,
    QLineEdit,
    QMenu,
    QMessageBox,
    QPlainTextEdit,
    QTextEdit,
    QToolTip,
    QWidget,
)
from shiboken6 import isValid
from standin import StandIn, listed

from sparsezo_gui.answers import DataPreview, History, ModelSummary, RunSummary
from sparsezo_gui.gui import help
from sparsezo_gui.gui.calls import Work
from sparsezo_gui.gui.pages import PAGES
from sparsezo_gui.gui.plots.overlay import Overlay
from sparsezo_gui.gui.record import RunRecord
from sparsezo_gui.gui.widgets import safe_text
from sparsezo_gui.gui.widgets.basic import button
from sparsezo_gui.gui.widgets.dialogs import RecipeDialog
from sparsezo_gui.gui.widgets.run_tree import CURVE, RunTree
from sparsezo_gui.gui.widgets.safe_text import (
    LONGEST,
    LONGEST_NAME,
    LONGEST_TIP,
    WIDEST,
    Label,
    menu_text,
    safe_name,
    tooltip,
    window_title,
)
from sparsezo_gui.recipe import Recipe
from sparsezo_gui.recipe import events as e
from tests import hostile
from tests.hostile import NAME, SHOWN, STEERS, TEXT

ROLES = (Qt.ItemDataRole.DisplayRole, Qt.ItemDataRole.ToolTipRole, Qt.ItemDataRole.StatusTipRole,
         Qt.ItemDataRole.WhatsThisRole)  # fmt: skip
EXACT = ("Prompt", "Prompt template")  # editors of what is used to the letter; so are those of a line


class Hostile(StandIn):
    """Real files in a stranger's hands; only training and answers are played."""

    def __init__(self, home: Path, folder: Path) -> None:
        super().__init__(home)
        self.recipe = hostile.recipe(folder)
        self.run = hostile.run(folder, self.recipe)

    def models(self) -> list[ModelSummary]:
        """The model, and another without weights."""
        from sparsezo_gui.engine.hub.library import summary

        broken = self.recipe.parent / f"broken {NAME}"
        broken.mkdir(exist_ok=True)
        (broken / "config.json").write_text('{"model_type": "<b>bold"}')
        return [summary(str(folder)) for folder in (self.recipe.parent / NAME, broken)]

    def preview(self, recipe: Recipe, page: int) -> Work[DataPreview]:
        """The real one."""
        from sparsezo_gui.engine.planning import preview_data

        return preview_data(recipe, page)

    def runs(self, also: Path | None) -> list[RunSummary]:
        """The run, and a damaged one."""
        from sparsezo_gui.engine.runs.listing import list_runs

        broken = self.run.path.parent / f"damaged {NAME}"
        broken.mkdir(exist_ok=True)
        (broken / "run.json").write_text("{")
        return [*list_runs(self.run.path), *list_runs(broken)]

    def history(self, folder: Path) -> History:
        """The real one."""
        from sparsezo_gui.engine.runs.history import history

        return history(folder)

    def train(self, recipe: Any, commands: Any, first: int = 1, folder: Path | None = None) -> Iterator[e.Event]:
        """Says what a stranger's code could have it say."""
        yield e.Progress(NAME, 1, 2, NAME)
        yield e.Started(str(self.home / NAME), NAME, 1, 5, 1, 1, 1, f"CPU {NAME}")
        yield e.Evaluation(0, NAME, {NAME: 1.0, "accuracy": 0.5, "examples": 2})
        yield e.Notice(TEXT, "warning")
        shown = {"number": 1, "loss": 1.0, "prompt": TEXT, "expected": TEXT, "answer": TEXT}
        yield e.Examples(0, NAME, [shown], [shown])
        while not (yield from self._commands(commands, 0)):
            yield e.Paused(0, f"another program {NAME}")

    def _answer(self, asked: e.Ask, step: int) -> Iterator[e.Event]:
        for sign in TEXT:
            yield e.Answer(step, sign)
        yield e.Answer(step, "", last=True)


@pytest.fixture
def engine(tmp_path):
    return Hostile(tmp_path / "home" / "runs", tmp_path)


def seen(text: str) -> str:
    """What a tooltip or a label of Qt's own guess shows of a text."""
    document = QTextDocument()
    if TextQt.mightBeRichText(text):
        document.setHtml(text)
    else:
        document.setPlainText(text)
    return document.toPlainText()


def columns(model: QAbstractItemModel, parent: QModelIndex) -> int:
    return 1 if isinstance(model, QAbstractListModel) else model.columnCount(parent)  # private in lists


def items(model: QAbstractItemModel, parent: QModelIndex | None = None) -> Iterator[QModelIndex]:
    parent = parent or QModelIndex()
    for row in range(model.rowCount(parent)):
        for column in range(columns(model, parent)):
            yield model.index(row, column, parent)
        yield from items(model, model.index(row, 0, parent))


def hovered(widget: QWidget, at: Any) -> str:
    """The tooltip that comes up there."""
    QToolTip.hideText()
    QApplication.sendEvent(widget, QHelpEvent(QEvent.Type.ToolTip, at, widget.mapToGlobal(at)))
    return QToolTip.text()


def texts(widget: QWidget) -> Iterator[tuple[str, str]]:
    """Every text that a widget shows, as it is seen, with what it is."""
    for what in ("toolTip", "statusTip", "whatsThis"):
        yield what, seen(getattr(widget, what)())
    if widget.isVisible() and not isinstance(widget, QMenu):
        yield "hovered", seen(hovered(widget, widget.rect().center()))
    if isinstance(widget, QLabel):
        plain = widget.textFormat() == Qt.TextFormat.PlainText
        assert plain or not widget.text() or _of_plots(widget), f"a label that may read mark-up: {widget.text()!r}"
        yield "label", widget.text()
    elif isinstance(widget, QAbstractButton):
        yield "button", _without_keys(widget.text())
    elif isinstance(widget, QComboBox):
        for index in range(widget.count()):
            yield "entry", widget.itemText(index)
    elif isinstance(widget, QPlainTextEdit):
        yield "text", widget.toPlainText()
    elif isinstance(widget, QTextEdit):
        yield "text", widget.toPlainText()
        assert "file:" not in widget.toHtml() and "<a " not in widget.toHtml()
    elif isinstance(widget, QMenu):
        widget.aboutToShow.emit()
        for action in widget.actions():
            yield from _of_action(action)
    elif isinstance(widget, QDockWidget | QGroupBox):
        yield "title", widget.windowTitle()
    elif isinstance(widget, QMessageBox):
        assert widget.textFormat() == Qt.TextFormat.PlainText
    if widget.isWindow():
        yield "title", widget.windowTitle().replace("[*][*]", "[*]")
    if isinstance(widget, QAbstractItemView) and widget.model() is not None:
        model = widget.model()
        for index in items(model):
            for role in ROLES:
                text = str(index.data(role) or "")
                yield role.name, text if role == Qt.ItemDataRole.DisplayRole else seen(text)
        for way, count in ((Qt.Orientation.Horizontal, columns(model, QModelIndex())), (Qt.Orientation.Vertical, 1)):
            for section in range(count):
                yield "head", str(model.headerData(section, way) or "")
                yield "tip of a head", seen(str(model.headerData(section, way, Qt.ItemDataRole.ToolTipRole) or ""))


def _of_action(action: QAction) -> Iterator[tuple[str, str]]:
    assert "\t" not in action.text()
    yield "action", _without_keys(action.text())
    yield "tip of an action", seen(action.statusTip())


def _without_keys(text: str) -> str:
    return text.replace("&&", "\0").replace("&", "").replace("\0", "&")


def _of_plots(widget: QWidget) -> bool:
    """Whether it is of the menus that pyqtgraph makes, with its own words."""
    while widget is not None:
        if type(widget).__module__.startswith("pyqtgraph") or isinstance(widget, QMenu):
            return True
        widget = widget.parentWidget()
    return False


def walk() -> list[tuple[str, str]]:
    """All that the window and its dialogs say now. Whatever of it a stranger wrote must be there to the letter."""
    found = []
    for widget in QApplication.allWidgets():
        if not isValid(widget) or widget.objectName() == "qtooltip_label":  # it comes and goes; see `hovered`
            continue
        owner = widget.parentWidget() if isinstance(widget.parentWidget(), QAbstractItemView) else widget
        for what, text in texts(widget):
            if not isinstance(widget, QLineEdit) and widget.accessibleName() not in EXACT:
                where = f"{what} of {type(owner).__name__} {owner.accessibleName()!r}"
                assert not STEERS.search(text), (where, text)
                assert text.count("[bold]") <= text.count("<b>bold<i>"), (where, text)
                found.append((where, text))
    return found


@pytest.fixture
def said(window, workspace, engine, qtbot, find, click):
    """What is said on every page, with the stranger's recipe, run, data and answers."""
    window.open_recipe(engine.recipe)
    found = []
    qtbot.waitUntil(lambda: not workspace.busy_with())
    for name in PAGES:
        window.go(name)
        qtbot.waitUntil(lambda: not workspace.busy_with())
        found += walk()
    window.go("runs")
    runs = find("Runs")
    runs.setCurrentItem(runs.findItems("<b>", Qt.MatchFlag.MatchStartsWith)[0])
    found += walk()
    click("Branch from this step")
    window.show_text()
    found += walk()
    for dialog in window.findChildren(RecipeDialog):
        dialog.reject()
    window.go("run")
    window.chat.show()
    workspace.train()
    qtbot.waitUntil(lambda: bool(workspace.run.record and workspace.run.record.examples))
    find("Prompt").setPlainText(TEXT)
    window.chat.ask()
    qtbot.waitUntil(lambda: not any(each.waiting for each in window.chat._exchanges))
    found += walk()
    window.close()  # asks
    found += walk()
    for box in window.findChildren(QMessageBox):
        box.reject()
    click("Stop run")
    qtbot.waitUntil(lambda: not workspace.run.running)
    return found


def test_nothing_is_read_as_mark_up(said):
    def shown(*words: str) -> list[str]:
        return [text for where, text in said if SHOWN in text and all(word in where for word in words)]

    for words in (
        ("label", "Selected model"), ("ToolTipRole", "Models on this computer"), ("DisplayRole", "Models on this"),
        ("DisplayRole", "Rows of the data"), ("ToolTipRole", "Rows of the data"), ("hovered", "Rows of the data"),
        ("head of", "Rows of the data"), ("tip of a head", "Rows of the data"), ("text of TokenView",),
        ("DisplayRole", "Runs"), ("ToolTipRole", "Runs"),
        ("text", "'Notes'"),
        ("label", "Run details"), ("label", "Tuned model's answer"), ("label", "Base model's answer"),
        ("DisplayRole", "Notices"), ("DisplayRole", "Examples"), ("entry", "Run to export"),
        ("action of QMenu",), ("title of MainWindow",), ("label", "State of the run"), ("label", "Run state"),
    ):  # fmt: skip
        assert shown(*words), f"not seen, so not tried: {words}"
    answers = shown("label", "Tuned model's answer")
    assert any("שלום\u200f, می\u200cخواهم" in text for text in answers), "letters keep their marks"


def test_no_other_module_writes_mark_up():
    """So that what this walk does not open cannot forget it either. The help shows bundled pages alone."""
    for path in Path(safe_text.__file__).parents[1].rglob("*.py"):
        text = path.read_text(encoding="utf-8")
        if path == Path(help.__file__):
            text = text.replace("QTextBrowser", "").replace("self.setOpenExternalLinks(True)", "")
        words = ["QLabel(", "QTextBrowser", "setHtml", "insertHtml", "appendHtml", "setOpenExternalLinks", "RichText"]
        words += [f"QMessageBox.{each}(" for each in ("about", "critical", "information", "question", "warning")]
        found = [word for word in words if word in text]
        assert not found or path == Path(safe_text.__file__), (path.name, found)
        for call in ("QToolTip.showText(", "setToolTip(0, "):
            safe = sum("tooltip(" in rest.split("\n")[0] for rest in text.split(call)[1:])
            assert text.count(call) == safe, path.name


def test_a_legend_and_the_tips_of_curves_and_buttons_show_what_they_are_told(qtbot, tmp_path):
    overlay, record = Overlay("Curves"), RunRecord()
    qtbot.addWidget(overlay)
    record.name = NAME
    overlay.show_records([record, record])
    for _ in range(2):
        assert [entry.item.toPlainText() for _, entry in overlay.panel.legend.items] == [f"{NAME[:23]}…"] * 2
        overlay.panel.repaint_all()
    tree = RunTree(QSettings())
    qtbot.addWidget(tree)
    tree.show_runs([listed(tmp_path / "run", metric=NAME)], "")
    assert seen(tree.topLevelItem(0).toolTip(CURVE)).startswith(SHOWN[:40])
    press = button("Start", tree.clear)
    qtbot.addWidget(press)
    press.setToolTip(f"There is no column '{NAME}'.")
    assert SHOWN in seen(press.toolTip())


def test_a_label_shows_what_it_is_told(qtbot):
    label = Label("<b>bold</b>\u202e\u200b\nx")
    qtbot.addWidget(label)
    assert label.textFormat() == Qt.TextFormat.PlainText and label.text() == "<b>bold</b>\\u202e\\u200b\nx"
    read = Label("שלום\u200f\u202e", read=True)
    qtbot.addWidget(read)
    assert read.text() == "שלום\u200f\\u202e"


def test_texts_without_end_are_cut(qtbot):
    label = Label("x" * 10**6)
    qtbot.addWidget(label)
    assert (len(label.text()), len(safe_name("x" * 10**6))) == (LONGEST, LONGEST_NAME)
    assert seen(tooltip("x" * 10**6)).count("x") == LONGEST_TIP - 1


def test_a_long_word_goes_on_in_the_next_line(qtbot):
    label = Label("x" * 400)
    qtbot.addWidget(label)
    label.setWordWrap(True)
    assert label.text() == "x" * 400 and label.minimumSizeHint().width() < WIDEST
    assert label.heightForWidth(WIDEST) > 3 * label.fontMetrics().height()
    QToolTip.showText(label.pos(), tooltip("x" * 2000), label)
    [shown] = [each for each in QApplication.topLevelWidgets() if each.objectName() == "qtooltip_label"]
    assert shown.width() < 1280
    QToolTip.hideText()


def test_what_may_be_copied_is_to_the_letter(qtbot):
    label = Label()
    qtbot.addWidget(label)
    label.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
    label.setText("x" * 400)
    assert QLabel.text(label) == "x" * 400


def test_no_name_makes_the_window_wider(window, workspace, qtbot, engine):
    narrow = window.minimumSizeHint().width()
    workspace.train()
    qtbot.waitUntil(lambda: bool(workspace.run.record and workspace.run.record.examples))
    workspace.run.record.name = "x" * 10**5
    workspace.run.changed.emit()
    window.go("run")
    qtbot.wait(20)
    assert window.minimumSizeHint().width() < narrow + 1.5 * WIDEST
    workspace.run.command(e.Stop())
    qtbot.waitUntil(lambda: not workspace.run.running)


def test_names_in_menus_and_titles():
    assert menu_text("a&b\tCtrl+Q") == "a&&b\\tCtrl+Q"
    assert window_title("a[*]b") == "a[*][*]b"
    assert seen(tooltip("<b>a & b</b>\n  c")) == "<b>a & b</b>\n  c" and tooltip("") == ""
