"""The saved state of a mask search that may be interrupted, in a folder.

The folder holds ``hidden-B.bin`` and ``gradient-B.bin`` (numbers at boundary B between blocks, all sequences
concatenated, in the model's format), ``selection-N.safetensors`` (the best weights after N boundaries of gradients) and
``state.json``, which is written last and alone says what is finished. Only one search is kept; a new one replaces it.
"""

from __future__ import annotations

import itertools
import json
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import filelock
import torch
from torch import Tensor

from sparsezo_gui.engine.files import cannot_write, home, sync, write_text
from sparsezo_gui.engine.locks import held
from sparsezo_gui.errors import UserError
from sparsezo_gui.sizes import size

VERSION = 1


class Unfinished:
    """``hidden`` and ``gradients`` count the boundaries with finished hidden states and gradients."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.hidden = self.gradients = 0
        with suppress(OSError, ValueError, KeyError, TypeError):
            state = json.loads((folder / "state.json").read_text(encoding="utf-8"))
            if state["version"] == VERSION:
                self.hidden, self.gradients = int(state["hidden"]), int(state["gradient"])

    def plan(self, lengths: list[int], width: int, dtype: torch.dtype, boundaries: int) -> None:
        """Sets the size of what will be written: sequences of ``lengths`` tokens by ``width`` numbers. Raises
        `UserError` if the disk lacks space for it."""
        self._ends = [width * dtype.itemsize * end for end in itertools.accumulate(lengths)]
        self._shape, self._dtype = (1, -1, width), dtype
        needed, free = self._ends[-1] * (boundaries + 2 - self.hidden), shutil.disk_usage(self.folder).free
        if needed > free:
            raise UserError(
                f"{self.folder}: finding the mask temporarily needs {size(needed)} of disk space here, but only "
                f"{size(free)} are free. Free some space, or set fewer [mask] sequences or tokens."
            )

    @contextmanager
    def writing(self, kind: str, boundary: int) -> Iterator[Callable[[Tensor], None]]:
        """Inside, sequences (1, tokens, width) are written one after the other."""
        path = self._path(kind, boundary)
        try:
            with path.open("wb") as file:

                def write(values: Tensor) -> None:
                    file.write(values.detach().cpu().contiguous().view(torch.uint8).numpy().data)

                yield write
            sync(path)
        except OSError as error:
            raise cannot_write(path, error) from error

    def read(self, kind: str, boundary: int, index: int) -> Tensor:
        """One sequence (1, tokens, width), on the CPU."""
        first = self._ends[index - 1] if index else 0
        content = bytearray(self._ends[index] - first)
        with self._path(kind, boundary).open("rb") as file:
            file.seek(first)
            file.readinto(content)
        return torch.frombuffer(content, dtype=self._dtype).view(self._shape)

    def finish(self, kind: str) -> None:
        """Marks the next boundary of ``kind`` as finished and removes what is no longer needed."""
        if kind == "hidden":
            self.hidden += 1
        else:
            self.gradients += 1
        state = {"version": VERSION, "hidden": self.hidden, "gradient": self.gradients}
        write_text(self.folder / "state.json", json.dumps(state))
        if self.gradients:
            done = self.hidden - self.gradients  # the boundary whose gradients are now finished
            for path in (self._path("gradient", done + 1), self._path("hidden", done), self._selection(-1)):
                path.unlink(missing_ok=True)

    @property
    def selection(self) -> Path:
        """Path of the selection that matches what is finished; there is none at first."""
        return self._selection(0)

    @property
    def next_selection(self) -> Path:
        """Path to write it to before the next boundary of gradients is finished."""
        return self._selection(1)

    def _selection(self, later: int) -> Path:
        return self.folder / f"selection-{self.gradients + later}.safetensors"

    def _path(self, kind: str, boundary: int) -> Path:
        return self.folder / f"{kind}-{boundary}.bin"


@contextmanager
def unfinished(key: str) -> Iterator[Unfinished]:
    """The search called ``key``, new or resumed; removed at the end, and kept if interrupted."""
    searches = home() / "searches"
    with ExitStack() as stack:
        try:
            searches.mkdir(parents=True, exist_ok=True)
            stack.enter_context(held(searches / ".lock"))
            for other in searches.iterdir():
                if other.is_dir() and other.name != key:
                    shutil.rmtree(other, ignore_errors=True)
            (searches / key).mkdir(exist_ok=True)
        except filelock.Timeout:  # another process is searching; this one uses its own folder
            yield Unfinished(Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="sparsezo-search-"))))
            return
        except OSError as error:
            raise cannot_write(searches, error) from error
        yield Unfinished(searches / key)
        shutil.rmtree(searches / key, ignore_errors=True)
