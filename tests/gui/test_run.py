"""A run in the window: start, pause, stop, resume, failure, closing, and coming back."""

from __future__ import annotations

import gc
import math
import sys

import numpy as np
import pytest
from conftest import shares
from PySide6.QtCore import QObject, Qt, Signal
from PySide6.QtGui import QPixmap
from PySide6.QtWidgets import QApplication, QGraphicsView, QLabel, QMessageBox, QPushButton
from standin import past

from sparsezo_gui.errors import UserError
from sparsezo_gui.gui.app import exit_code, result_lines
from sparsezo_gui.gui.main_window import MainWindow
from sparsezo_gui.gui.plots.board import Board
from sparsezo_gui.gui.record import Columns, RunRecord
from sparsezo_gui.gui.requests import EstimateMemory
from sparsezo_gui.gui.theme import colours
from sparsezo_gui.gui.widgets.dialogs import RateDialog
from sparsezo_gui.gui.workspace import Workspace
from sparsezo_gui.recipe import events as e
from sparsezo_gui.recipe.events import EvaluateNow, Evaluation, Pause, Progress, Resume, SetRate, Started, Step
from sparsezo_gui.stages import starting


@pytest.fixture
def run(window, workspace):
    workspace.change("loop", steps=120)
    window.go("run")
    return window.page("run")


def state(qtbot, workspace, *wanted: str) -> None:
    qtbot.waitUntil(lambda: workspace.run.record is not None and workspace.run.record.state in wanted)


def test_a_whole_run(run, click, find, workspace, qtbot):
    click("Start run")
    state(qtbot, workspace, "done")
    qtbot.waitUntil(lambda: find("Step").text() == "120 of 120")
    assert workspace.run.record.columns.size == 120
    shown = [part.text() for part in run.metrics.findChildren(QLabel)]
    assert "25.0 %" in shown and "88.0 %" in shown and "better" in shown
    assert "Perplexity on general text: 20 before, 20.4 after (+2.0 %)" in shown
    assert "Warning. Step 40: The loss jumped" in run.notices.item(0).text()
    lines = result_lines(workspace.run.record)
    assert "test accuracy: 25.0 % before, 88.0 % after" in lines
    assert "perplexity on general text: 20 before, 20.4 after (+2.0 %)" in lines
    assert not workspace.run.running


def test_the_first_examples_are_shown_until_the_base_model_is_measured_and_never_compared(run):
    def shown():
        run.metrics.show_record(record)
        return [part.text() for part in run.metrics.findChildren(QLabel)]

    record = RunRecord()
    part = Evaluation(0, "validation", {"accuracy": 0.5, "loss": 1.0, "examples": 64}, partial=True)
    base, later = (Evaluation(step, "validation", {"accuracy": step / 10, "examples": 120}) for step in (0, 4))
    record.add([part])
    assert record.before_after() == (part, None)
    assert "50.0 %" in shown() and "First 64 validation examples" in shown()
    record.add([later])
    assert record.before_after() == (None, later) and "better" not in shown() and "50.0 %" not in shown()
    record.add([base])
    assert record.before_after() == (base, later) and record.evaluations == [base, later]
    assert "better" in shown() and "Validation, 120 examples" in shown()


@pytest.mark.parametrize(
    ("fault", "code"), [(None, 0), (UserError("no column goes in"), 2), (ValueError("broken"), 1), (MemoryError(), 1)]
)
def test_the_exit_code_says_whose_fault_it_was(run, click, workspace, engine, qtbot, fault, code):
    engine.faults = {"train": fault} if fault else {}
    click("Start run")
    state(qtbot, workspace, "done", "failed")
    assert exit_code(workspace) == code


