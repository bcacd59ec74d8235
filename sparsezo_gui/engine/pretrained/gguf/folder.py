"""The files that other models have beside their weights, for a GGUF file.

They are written once into ``gguf/HASH`` in the program's home, where HASH covers the header of the file, its config
and the versions of the libraries that convert it, and may be removed at any time. So tokenizers are tried in the
confined process, hashed and exported as those of any other model.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import tokenizers
import transformers

from sparsezo_gui.engine.files import home, make_folder
from sparsezo_gui.engine.pretrained.folder import drafted
from sparsezo_gui.engine.pretrained.gguf.config import config_of
from sparsezo_gui.engine.pretrained.gguf.header import Header, read_gguf
from sparsezo_gui.engine.pretrained.gguf.tokenizer import tokenizer_of
from sparsezo_gui.errors import UserError

VERSION = 1  # of what is written
_SIZE = 64 * 2**20  # bytes that a large tokenizer takes
_LAST = "tokenizer_config.json"


def companions(path: Path) -> Path:
    """Folder with config.json, tokenizer and chat template of the GGUF file at ``path``. Raises `UserError`."""
    header = read_gguf(path)
    config = config_of(header)
    key = json.dumps([VERSION, header.digest, config, transformers.__version__, tokenizers.__version__])
    folder = home() / "gguf" / hashlib.sha256(key.encode()).hexdigest()[:32]
    if not (folder / _LAST).is_file():
        make_folder(folder.parent)
        try:
            _write(header, config, folder)
        except UserError:
            if not (folder / _LAST).is_file():  # another process was not faster
                raise
    return folder


def _write(header: Header, config: dict[str, Any], folder: Path) -> None:
    tokenizer, licence = tokenizer_of(header), header.licence
    with drafted(folder, _SIZE) as draft:
        (draft / "config.json").write_text(json.dumps(config, indent=2), encoding="utf-8")
        (draft / "README.md").write_text(f"---\nlicense: {licence}\n---\n" if licence else "", encoding="utf-8")
        tokenizer.save_pretrained(draft)
