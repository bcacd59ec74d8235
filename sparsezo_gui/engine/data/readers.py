"""Files to rows, one at a time, with an error message for everything that can be wrong in a file. The
formats are registered in `sparsezo_gui.formats`.

CSV and JSON are read with the standard library and Parquet with pyarrow, not with the builders of `datasets`: those
infer types from the whole file, hide row numbers, and keep a cache that can become stale.
"""

from __future__ import annotations

import gzip
import lzma
import zlib
from collections.abc import Iterator
from pathlib import Path

from sparsezo_gui import formats
from sparsezo_gui.engine.data.record import Record
from sparsezo_gui.errors import UserError


def read(path: Path) -> Iterator[Record]:
    """Rows of a file. Raises `UserError` that names file and row, also if there are no rows."""
    form = formats.data_format(path)
    if form is None:
        raise UserError(f"{path.name}: SparseZO cannot read this kind of file. Supported: {formats.supported()}.")
    found = False
    try:
        for record in form.reader(path):
            found = True
            yield record
    except (EOFError, zlib.error, lzma.LZMAError, gzip.BadGzipFile) as error:
        raise UserError(
            f"{path.name}: cannot be unpacked ({error}); the file is damaged or truncated. Download it again."
        ) from error
    except MemoryError as error:  # the header of a .xz file can request it
        raise UserError(f"{path.name}: cannot be unpacked or read with the available memory.") from error
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror or error}).") from error
    if not found:
        raise UserError(f"{path.name}: the file has no rows. Choose a file with at least one example.")
