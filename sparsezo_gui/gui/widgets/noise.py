"""The noise probe: how far differences of the loss stand out from rounding noise, at each epsilon that was tried."""

from __future__ import annotations

import math

from PySide6.QtCore import QPointF, QRectF, QSize, Qt
from PySide6.QtGui import QColor, QPainter, QPaintEvent, QPen
from PySide6.QtWidgets import QWidget

from sparsezo_gui.gui.requests import ProbeNoise
from sparsezo_gui.gui.theme import GRID, colours, theme
from sparsezo_gui.gui.widgets.finder import Finder
from sparsezo_gui.gui.workspace import Workspace
from sparsezo_gui.recipe.noise import NoiseProbed

LINES = ("difference of the loss", "needed: 5 × rounding noise")


class NoiseProbe(Finder):
    """See `Finder`. It is hidden for estimators that take no differences."""

    kind = ProbeNoise
    title, searching, result = "Measure noise", "noise measurement", "Suggested epsilon"
    trying = "Loads the model and measures differences of the loss at several epsilons."
    before = (
        "Shows whether differences of the loss stand out from rounding noise. A run measures this at its start where "
        "its numbers are coarse."
    )

    def __init__(self, workspace: Workspace) -> None:
        super().__init__(workspace, NoiseChart())
        workspace.run.changed.connect(self.refresh)  # the displayed run may have measured it

    def refresh(self) -> None:
        """See `Finder.refresh`."""
        super().refresh()
        shown = hasattr(self._workspace.recipe.estimator, "epsilon")
        if self.parentWidget() is not None or not shown:  # before it is in a page, it would be a window of its own
            self.setVisible(shown)

    def report(self) -> NoiseProbed | None:
        """See `Finder.report`."""
        return self._workspace.noise

    def found(self) -> float | None:
        """See `Finder.found`."""
        report = self.report()
        in_use = getattr(self._workspace.recipe.estimator, "epsilon", None)
        return report.epsilon if report and report.epsilon != in_use else None

    def use(self, value: float) -> None:
        """See `Finder.use`."""
        self._workspace.change("estimator", epsilon=value)

    def search(self) -> None:
        """See `Finder.search`."""
        self._workspace.probe_noise()


class NoiseChart(QWidget):
    """A dot for each epsilon, evenly spaced: the difference of the loss, on a logarithmic scale. The chosen one is
    filled; a dashed line is the difference that is needed."""

    def __init__(self) -> None:
        super().__init__()
        self.setAccessibleName("Loss differences and noise by epsilon")
        self.setMinimumHeight(16 * GRID)
        self._report: NoiseProbed | None = None
        theme().changed.connect(self.update)

    def sizeHint(self) -> QSize:
        """Wide and low."""
        return QSize(60 * GRID, 18 * GRID)

    def show_report(self, report: NoiseProbed) -> None:
        """Shows all that was tried."""
        self._report = report
        parts = (f"{e.epsilon:g}: {e.difference:.1e}, needed {e.required:.1e}" for e in report.trials)
        self.setAccessibleDescription(f"{'; '.join(parts)}. Chosen: {report.epsilon:g}.")
        self.update()

    def paintEvent(self, event: QPaintEvent) -> None:
        """See the class."""
        report = self._report
        if report is None:
            return
        c, painter = colours(), QPainter(self)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        metrics = painter.fontMetrics()
        line, left = metrics.height(), metrics.horizontalAdvance("0.0e-00") + GRID
        right = max(map(metrics.horizontalAdvance, LINES)) + 2 * GRID
        frame = QRectF(left, line / 2, self.width() - left - right, self.height() - 1.5 * line - GRID)
        scale = _Scale(report, frame)
        self._axis(painter, scale, line, left)
        differences = scale.points([each.difference for each in report.trials])
        needed = scale.points([each.required for each in report.trials])
        for points, pen in ((needed, QPen(QColor(c.second), 1, Qt.PenStyle.DashLine)),
                            (differences, QPen(QColor(c.accent), 2))):  # fmt: skip
            painter.setPen(pen)
            known = [point for point in points if point is not None]
            painter.drawPolyline(known)
        for trial, point in zip(report.trials, differences, strict=True):
            if point is not None:
                painter.setBrush(QColor(c.accent if trial.epsilon == report.epsilon else c.base))
                painter.drawEllipse(point, 4, 4)
        for text, points, colour in zip(LINES, (differences, needed), (c.accent, c.second), strict=True):
            if points[-1] is not None:
                _beside(painter, text, points[-1], frame, line, QColor(colour))

    def _axis(self, painter: QPainter, scale: _Scale, line: int, left: int) -> None:
        """The epsilons below, and both ends of the scale on the left."""
        assert self._report is not None
        painter.setPen(QColor(colours().dim))
        for index, trial in enumerate(self._report.trials):
            below = QRectF(scale.x(index) - scale.apart / 2, scale.frame.bottom() + GRID / 2, scale.apart, line)
            painter.drawText(below, Qt.AlignmentFlag.AlignHCenter, f"{trial.epsilon:g}")
        aside = Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter
        for value, y in ((scale.high, scale.frame.top()), (scale.low, scale.frame.bottom())):
            text = f"{10**value:.0e}".replace("e-0", "e-")
            painter.drawText(QRectF(0, y - line / 2, left - GRID / 2, line), aside, text)
        painter.drawText(QRectF(0, scale.frame.bottom() + GRID / 2, left - GRID / 2, line), aside, "ε")


class _Scale:
    """Places of differences (nats) in ``frame``, which spans whole powers of ten."""

    def __init__(self, report: NoiseProbed, frame: QRectF) -> None:
        values = [value for each in report.trials for value in (each.difference, each.required) if _shown(value)]
        self.low = math.floor(math.log10(min(values, default=1.0)))
        self.high = max(math.ceil(math.log10(max(values, default=1.0))), self.low + 1)
        self.frame, self.apart = frame, frame.width() / max(len(report.trials), 1)

    def x(self, index: int) -> float:
        """The middle of a trial."""
        return self.frame.left() + (index + 0.5) * self.apart

    def points(self, values: list[float]) -> list[QPointF | None]:
        """Where ``values`` are drawn; None for those that are zero or not finite."""
        return [QPointF(self.x(index), self._y(value)) if _shown(value) else None for index, value in enumerate(values)]

    def _y(self, value: float) -> float:
        return self.frame.bottom() - self.frame.height() * (math.log10(value) - self.low) / (self.high - self.low)


def _shown(value: float) -> bool:
    return math.isfinite(value) and value > 0


def _beside(painter: QPainter, text: str, end: QPointF, frame: QRectF, line: int, colour: QColor) -> None:
    """The name of a line, at its right end."""
    painter.setPen(colour)
    place = QRectF(end.x() + 2 * GRID, end.y() - line / 2, frame.right() - end.x() + 40 * GRID, line)
    painter.drawText(place, Qt.AlignmentFlag.AlignVCenter, text)