def test_the_preparation_is_one_bar_until_the_first_step(run, click, find, workspace, engine, qtbot):
    engine.pace, bar, seen = 0.2, find("Run progress"), []
    labels = [find(name) for name in ("State of the run", "What happens next")]

    def look():
        run.refresh()
        seen.append((bar.maximum(), bar.value(), *(label.text() for label in labels)))

    workspace.run.advanced.connect(look)
    click("Start run")
    qtbot.waitUntil(lambda: workspace.run.record.step > 1)
    run.refresh()
    assert bar.maximum() == 120 and bar.value() == workspace.run.record.step
    parts = [(value, *texts) for maximum, value, *texts in seen if maximum == 1000]
    fractions = [value for value, *_ in parts]
    assert fractions == sorted(fractions) and 0 < fractions[-1] <= 1000
    stage = f"of 32 sequences (stage 4 of {len(starting(workspace.recipe))}"
    assert any(stage in below and stage not in above for _, above, below in parts), "it is told once"
    click("Stop run")
    state(qtbot, workspace, "stopped")


def test_the_search_for_a_rate_is_plotted_before_the_first_step(run, find, workspace):
    record = RunRecord()
    trials = [e.Trial(0.1, math.nan, [3.0]), e.Trial(0.01, 1.5, [2.0, 1.0])]
    record.add([e.RateFound(0.01, 2.0, 9, 1.0, trials)])
    steps, losses = record.trials
    assert steps.tolist() == [-4, -3, -2, -1, 0]
    assert losses[[0, 2, 3]].tolist() == [3, 2, 1] and np.isnan(losses[[1, 4]]).all()
    record.add([e.Step(1, 1.2, 0.1, 0.01, 0.1, 1, 1)])
    workspace.run.record = record
    run.refresh()
    assert find("Values at the crosshair").text().startswith("Left of 0: trials")
    run.board.show_record(record, "Memory")
    drawn, _ = run.board._trials.getOriginalDataset()
    assert drawn.tolist() == steps.tolist()


def test_a_resumed_run_has_other_stages():
    record = RunRecord()
    record.prepare(resumed=True)
    record.add([Progress("Loading the model", 1, 2), Progress("Replaying the journal", 1, 2, "steps")])
    assert record.preparing and (record.overall.number, record.overall.count) == (3, 5)
    record.add([Step(7, 1.0, 1.0, 1e-3, 0.1, 1, 1), Progress("Evaluating on validation", 1, 2)])
    assert not record.preparing and record.overall.count == 1


def test_the_worst_and_the_best_examples_are_listed(run, click, find, workspace, qtbot):
    click("Start run")
    state(qtbot, workspace, "done")
    find("List to show").setCurrentIndex(1)
    texts = [run.examples.item(index).text() for index in range(run.examples.count())]
    assert texts == [
        "Worst, loss 2.5: billing instead of delivery\nCustomer: where is it?",
        "Best, loss 0.01: billing, as expected\nCustomer: twice charged",
    ]


def test_pause_continue_evaluate_rate_stop_resume(run, click, find, workspace, engine, qtbot):
    engine.pace = 0.01
    click("Start run")
    state(qtbot, workspace, "running")
    click("Pause run")
    state(qtbot, workspace, "paused")
    # During a pause the engine answers other questions.
    workspace.change("loop", batch_size=8)
    qtbot.waitUntil(lambda: not workspace.of(EstimateMemory).busy)
    workspace.of(EstimateMemory).forget()
    workspace.ask(EstimateMemory(workspace.recipe))
    qtbot.waitUntil(lambda: workspace.of(EstimateMemory).answer is not None)
    before = workspace.run.record.step
    click("Resume run")
    state(qtbot, workspace, "running")
    click("Evaluate now")
    click("Change learning rate")
    dialog = run.findChild(RateDialog)
    click("Change", dialog)
    qtbot.waitUntil(lambda: len(engine.asked) == 4)
    assert engine.asked == [Pause(), Resume(), EvaluateNow(), SetRate(0.5)]
    click("Stop run")
    state(qtbot, workspace, "stopped")
    assert workspace.run.record.step > before
    click("Resume run")
    state(qtbot, workspace, "running")
    qtbot.waitUntil(lambda: workspace.run.record.step > 101)
    click("Stop run")
    state(qtbot, workspace, "stopped")


