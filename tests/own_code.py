"""A tiny model that comes with Python code, which notes in a file that it ran."""

from __future__ import annotations

import json
from pathlib import Path

from tests.models import tiny

CONFIGURATION = """\
from transformers import LlamaConfig
from .marks import leave
leave()
class OwnConfig(LlamaConfig):
    model_type = "own"
"""
MODELING = """\
from transformers import LlamaForCausalLM
from .configuration_own import OwnConfig
class OwnModel(LlamaForCausalLM):
    config_class = OwnConfig
"""
TOKENIZING = """\
from transformers import PreTrainedTokenizerFast
from . import configuration_own
from .parts import extra
class OwnTokenizer(PreTrainedTokenizerFast):
    pass
"""
MARKS = """\
from pathlib import Path
def leave():
    Path({marker!r}).write_text("ran")
"""


def own_code(folder: Path, marker: Path, model_type: str = "own") -> Path:
    """Writes a tiny model whose code, in several files, makes the file ``marker``; returns its folder."""
    tiny("llama", folder)
    edit(folder / "config.json", model_type=model_type, auto_map={
        "AutoConfig": "configuration_own.OwnConfig", "AutoModelForCausalLM": "modeling_own.OwnModel"
    })  # fmt: skip
    edit(folder / "tokenizer_config.json", auto_map={"AutoTokenizer": [None, "tokenization_own.OwnTokenizer"]})
    (folder / "configuration_own.py").write_text(CONFIGURATION)
    (folder / "modeling_own.py").write_text(MODELING)
    (folder / "tokenization_own.py").write_text(TOKENIZING)
    (folder / "parts").mkdir()
    (folder / "parts" / "extra.py").write_text("from .. import marks\n")
    (folder / "marks.py").write_text(MARKS.format(marker=str(marker)))
    return folder


def edit(path: Path, **changes: object) -> None:
    """Changes settings of a JSON file."""
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
