"""A run in the window: start, pause, stop, resume, failure, closing, and coming back."""

from __future__ import annotations

import gc
import math
import sys

import numpy as np
import pytest
from conftest import shares
from PySide6.QtCore import QEvent, QObject, QPointF, Qt, QTimer, Signal
from PySide6.QtGui import QContextMenuEvent, QMouseEvent, QPixmap
from PySide6.QtWidgets import QApplication, QGraphicsView, QLabel, QMessageBox, QPushButton, QTableWidget

from sparsezo_gui.errors import UserError
from sparsezo_gui.gui.app import exit_code, result_lines
from sparsezo_gui.gui.plots.board import Board
from sparsezo_gui.gui.record import Columns, RunRecord
from sparsezo_gui.gui.requests import EstimateMemory
from sparsezo_gui.gui.theme import colours, theme
from sparsezo_gui.gui.widgets.basic import ProgressBar
from sparsezo_gui.gui.widgets.dialogs import RateDialog
from sparsezo_gui.gui.widgets.examples import ExamplesDialog
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
    qtbot.waitUntil(lambda: find("Result").text() == "25.0 % → 88.0 %")
    assert workspace.run.record.columns.size == 120
    shown = [part.text() for part in run.results.metrics.findChildren(QLabel)]
    assert "25.0 %" in shown and "88.0 %" in shown and "better" in shown
    assert shown[shown.index("General text") :][:4] == ["General text", "20", "20.4", "+2.0 %"]
    assert "Warning. Step 40: The loss jumped" in run.results.notices.item(0).text()
    lines = result_lines(workspace.run.record)
    assert "test accuracy: 25.0 % before, 88.0 % after" in lines
    assert "perplexity on general text: 20 before, 20.4 after (+2.0 %)" in lines
    assert not workspace.run.running


def test_the_first_examples_are_shown_until_the_base_model_is_measured_and_never_compared(run):
    def shown():
        run.results.metrics.show_record(record)
        return [part.text() for part in run.results.metrics.findChildren(QLabel)]

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
    engine.pace, bar, seen = 0.2, run.findChild(ProgressBar), []
    labels = [find(name) for name in ("State of the run", "What happens next")]

    def look():
        run.refresh()
        seen.append((bar.maximum(), bar.value(), *(label.text() for label in labels)))

    workspace.run.advanced.connect(look)
    click("Start run")
    qtbot.waitUntil(lambda: workspace.run.record.step > 1)
    run.refresh()
    assert find("Run progress") is bar and bar.maximum() == 120 and bar.value() == workspace.run.record.step
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


def test_the_worst_the_best_and_the_changed_examples_are_listed_with_their_step(
    run, click, find, workspace, engine, qtbot
):
    def shown(title):
        choice = find("List to show")
        choice.setCurrentIndex(choice.findText(title))
        return [run.results.examples.item(index).text() for index in range(run.results.examples.count())]

    click("Start run")
    state(qtbot, workspace, "done")
    assert shown("Worst examples") == ["billing instead of delivery, loss 2.5\nCustomer: where is it?"]
    assert shown("Best examples") == ["billing, as expected, loss 0.01\nCustomer: twice charged"]
    assert shown("Changed answers") == ["billing, as expected, before: account, loss 0.01\nCustomer: twice charged"]
    assert find("Evaluation of the examples").text() == "Step 120, test"
    click("Examples as a table")
    dialog = run.findChild(ExamplesDialog)
    assert "step 120, test" in dialog.windowTitle()
    tables = {table.accessibleName(): table for table in dialog.findChildren(QTableWidget)}
    cells = [tables["Changed answers"].item(0, place).text() for place in range(6)]
    assert cells == ["3", "Customer: twice charged", "billing", "billing", "account", "0.01"]
    click("Close examples", dialog)


