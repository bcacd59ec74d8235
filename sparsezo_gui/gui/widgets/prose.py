"""Lays out sentences of several lines with room between them; plain text, never mark-up."""

from __future__ import annotations

from PySide6.QtCore import QPointF, Qt
from PySide6.QtGui import QFont, QFontInfo, QFontMetricsF, QTextLayout, QTextOption

LINE = 1.4  # from one line to the next, in sizes of the font


def lay_out(text: str, font: QFont, width: float, align: Qt.AlignmentFlag) -> tuple[QTextLayout, float]:
    """The lines of ``text`` within ``width``, and their height. One line is as high as anywhere else."""
    metrics = QFontMetricsF(font)
    option = QTextOption(align)
    option.setWrapMode(QTextOption.WrapMode.WordWrap)
    layout = QTextLayout(text.replace("\n", "\u2028"), font)
    layout.setTextOption(option)
    step = max(metrics.lineSpacing(), LINE * QFontInfo(font).pixelSize())
    count = 0
    layout.beginLayout()
    while (line := layout.createLine()).isValid():
        line.setLineWidth(width)
        line.setPosition(QPointF(0, count * step))
        count += 1
    layout.endLayout()
    return layout, (max(count, 1) - 1) * step + metrics.height()