def test_stopping_before_the_first_step(run, click, workspace, engine, qtbot):
    engine.pace = 0.1
    click("Start run")
    qtbot.wait(50)
    click("Stop run")
    qtbot.waitUntil(lambda: not workspace.run.running)
    assert workspace.run.record.state == "interrupted"


def test_failures_are_shown(run, click, find, workspace, engine, qtbot):
    engine.faults["step"] = RuntimeError("mat1 and mat2 shapes cannot be multiplied")
    click("Start run")
    state(qtbot, workspace, "failed")
    assert "mat1 and mat2" in run.banner.text
    click("Copy details", run)
    from PySide6.QtGui import QGuiApplication

    assert "Traceback" in QGuiApplication.clipboard().text()
    engine.faults = {"train": UserError("The model 'x' is not on this computer.")}
    click("Start run")
    qtbot.waitUntil(lambda: run.banner.text == "The model 'x' is not on this computer.")
    assert not [b for b in run.banner.findChildren(QPushButton) if b.isVisible() and b.text() == "Details"]
    click("Dismiss", run)
    workspace.change("loop", steps=7)
    assert not run.banner.isVisible()
    click("Start run")
    qtbot.waitUntil(run.banner.isVisible)


def test_closing_asks_while_a_run_goes_on(window, run, click, workspace, engine, qtbot):
    engine.pace = 0.01
    click("Start run")
    state(qtbot, workspace, "running")
    window.close()
    assert window.isVisible()
    box = window.findChild(QMessageBox)
    leave = next(b for b in box.buttons() if b.text() == "Stop and close")
    qtbot.mouseClick(leave, Qt.MouseButton.LeftButton)
    qtbot.waitUntil(lambda: not window.isVisible())
    assert workspace.run.record.state == "stopped"


def test_the_last_run_is_there_again(qtbot, engine, tmp_path):
    folder = tmp_path / "runs" / "run"
    folder.mkdir(parents=True)
    engine.histories[folder] = past()
    workspace = Workspace(engine)
    workspace.store.setValue("last_run", str(folder))
    window = MainWindow(workspace)
    qtbot.addWidget(window)
    window.show()
    window.go("run")
    workspace.start()
    state(qtbot, workspace, "interrupted")
    start = next(b for b in window.page("run").findChildren(QPushButton) if b.accessibleName() == "Resume run")
    qtbot.waitUntil(start.isEnabled)
    assert window.page("run").board._raw.getData()[0].size == 100
    qtbot.waitUntil(lambda: engine.also == folder)  # it is listed for export, wherever it lies
    workspace.close(5)
    window.close()


def test_columns_grow_and_roll_back():
    columns = Columns(capacity=2)
    for step in range(1, 11):
        columns.append(step, 1.0 / step, 0, 0, 0, 0, 0)
    assert columns.size == 10 and columns["step"].tolist() == list(range(1, 11))
    columns.append(6, 9.0, 0, 0, 0, 0, 0)
    assert columns["step"].tolist() == [1, 2, 3, 4, 5, 6] and columns["loss"][-1] == 9.0
    columns.append(7, float("nan"), 0, 0, 0, 0, 0)
    columns.append(8, 1.0, 0, 0, 0, 0, 0)
    assert np.isfinite(columns["smooth"][-1])


