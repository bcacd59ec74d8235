"""What the program keeps between runs so that work need not be done again. All of it may be removed at any time."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import filelock

from sparsezo_gui.answers import Cache
from sparsezo_gui.engine import store
from sparsezo_gui.engine.files import home
from sparsezo_gui.engine.locks import held
from sparsezo_gui.errors import UserError, did_you_mean


def caches() -> list[Cache]:
    """Everything kept, the largest first."""
    kept = [("activations", path) for path in store.stores()]
    kept += [("mask", path) for path in sorted((home() / "masks").glob("[!.]*.safetensors"))]
    kinds = (("mask search", "searches"), ("GGUF tokenizer", "gguf"), ("tuned values", "tuned"))
    found = [(kind, path) for kind, name in kinds for path in sorted((home() / name).glob("[!.]*")) if path.is_dir()]
    listed = []
    for kind, path in (*kept, *found):
        with suppress(OSError):  # another process may remove it meanwhile
            files = [each for each in path.rglob("*") if each.is_file()] if path.is_dir() else [path]
            size = sum(each.stat().st_size for each in files)
            listed.append(Cache(path.stem[:12], kind, size, path.stat().st_mtime, str(path)))
    return sorted(listed, key=lambda each: each.bytes, reverse=True)


def remove(name: str, others: Sequence[str] = ()) -> list[Cache]:
    """Removes the cache called ``name``, or all; returns what was removed. Raises `UserError` for an unknown name, and
    suggests one, also of ``others``."""
    known = caches()
    chosen = [each for each in known if name in (each.name, "all")]
    if not chosen and name != "all":
        names = [*(each.name for each in known), *others]
        raise UserError(f"There is no cache '{name}'. {did_you_mean(name, names) if names else 'Nothing is kept.'}")
    for path in (Path(each.path) for each in chosen):
        if path.is_dir():
            with suppress(filelock.Timeout), held(path.parent / ".lock"):  # a search in progress stays
                shutil.rmtree(path, ignore_errors=True)
        else:
            store.remove(path)
            path.with_suffix(".json").unlink(missing_ok=True)  # what finding a mask took
    return [each for each in chosen if not Path(each.path).exists()]