def test_the_end_of_a_run_says_what_came_of_it_and_leads_on(run, click, find, window, workspace, qtbot):
    click("Start run")
    state(qtbot, workspace, "done")
    qtbot.waitUntil(lambda: find("Best step").text() == "120")
    card = find("Result of the run")
    hints = [part.text() for part in card.findChildren(QLabel)]
    assert "± 4.5 points, 200 test examples" in hints and find("General text").text() == "+2.0 %"
    assert not run._bar.isVisible()
    click("Ask the result")
    assert window.chat.isVisible() and "after step 120" in find("Answering model").text()
    click("Export the result")
    qtbot.waitUntil(lambda: window.page("export").isVisible())
    click("Go to Run")
    click("Start run")
    qtbot.waitUntil(lambda: not card.isVisible())
    state(qtbot, workspace, "done")


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


def test_the_last_run_is_there_again(reopened, engine, qtbot):
    window, folder = reopened
    workspace = window.workspace
    window.go("run")
    workspace.start()
    state(qtbot, workspace, "interrupted")
    start = next(b for b in window.page("run").findChildren(QPushButton) if b.accessibleName() == "Resume run")
    qtbot.waitUntil(start.isEnabled)
    assert window.page("run").board._raw.getData()[0].size == 100
    qtbot.waitUntil(lambda: engine.also == folder)  # it is listed for export, wherever it lies


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
    board.save_svg(tmp_path / "plots.svg")
    drawing = (tmp_path / "plots.svg").read_text()
    assert drawing.count("<path") + drawing.count("<polyline") > 5 and "Step latency" not in drawing
    assert "smoothed" in drawing and "Loss" in drawing
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


@pytest.fixture
def board(qtbot):
    board = Board()
    qtbot.addWidget(board)
    board.resize(900, 560)
    board.show()
    board.show_record(filled(500), "Memory")
    qtbot.wait(20)
    return board


def test_a_right_click_opens_our_own_menu(run, click, find, workspace, qtbot):
    click("Start run")
    state(qtbot, workspace, "done")
    plots = find("Plots of the run")
    titles = [action.text() for action in plots.actions()]
    assert titles == ["Show the whole run", "Save as PNG…", "Save as SVG…", "Save the steps as CSV…"]
    centre = plots.viewport().rect().center()
    event = QContextMenuEvent(QContextMenuEvent.Reason.Mouse, centre, plots.viewport().mapToGlobal(centre))
    shown = []

    def look():
        menu = QApplication.activePopupWidget()
        shown.extend(action.text() for action in menu.actions())
        menu.close()

    QTimer.singleShot(100, look)
    QApplication.sendEvent(plots.viewport(), event)  # returns when the menu closes
    assert shown == titles


def drag(qtbot, board, panel, start, end):
    """Draws a rectangle between two places of a plot, as shares of its width and height."""
    view = board.findChild(QGraphicsView)
    area = panel.view.sceneBoundingRect()
    points = [view.mapFromScene(area.left() + x * area.width(), area.top() + y * area.height())
              for x, y in (start, end)]  # fmt: skip
    qtbot.mousePress(view.viewport(), Qt.MouseButton.LeftButton, pos=points[0])
    for share in (0.3, 0.6, 1.0):
        middle = points[0] + (points[1] - points[0]) * share
        places = QPointF(middle), view.viewport().mapToGlobal(QPointF(middle))
        buttons = Qt.MouseButton.NoButton, Qt.MouseButton.LeftButton, Qt.KeyboardModifier.NoModifier
        move = QMouseEvent(QEvent.Type.MouseMove, *places, *buttons)
        QApplication.sendEvent(view.viewport(), move)
        qtbot.wait(40)
    qtbot.mouseRelease(view.viewport(), Qt.MouseButton.LeftButton, pos=points[1])


