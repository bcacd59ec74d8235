"""What a stranger may write wherever text can stand, and real files that hold it: a model, data, a recipe, a run."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from sparsezo_gui import recipe as recipes
from tests.models import tiny

NAME = '<b>bold<i><img src="x"><a href="x">&lt;[bold]:fire:&Q[*]\x1b]0;owned\x07\x9b31m\u202egnp\u200b.exe'
"""Mark-up of Qt and of rich, an emoji's name, a key, a place in a title, escapes of terminals, and a name that is read
from right to left. It may be the name of a file."""
COLUMN = NAME.replace(".", "")  # a dot would lead into an object
TEXT = f"{NAME}\n\tשלום\u200f, می\u200cخواهم\r"
"""A text with the same, and with marks that Hebrew and Persian need."""
SHOWN = '<b>bold<i><img src="x"><a href="x">&lt;[bold]:fire:&Q[*]'
"""How both begin for whoever reads them."""
STEERS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202d\u202e]")


def model(folder: Path) -> Path:
    """A tiny model in a folder of that name, which states such a licence and writes nothing else."""
    made = tiny("llama", folder / NAME)
    (made / "README.md").write_text(f"---\nlicense: {NAME}\n---\n", encoding="utf-8")
    path = made / "tokenizer.json"
    tokenizer = json.loads(path.read_text(encoding="utf-8"))
    replaced = {"type": "Replace", "pattern": {"Regex": r"[\s\S]+"}, "content": TEXT}
    tokenizer["decoder"] = {"type": "Sequence", "decoders": [tokenizer["decoder"], replaced]}
    path.write_text(json.dumps(tokenizer), encoding="utf-8")
    return made


def recipe(folder: Path) -> Path:
    """A recipe with its model and data in ``folder``."""
    rows = [{"text": f"{i} {TEXT}", COLUMN: f"{'yes' if i % 2 else 'no'}{NAME}", "more": TEXT} for i in range(40)]
    (folder / f"{NAME}.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    path = folder / f"{NAME}.toml"
    quoted = json.dumps  # TOML escapes as JSON does
    path.write_text(
        f'[model]\nid = {quoted(str(model(folder)))}\ndevice = "cpu"\n'
        f"[data]\nsource = {quoted(f'{NAME}.jsonl')}\ntemplate = {quoted('{{ text }}' + NAME)}\n"
        f"columns = {{ answer = {quoted(COLUMN)} }}\ntrain = 20\nvalidation = 8\ntest = 8\nmax_tokens = 1000\n"
        '[mask]\nrule = "random"\ndensity = 0.01\n[loop]\nsteps = 2\nbatch_size = 2\nevaluate_every = 1\n'
        f"[run]\nname = {quoted(NAME[:80])}\n",
        encoding="utf-8",
    )
    return path


def run(folder: Path, path: Path) -> Any:
    """A run of that recipe, in a folder of such a name, with such notes."""
    from sparsezo_gui.engine.runs.folder import open_run
    from sparsezo_gui.engine.training import train

    for _ in train(recipes.load(path), folder=folder / f"run {NAME}"):
        pass
    made = open_run(folder / f"run {NAME}")
    made.note(TEXT)
    return made
