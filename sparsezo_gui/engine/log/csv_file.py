"""Curves as a CSV file."""

from __future__ import annotations

import csv
from pathlib import Path

from sparsezo_gui.engine.log.form import LogFile
from sparsezo_gui.engine.log.table import Table


class CsvFile(LogFile):
    """A CSV file in UTF-8 with a header."""

    help = "a CSV file"
    suffix = ".csv"

    def save(self, table: Table, path: Path) -> None:
        """See `LogFile.save`."""
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, table.columns)
            writer.writeheader()
            writer.writerows(table.rows())
