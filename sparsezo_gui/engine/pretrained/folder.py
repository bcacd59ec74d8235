"""A model folder that appears complete or not at all, and its files besides the weights."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from sparsezo_gui.engine.drafts import drafting, publish
from sparsezo_gui.engine.files import cannot_write, make_folder, own, sync
from sparsezo_gui.errors import UserError
from sparsezo_gui.sizes import size

COMPANIONS = ("*.json", "*.jinja", "*.model", "*.txt", "*.tiktoken", "*.py", "LICENSE*", "NOTICE*", "USE_POLICY*")
NOT_COPIED = ("*.bin.index.json", "adapter_*")
_ORIGINS = ("_name_or_path", "name_or_path")
SPARE = 64 * 2**20  # bytes that stay free on the disk


@contextmanager
def drafted(out: Path, size: int) -> Iterator[Path]:
    """Yields a folder beside ``out`` for about ``size`` bytes; on success it is synced and renamed to ``out``.

    ``out`` must not exist or be an empty folder. Nothing is left behind on failure. Raises `UserError`.
    """
    refuse_taken(out)
    try:
        make_folder(out.parent)
        check_model_room(out.parent, size)
        with drafting(out.parent) as draft:
            yield draft
            for path in draft.rglob("*"):
                own(path)
                sync(path)
            publish(draft, out)
    except OSError as error:
        raise cannot_write(out, error) from error


def refuse_taken(out: Path) -> None:
    """Raises `UserError` unless ``out`` is a new folder or an empty one."""
    if out.exists() and not (out.is_dir() and not any(out.iterdir())):
        raise UserError(f"{out}: already exists. Choose a new folder, or an empty one.")


def copy_companions(
    folder: Path, draft: Path, texts: Mapping[str, str], code: Mapping[str, bytes] | None = None
) -> None:
    """Copies config, tokenizer, chat template, licence and code from ``folder``; ``texts`` are files to write instead.

    If the model ran its own ``code``, exactly that code is written.
    """
    left_out = {path.name for pattern in NOT_COPIED for path in folder.glob(pattern)}
    names = {path.name for pattern in COMPANIONS for path in folder.glob(pattern) if path.is_file()}
    if code is not None:
        names = {name for name in names if not name.endswith(".py")}
    for name in names - left_out - texts.keys():
        shutil.copyfile(folder / name, draft / name)  # files in a cache are links; copies their content
    for name, text in texts.items():
        (draft / name).write_text(text, encoding="utf-8")
    for name, content in (code or {}).items():
        (draft / name).parent.mkdir(parents=True, exist_ok=True)
        (draft / name).write_bytes(content)
    for name in ("config.json", "tokenizer_config.json"):
        if (draft / name).exists():
            _forget_paths(draft / name)


def _forget_paths(path: Path) -> None:
    """Removes the path that the base model was loaded from when it was saved, if that is a local folder."""
    table = json.loads(path.read_text(encoding="utf-8"))
    kept = {key: value for key, value in table.items() if not (key in _ORIGINS and os.path.isabs(str(value)))}
    if len(kept) < len(table):
        path.write_text(json.dumps(kept, indent=2) + "\n", encoding="utf-8")


def check_model_room(folder: Path, needed: int) -> None:
    """Raises `UserError` if the disk of ``folder`` has too little room for ``needed`` bytes."""
    free = shutil.disk_usage(folder).free
    if needed + SPARE > free:
        raise UserError(
            f"The model needs {size(needed + SPARE)} (including a reserve), but only {size(free)} are free on the disk "
            f"of {folder}. Free some space, or choose another folder."
        )
