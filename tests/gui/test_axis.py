"""Labels of the axes of plots."""

from __future__ import annotations

import pytest
from PySide6.QtGui import QFontMetricsF
from PySide6.QtWidgets import QApplication

from sparsezo_gui.gui.formatting import count
from sparsezo_gui.gui.plots.parts import Axis


@pytest.mark.parametrize("steps", [7, 100, 1000, 123_456])
@pytest.mark.parametrize("width", [60, 120, 400, 1000])
def test_steps_below_a_plot_never_touch(qtbot, steps, width):
    axis = Axis(orientation="bottom")
    spacing, _ = axis.tickSpacing(0, steps, width)[0]
    text = QFontMetricsF(QApplication.font()).horizontalAdvance(count(steps))
    assert spacing * width / steps > 1.2 * text or spacing >= steps
