"""Curves for TensorBoard: an event file, in the folder of the run, that tensorboardX writes."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sparsezo_gui.engine.files import cannot_write, make_folder
from sparsezo_gui.engine.log.form import LogFormat, Unsent, Write, file_name
from sparsezo_gui.engine.log.table import Table
from sparsezo_gui.engine.pretrained.folder import drafted, refuse_taken

_ROW = 500  # bytes of a row, about


class TensorBoard(LogFormat):
    """A folder for TensorBoard, which shows all folders in the one above it side by side."""

    help = "a folder for TensorBoard"
    package = "tensorboardX"

    def usual(self, run: str) -> str:
        """See `LogFormat.usual`."""
        return str(Path("tensorboard", file_name(run)))

    @contextmanager
    def writing(self, out: str, run: str, follow: bool) -> Iterator[Write]:
        """See `LogFormat.writing`. A live file only grows, by whole records."""
        path = Path(out)
        if not follow:
            with drafted(path, _ROW) as draft, _appending(draft) as write:
                yield write
            return
        refuse_taken(path)
        try:
            make_folder(path)
            with _appending(path) as write:
                yield write
        except OSError as error:
            raise cannot_write(path, error) from error

    def told(self, out: str) -> str:
        """See `LogFormat.told`."""
        return f"Written to {out}. To look at it: tensorboard --logdir {Path(out).parent}"


@contextmanager
def _appending(folder: Path) -> Iterator[Write]:
    from tensorboardX.proto.event_pb2 import Event
    from tensorboardX.record_writer import RecordWriter
    from tensorboardX.summary import scalar

    now, unsent = time.time(), Unsent()
    file = RecordWriter(str(folder / f"events.out.tfevents.{int(now)}.sparsezo"))

    def write(table: Table) -> None:
        for row in unsent.rows(table):
            step, moment = int(row.pop("step")), row.pop("time")
            for name, value in row.items():
                event = Event(wall_time=moment, step=step, summary=scalar(name, value))
                file.write(event.SerializeToString())
        file.flush()

    try:
        file.write(Event(wall_time=now, file_version="brain.Event:2").SerializeToString())
        yield write
    finally:
        file.close()