def test_a_rectangle_zooms_into_all_plots_and_never_leaves_the_data(board, qtbot):
    (left, right), (low, high) = board.loss.viewRange()
    drag(qtbot, board, board.loss, (0.25, 0.2), (0.5, 0.8))
    (x0, x1), (y0, y1) = board.loss.viewRange()
    assert x0 == pytest.approx(left + 0.25 * (right - left), abs=6)
    assert x1 == pytest.approx(left + 0.5 * (right - left), abs=6)
    assert low < y0 < y1 < high
    assert board.memory.viewRange()[0] == pytest.approx([x0, x1])
    drag(qtbot, board, board.loss, (0.5, 0.5), (1.5, 1.5))  # ends outside the plot
    (x0, x1), (y0, y1) = board.loss.viewRange()
    assert left <= x0 < x1 <= right and low <= y0 < y1 <= high
    board.loss.setXRange(-5000, 5000, padding=0)  # as the wheel would
    assert board.loss.viewRange()[0] == pytest.approx([left, right])
    board.show_all()
    qtbot.waitUntil(lambda: board.loss.viewRange()[1] == pytest.approx([low, high]))


def test_the_smoothing_slider_smooths_the_drawn_line(run, click, find, workspace, qtbot):
    def rough():
        _, drawn = run.board._smooth.getOriginalDataset()
        return float(np.abs(np.diff(drawn)).mean())

    click("Start run")
    state(qtbot, workspace, "done")
    run.refresh()
    slider, before = find("Smoothing"), rough()
    slider.setFocus()
    qtbot.keyClick(slider, Qt.Key.Key_Home)
    assert run.board._smooth.getOriginalDataset()[1].tolist() == workspace.run.record.columns["loss"].tolist()
    qtbot.keyClick(slider, Qt.Key.Key_End)
    assert rough() < before


@pytest.mark.parametrize("scale", [1.0, 1.5])
def test_no_title_is_cut_off(board, qtbot, scale):
    """It is the longest for which there is room, and elided in the end."""
    theme().apply("light", scale)
    board.set_memory("Memory of the process", 2**36)
    told = []
    for width in (440, 560, 690, 1000):
        board.resize(width, 500)
        for panel in board.panels:
            label = panel.titleLabel
            qtbot.waitUntil(lambda label=label: label.item.boundingRect().width() <= label.size().width())
            assert label.text in panel.title_text or label.toolTip(), (width, panel.title_text)
        told.append(board.memory.titleLabel.text)
    assert told[0].endswith("…") and told[-1] == "Memory of the process · limit 64.0 GiB" and len(set(told)) >= 3
    theme().apply("light")


def test_memory_starts_at_zero_below_its_limit_and_shares_are_in_percent_with_their_confidence(board):
    assert board.memory.viewRange()[1][0] == 0
    assert not board._capacity.isVisible()
    board.set_memory("Memory", 2**31)  # of which 10 ** 9 are used
    low, high = board.memory.viewRange()[1]
    assert low == 0 and high > 2 and board._capacity.value() == 2 and board._capacity.label.format == "limit 2.00 GiB"
    board.set_memory("Memory", 2**36)
    assert not board._capacity.isVisible() and "limit 64.0 GiB" in board.memory.title_text
    record = board._record
    record.add([Evaluation(step, "validation", {"accuracy": 0.9, "loss": 1.0, "examples": 100}) for step in (0, 500)])
    board.draw()
    low, high = (edge.getData()[1][-1] for edge in board._extra_band)
    assert (low, high) == pytest.approx((0.8256, 0.9448), abs=1e-4)  # Wilson's interval of 90 of 100
    bottom, top = board.extra.viewRange()[1]
    assert top - bottom >= 0.1 and bottom >= -0.01 and top <= 1.01
    assert board.extra.getAxis("left").tickStrings([0.85, 0.9], 1, 0.05) == ["85 %", "90 %"]


def test_warnings_and_rate_changes_are_marked_and_read_at_the_crosshair(board, qtbot):
    board._record.add([e.Notice("The loss jumped.", "warning", 200), e.RateChanged(300, 0.5)])
    board.draw()
    marks = [(mark.value(), mark.label.format) for mark in board.loss._marks]
    assert marks == [(200, "!"), (300, "rate × 0.5")]
    with qtbot.waitSignal(board.readout) as told:
        board.move_crosshair(201)
    assert told.args[0].endswith("Step 200: The loss jumped.")
    board._record.add([e.Returned(250)])
    board.draw()
    assert [mark.value() for mark in board.loss._marks] == [200]


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
