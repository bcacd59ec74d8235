"""The question whether a model's code may run, before anything that loads the model, and both answers to it."""

from __future__ import annotations

from pathlib import Path

import pytest
from PySide6.QtCore import Qt
from PySide6.QtWidgets import QDialog, QLabel, QPlainTextEdit, QPushButton
from standin import StandIn, past

from sparsezo_gui.engine.pretrained.code import Code
from sparsezo_gui.errors import ConsentNeeded
from sparsezo_gui.gui.main_window import MainWindow
from sparsezo_gui.gui.requests import EstimateMemory, ListModels, MeasureMemory, PreviewData, ReadModel
from sparsezo_gui.gui.run_requests import ListRuns
from sparsezo_gui.gui.widgets.consent import ConsentDialog
from sparsezo_gui.gui.worker import Engine
from sparsezo_gui.gui.workspace import Workspace
from sparsezo_gui.recipe import load
from sparsezo_gui.recipe.events import Ask, Stop
from tests.own_code import own_code

FILES = {"a.py": b"1", "b\n\u202ec.py": b"2" * 2048}
CODE = Code("evil/<b>model</b>", "", Path("/models/<i>evil"), "0" * 64, {}, FILES)


class Asking(StandIn):
    """Needs a consent for everything that loads a model, until it is given."""

    allowed = None

    def _fail(self, kind):
        if (
            kind in ("measure", "mask", "rates", "noise", "train", "resume", "inspect", "export")
            and self.allowed is not CODE
        ):
            raise ConsentNeeded(CODE, "It needs code of its own.")
        super()._fail(kind)

    def consent(self, code):
        self._fail("consent")
        self.allowed = code


@pytest.fixture
def engine(tmp_path):
    return Asking(tmp_path / "runs")


@pytest.fixture
def dialog(window, qtbot):
    def wait():
        found = []
        qtbot.waitUntil(lambda: bool(found.extend(window.findChildren(ConsentDialog)) or found))
        qtbot.waitExposed(found[0])
        return found[0]

    return wait


def test_what_is_asked_is_plain_text_and_the_safe_answer_is_the_default(window, click, find, dialog):
    click("Measure memory")
    asked = dialog()
    assert find("Code files", QPlainTextEdit, asked).toPlainText() == "a.py  (1 B)\nb\\n\\u202ec.py  (2 KiB)"
    assert find("Folder of the code", QLabel, asked).text() == str(CODE.folder)
    assert all(each.textFormat() == Qt.TextFormat.PlainText for each in asked.findChildren(QLabel))
    buttons = {each.accessibleName(): each for each in asked.findChildren(QPushButton)}
    assert buttons.keys() == {"Show the folder of the code", "Run the code", "Do not run the code"}
    assert [name for name, each in buttons.items() if each.isDefault() or each.autoDefault()] == ["Do not run the code"]
    assert asked.focusWidget() is buttons["Do not run the code"]
    click("Do not run the code", asked)


@pytest.mark.parametrize("answer", ["click", "escape", "enter"])
def test_refused_nothing_runs_and_the_page_says_why(window, workspace, engine, click, find, dialog, qtbot, answer):
    window.go("run")
    click("Start run")
    asked = dialog()
    if answer == "click":
        click("Do not run the code", asked)
    else:
        files = find("Code files", QPlainTextEdit, asked)
        qtbot.keyClick(files, Qt.Key.Key_Escape if answer == "escape" else Qt.Key.Key_Return)
    assert "you did not allow the model's code to run" in window.page("run").banner.text
    assert workspace.run.record.state == "failed"
    qtbot.waitUntil(lambda: not workspace.busy_with())  # the list of runs may be read anew
    assert engine.allowed is None and not (engine.home / "run").exists()


def test_allowed_what_was_asked_for_goes_on(window, workspace, engine, click, dialog, qtbot):
    workspace.change("loop", steps=5)
    window.go("run")
    click("Start run")
    click("Run the code", dialog())
    qtbot.waitUntil(lambda: workspace.run.record.state == "done")
    assert engine.allowed is CODE and not window.page("run").banner.text


