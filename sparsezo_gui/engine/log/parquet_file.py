"""Curves as a Parquet file."""

from __future__ import annotations

from pathlib import Path

from sparsezo_gui.engine.log.form import LogFile
from sparsezo_gui.engine.log.table import Table


class ParquetFile(LogFile):
    """A Parquet file; empty values are null."""

    help = "a Parquet file"
    suffix = ".parquet"

    def save(self, table: Table, path: Path) -> None:
        """See `LogFile.save`."""
        import pyarrow
        from pyarrow import parquet

        kinds = {name: pyarrow.from_numpy_dtype(table.steps.dtype[name]) for name in table.steps.dtype.names}
        fields = [(name, kinds.get(name, pyarrow.float64())) for name in table.columns]
        rows = pyarrow.Table.from_pylist(list(table.rows()), pyarrow.schema(fields))
        parquet.write_table(rows, str(path))
