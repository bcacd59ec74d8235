"""Plots and their curves as the contents of files."""

from __future__ import annotations

import csv
from io import StringIO

import pyqtgraph as pg
from pyqtgraph.exporters import ImageExporter
from PySide6.QtCore import QBuffer, QRectF, QSize
from PySide6.QtGui import QColor, QPainter
from PySide6.QtSvg import QSvgGenerator

from sparsezo_gui.gui.record import FIELDS, Columns
from sparsezo_gui.gui.theme import colours


def png(view: pg.GraphicsLayoutWidget) -> bytes:
    """An image, twice the size on screen."""
    exporter = ImageExporter(view.scene())
    exporter.parameters()["width"] = int(view.width() * 2)
    buffer = QBuffer()
    buffer.open(QBuffer.OpenModeFlag.WriteOnly)
    exporter.export(toBytes=True).save(buffer, "PNG")
    return bytes(buffer.data().data())


def svg(view: pg.GraphicsLayoutWidget) -> bytes:
    """A drawing that stays sharp at every size."""
    buffer, area = QBuffer(), QRectF(view.viewport().rect())
    generator = QSvgGenerator()
    generator.setOutputDevice(buffer)
    generator.setSize(QSize(int(area.width()), int(area.height())))
    generator.setViewBox(area)
    generator.setTitle("SparseZO")
    painter = QPainter(generator)
    painter.fillRect(area, QColor(colours().base))
    view.scene().render(painter, area, view.viewRect())
    painter.end()
    return bytes(buffer.data().data())


def table(columns: Columns) -> bytes:
    """Steps as CSV, one line each, in seconds and bytes."""
    text = StringIO()
    writer = csv.writer(text)
    writer.writerow(FIELDS)
    writer.writerows(zip(*(columns[name].tolist() for name in FIELDS), strict=True))
    return text.getvalue().encode()