def test_a_consent_that_cannot_be_noted_is_told(window, workspace, engine, click, dialog, qtbot):
    engine.faults["consent"] = OSError(28, "No space left on device")
    window.go("run")
    click("Start run")
    click("Run the code", dialog())
    qtbot.waitUntil(lambda: "disk is full" in window.page("run").banner.text)
    assert engine.allowed is None and workspace.run.record.state == "failed"


def test_a_question_to_a_finished_run_waits_for_the_answer(window, workspace, engine, click, dialog, qtbot):
    folder = engine.home / "past"
    folder.mkdir(parents=True)
    engine.histories[folder] = past()
    workspace.run.inspect(folder, Ask("What is it?"))
    click("Run the code", dialog())
    qtbot.waitUntil(lambda: bool(engine.asked))
    assert engine.asked == [Ask("What is it?")]


def test_a_run_whose_code_changed_on_the_way_is_resumed(window, workspace, engine, click, dialog, qtbot):
    engine.allowed = CODE
    engine.faults["step"] = ConsentNeeded(CODE, "It needs code of its own.")
    window.go("run")
    click("Start run")
    asked = dialog()
    del engine.faults["step"]
    click("Run the code", asked)
    qtbot.waitUntil(lambda: workspace.run.record.state == "running" and workspace.run.record.step > 100)
    workspace.run.command(Stop())
    qtbot.waitUntil(lambda: not workspace.run.running)


def test_that_one_model_needs_its_code_says_nothing_of_another(window, workspace, enter, qtbot):
    workspace.change("model", trust_remote_code=True)
    enter("Model folder or Hub id", "other/model")
    assert workspace.recipe.model.id == "other/model" and not workspace.recipe.model.trust_remote_code
    workspace.change("model", trust_remote_code=True)
    models = window.page("model").list
    models.setCurrentRow(2)
    qtbot.keyClick(models, Qt.Key.Key_Return)
    assert workspace.recipe.model.id == "Qwen/Qwen3-0.6B" and not workspace.recipe.model.trust_remote_code


def test_opening_a_strangers_recipe_runs_nothing_of_its_model(tmp_path, qtbot):
    marker = tmp_path / "marker"
    folder = own_code(tmp_path / "model", marker)
    rows = (f'{{"text": "a {number}", "label": "{"yes" if number % 2 else "no"}"}}' for number in range(40))
    (tmp_path / "data.jsonl").write_text("\n".join(rows))
    path = tmp_path / "r.toml"
    path.write_text(
        f'[model]\nid = "{folder}"\ndevice = "cpu"\ntrust_remote_code = true\n[data]\nsource = "data.jsonl"\n'
        'template = "{{ text }}"\ncolumns = { answer = "label" }\n[mask]\nrule = "random"\n'
    )
    workspace = Workspace(Engine())
    workspace.set_recipe(load(path), path)
    window = MainWindow(workspace)
    window.show()
    while window.make_next_page():
        pass
    window.go("data")
    try:
        workspace.start()
        known = (ListModels, ReadModel, PreviewData, ListRuns)
        qtbot.waitUntil(lambda: all(workspace.of(kind).answer is not None for kind in known))
        qtbot.waitUntil(lambda: workspace.of(EstimateMemory).problem is not None)
        assert "needs the Python code that comes with it" in workspace.of(ReadModel).answer.problem
        assert "needs the Python code that comes with it" in workspace.of(EstimateMemory).problem.message
        assert not window.findChildren(QDialog) and not marker.exists()
        for answer, done in (("Do not run the code", "problem"), ("Run the code", "answer")):
            qtbot.waitUntil(lambda: not workspace.blocker)
            workspace.measure()
            qtbot.waitUntil(lambda: bool(window.findChildren(ConsentDialog)))
            asked = window.findChildren(ConsentDialog)[-1]
            buttons = {each.accessibleName(): each for each in asked.findChildren(QPushButton)}
            assert not marker.exists()
            qtbot.mouseClick(buttons[answer], Qt.MouseButton.LeftButton)
            qtbot.waitUntil(lambda done=done: getattr(workspace.of(MeasureMemory), done) is not None)
            assert marker.exists() == (done == "answer")
            qtbot.waitUntil(lambda: not window.findChildren(ConsentDialog))
        assert workspace.memory.measured and workspace.of(EstimateMemory).answer.total > 0
    finally:
        assert workspace.close(20.0)
        window.close()
        window.deleteLater()
        workspace.deleteLater()
