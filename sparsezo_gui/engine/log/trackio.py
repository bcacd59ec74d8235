"""Curves for Trackio, in its local database."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

from sparsezo_gui.engine.log.form import LogFormat, Unsent, Write
from sparsezo_gui.engine.log.table import Table
from sparsezo_gui.errors import UserError
from sparsezo_gui.untrusted import outside

PROJECT = "sparsezo"


class Trackio(LogFormat):
    """A run in a project of Trackio on this computer. A table is added in one transaction."""

    help = "a project of Trackio on this computer"
    package = "trackio"

    def usual(self, run: str) -> str:
        """See `LogFormat.usual`."""
        return PROJECT

    @contextmanager
    def writing(self, out: str, run: str, follow: bool) -> Iterator[Write]:
        """See `LogFormat.writing`."""
        with outside(out, "Trackio cannot be used", "Check its folder (TRACKIO_DIR)."):
            from trackio.sqlite_storage import SQLiteStorage

            taken = run in SQLiteStorage.get_runs(out)
        if taken:
            raise UserError(
                f"The project '{out}' of Trackio already has a run '{run}'. Choose another project with --out, or "
                "delete that run first."
            )
        unsent = Unsent()

        def write(table: Table) -> None:
            rows = list(unsent.rows(table))
            steps = [int(row.pop("step")) for row in rows]
            with outside(out, "Trackio cannot write it", "Check the disk of its folder (TRACKIO_DIR)."):
                times = [datetime.fromtimestamp(row.pop("time"), UTC).isoformat() for row in rows]
                SQLiteStorage.bulk_log(out, run, rows, steps, times)

        yield write

    def told(self, out: str) -> str:
        """See `LogFormat.told`."""
        return f"Written to the project '{out}'. To look at it: trackio show --project {out}"
