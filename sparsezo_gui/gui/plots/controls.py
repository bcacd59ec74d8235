"""The line below the plots of a run: what they show, the values at the crosshair, and saving them."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

from PySide6.QtCore import Qt
from PySide6.QtGui import QAction
from PySide6.QtWidgets import QCheckBox, QFileDialog, QSlider, QWidget

from sparsezo_gui.errors import UserError
from sparsezo_gui.gui import formatting
from sparsezo_gui.gui.plots.board import EXTRA_PLOTS, Board
from sparsezo_gui.gui.problems import Problem
from sparsezo_gui.gui.record import SMOOTHING, RunRecord
from sparsezo_gui.gui.saving import with_suffix
from sparsezo_gui.gui.theme import GRID
from sparsezo_gui.gui.widgets.banner import Banner
from sparsezo_gui.gui.widgets.basic import button, label, row
from sparsezo_gui.gui.widgets.fields import Combo
from sparsezo_gui.gui.widgets.sides import NARROW, Sides, halves

HOW = "Hover for values, drag to zoom in, double-click to see all."
TRIALS = "Left of 0: trials of learning rates. "
DECADES = 3  # of the slider: at its right end, the loss is smoothed over 10 ** 3 steps


class PlotControls(QWidget):
    """Also gives the board its context menu."""

    def __init__(self, board: Board, banner: Banner) -> None:
        super().__init__()
        self._board, self._banner = board, banner
        self._record: RunRecord | None = None
        self._how = HOW
        self._kinds: dict[str, tuple[str, Callable[[Path], None]]] = {
            "png": ("PNG image (*.png)", board.save_png),
            "svg": ("SVG drawing (*.svg)", board.save_svg),
            "csv": ("CSV table (*.csv)", board.save_csv),
        }
        self._extra = Combo("Third plot")
        self._extra.setSizeAdjustPolicy(Combo.SizeAdjustPolicy.AdjustToContents)
        self._extra.fill([(title, key) for key, title in EXTRA_PLOTS.items()], "metric")
        self._extra.currentIndexChanged.connect(lambda: board.set_extra(self._extra.currentData()))
        self._extra.setToolTip("What the third small plot shows.")
        self._log = QCheckBox("Log scale")
        self._log.setAccessibleName("Log scale")
        self._log.toggled.connect(board.set_log)
        self._smoothing = QSlider(Qt.Orientation.Horizontal)
        self._smoothing.setAccessibleName("Smoothing")
        self._smoothing.setRange(0, 100)
        self._smoothing.setFixedWidth(12 * GRID)
        self._smoothing.valueChanged.connect(self._smooth)
        self._smoothing.setValue(round(-math.log10(1 - SMOOTHING) * 100 / DECADES))
        self._whole = button("Show all", board.show_all, role="flat", tip="Shows all steps again after zooming.")
        self._readout = label("", "dim", wrap=True, name="Values at the crosshair")
        board.readout.connect(lambda text: self._readout.setText(text or self._how))
        smoothing = label("Smoothing", "dim"), self._smoothing, self._whole
        controls = halves((self._extra, self._log), smoothing, GRID)
        line = Sides(controls, self._readout, stacked=NARROW, spacing=GRID)
        line.box.setStretch(1, 1)
        self.setLayout(row(line))
        board.add_actions([
            self._action("Show the whole run", board.show_all), self._action("Save as PNG…", lambda: self.save("png")),
            self._action("Save as SVG…", lambda: self.save("svg")),
            self._action("Save the steps as CSV…", lambda: self.save("csv")),
        ])  # fmt: skip

    def _action(self, title: str, call: Callable[[], object]) -> QAction:
        action = QAction(title, self)
        action.triggered.connect(lambda: call())
        return action

    def _smooth(self, place: int) -> None:
        """Each place of the slider covers the same factor of steps."""
        steps = 10 ** (place * DECADES / 100)
        self._board.set_smoothing(1 - 1 / steps)
        self._smoothing.setToolTip(f"The loss is smoothed over about {formatting.count(steps)} steps.")

    def show_record(self, record: RunRecord | None) -> None:
        """Follows the plotted run; None: nothing is plotted."""
        for control in (self._whole, self._extra, self._log, self._smoothing):
            control.setEnabled(record is not None)
        if record is None:
            self._readout.setText("")
            return
        self._record, self._how = record, (TRIALS if record.trials.size else "") + HOW
        if not self._readout.text():
            self._readout.setText(self._how)

    def save(self, kind: str) -> None:
        """Asks where to, and saves as 'png', 'svg' or 'csv'."""
        pattern, write = self._kinds[kind]
        name = formatting.file_name(self._record.name if self._record else "") or "run"
        text, _ = QFileDialog.getSaveFileName(self, "Save plots", str(Path.home() / f"{name}.{kind}"), pattern)
        if not text:
            return
        path = with_suffix(text, f".{kind}")
        try:
            write(path)
        except UserError as error:
            self._banner.show_problem(Problem(str(error)))
        else:
            self._banner.show_problem(Problem(f"Saved {path}"), "info")