def filled(steps: int) -> RunRecord:
    record = RunRecord()
    record.add([Started("/tmp/run", "long", 1, steps, 10**9, 10**9, 10**6, "CPU")])
    chance = np.random.default_rng(0)
    loss = 1 + np.exp(-np.arange(steps) / steps * 4) + 0.2 * chance.standard_normal(steps)
    record.add(Step(i + 1, float(loss[i]), 1.0, 1e-3, 0.03, 10**9, 600) for i in range(steps))
    record.add([Evaluation(i, "validation", {"loss": 1.5, "accuracy": 0.5}) for i in range(0, steps, steps // 20)])
    return record


def test_cross_hair_zoom_and_export(qtbot, tmp_path):
    board = Board()
    qtbot.addWidget(board)
    board.resize(800, 500)
    board.show()
    board.show_record(filled(500), "Memory")
    with qtbot.waitSignal(board.readout) as told:
        board.move_crosshair(120)
    assert told.args[0].startswith("Step 120 · loss ")
    board.set_log(True)
    board.loss.setXRange(100, 200, padding=0)
    assert board.latency.viewRange()[0] == pytest.approx([100, 200])
    board.show_all()
    assert board.latency.viewRange()[0][1] > 500
    board.set_extra("gradient_estimate")
    board.save_png(tmp_path / "plots.png")
    board.save_csv(tmp_path / "steps.csv")
    picture = QPixmap(str(tmp_path / "plots.png"))
    found = shares(picture)
    assert picture.width() >= board.width() and found[colours().base] > 0.5
    assert found[colours().faint] > 1e-4 and found[colours().second] > 1e-3, "losses and evaluations"
    lines = (tmp_path / "steps.csv").read_text().splitlines()
    assert len(lines) == 501 and lines[0].startswith("step,loss,gradient_estimate,rate")


def test_examples_of_steps_that_were_taken_back_are_gone():
    record = RunRecord()
    record.add([e.Examples(40, "validation", [], []), e.Returned(60)])
    assert record.examples.step == 40
    record.add([e.Examples(80, "validation", [], []), e.Returned(60)])
    assert record.examples is None


def test_a_right_click_opens_no_menu_of_another_program(qtbot):
    board = Board()
    qtbot.addWidget(board)
    board.resize(800, 500)
    board.show()
    board.show_record(filled(500), "Memory")
    plots = board.findChild(QGraphicsView).viewport()
    qtbot.mouseClick(plots, Qt.MouseButton.RightButton, pos=plots.rect().center())
    assert QApplication.activePopupWidget() is None


def test_plots_stay_inside_a_window_that_shrinks(qtbot):
    board = Board()
    qtbot.addWidget(board)
    board.resize(1000, 600)
    board.show()
    board.show_record(filled(500), "Memory")
    for width in (700, 420, 900):
        board.resize(width, 500)
        qtbot.wait(20)
        edges = [panel.sceneBoundingRect().right() for panel in board.panels]
        assert max(edges) <= width and edges[0] == pytest.approx(edges[-1], abs=1)


class Emitter(QObject):
    """Emits both ways that lost references in PySide6 6.12.0."""

    flag = Signal(bool)
    nothing = Signal()


@pytest.mark.skipif(sys.version_info >= (3, 12), reason="True and None are immortal there")
def test_signals_and_repaints_keep_references(qtbot):
    """PySide6 6.12.0 with Python 3.11 lost one to True per emission and one to None per void call, and died of it."""
    board = Board()
    qtbot.addWidget(board)
    board.show()
    record = filled(200)
    board.show_record(record, "Memory")
    emitter, seen = Emitter(), []
    emitter.flag.connect(seen.append)
    emitter.nothing.connect(lambda: None)
    gc.collect()
    before = sys.getrefcount(True), sys.getrefcount(None)
    for index in range(300):
        emitter.flag.emit(True)
        emitter.nothing.emit()
        record.add([Step(201 + index, 1.0, 1.0, 1e-3, 0.03, 10**9, 600)])
        board.draw()
        board.repaint()
    seen.clear()
    gc.collect()
    after = sys.getrefcount(True), sys.getrefcount(None)
    assert after[0] > before[0] - 150 and after[1] > before[1] - 150
