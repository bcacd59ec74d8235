"""What a run was trained and evaluated on, as hashes, which ``run.json`` stores under ``inputs``.

``train``, ``validation``, ``test``
    the encoded examples of each split, with their answers
``template``
    how a row becomes text: the recipe's template, or else that of its task
``tokenizer``
    the tokenizer's files, and the chat templates
``config``
    config.json and generation_config.json without the fields that name the program that wrote them, and the model's own
    code

Examples also depend on how this program makes them from rows. A run stores the version of that as ``prepared``:

1   answers without surrounding spaces; of conversations, the contents of turns, put into the template one by one
2   answers exactly as in the file; conversations exactly as the chat template renders them, with tools, reasoning and
    weights; pairs and preferences through the chat template, with 'system' and 'history'

Everything that evaluates or rebuilds a run compares the inputs that it uses. (The recipe's own values are compared in
`sparsezo_gui.engine.runs.folder.RunFolder.recipe`, and the weights by their fingerprint.)
"""

from __future__ import annotations

import hashlib
import json
import shlex
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from sparsezo_gui.engine.data import TaskData, columns
from sparsezo_gui.engine.data.encode import Encoded
from sparsezo_gui.engine.pretrained.source import ModelSource
from sparsezo_gui.engine.runs.facts import PREPARED
from sparsezo_gui.engine.runs.folder import RunFolder
from sparsezo_gui.errors import ChangedInputs
from sparsezo_gui.recipe.recipe import SPLITS, DataTable

TOKENIZER = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json",
             "chat_template*", "additional_chat_templates/*")  # fmt: skip
VOCABULARY = ("vocab*.json", "vocab*.txt", "merges.txt", "*.model", "*.tiktoken")  # read if there is no tokenizer.json
MARKED = "Do not compare these results with the run's earlier ones."
CONFIG = ("config.json", "generation_config.json")
_WRITER = ("transformers_version", "_name_or_path")  # fields that change whenever a program saves the model
_WORDS = {
    "train": "training examples", "validation": "validation examples", "test": "test examples",
    "template": "template", "tokenizer": "tokenizer", "config": "model's configuration",
}  # fmt: skip


def of_model(source: ModelSource) -> dict[str, str]:
    """Hashes of a model's tokenizer and configuration.

    Only files that are read count, because other programs may add more files to a folder in the cache.
    """
    folder = source.folder
    vocabulary = () if (folder / "tokenizer.json").exists() else VOCABULARY
    config = _of_files(folder, CONFIG)
    if source.code:
        config = hashlib.sha256(f"{config} {source.code.code.hash}".encode()).hexdigest()
    return {"tokenizer": _of_files(folder, (*TOKENIZER, *vocabulary)), "config": config}


def of_data(data: TaskData, table: DataTable) -> dict[str, str]:
    """Hashes of the splits and their template, and the ``data_hash``."""
    task = data.task.model_dump(mode="json", exclude={"title", "paper", "metric", "chat_template"})
    task["columns"] = {part: names for part, names in task["columns"].items() if part not in columns.LATER}
    template = json.dumps([task, table.template, table.answers], sort_keys=True)
    return {
        **{name: _of_examples(getattr(data, name).encoded) for name in SPLITS},
        "template": hashlib.sha256(template.encode()).hexdigest(),
        "data_hash": _data_hash(data.train.encoded),
    }


def _data_hash(examples: Sequence[Encoded]) -> str:
    """SHA-256 of the training examples' tokens, the only hash of the data in runs from before ``inputs``."""
    digest = hashlib.sha256()
    for example in examples:
        for row in example.rows:
            digest.update(repr((row.tokens, row.positions, row.targets, row.choices, example.label)).encode())
    return digest.hexdigest()


def compare(run: RunFolder, found: Mapping[str, str], uses: Iterable[str], accept: bool = False) -> tuple[str, ...]:
    """Which of the inputs in ``uses`` differ from those that ``run`` started with; ``found`` are their current hashes.

    Raises `ChangedInputs` for any, unless ``accept`` is set.
    """
    facts = run.facts
    changed = tuple(name for name in uses if facts.inputs.get(name, found[name]) != found[name])
    old = None if "train" in facts.inputs else facts.data_hash  # in runs from before ``inputs``
    if old and found.get("data_hash", old) != old:
        changed = ("train", *changed)
    if changed and not accept:
        raise ChangedInputs(*_sentences(run, changed), changed=changed)
    return changed


def in_words(changed: Sequence[str]) -> str:
    """'the test examples and the tokenizer'."""
    names = [f"the {_WORDS[name]}" for name in changed]
    return f"{', '.join(names[:-1])} and {names[-1]}" if len(names) > 1 else names[0]


def marked(changed: Sequence[str]) -> str:
    """The sentence that marks a result."""
    return f"Since the run started, {in_words(changed)} changed. {MARKED}"


def _sentences(run: RunFolder, changed: Sequence[str]) -> list[str]:
    recipe = run.recipe
    of_its_data = {*SPLITS, "template"} & set(changed)
    places = [f"[data] source = '{recipe.data.source}'"] if of_its_data else []
    places += [f"[model] id = '{recipe.model.id}'"] if set(changed) - of_its_data else []
    branch = shlex.join(["sparsezo", "branch", str(run.path), "--set", f"data.source={recipe.data.source}"])
    cure = f", or create a branch that uses the current data: {branch}" if of_its_data else "."
    if of_its_data and run.facts.prepared < PREPARED:
        program = run.facts.versions.get("sparsezo-gui", "")
        what = (
            f"Run '{run.name}': {in_words(changed)} differ from those it started with. This version of SparseZO "
            "prepares examples differently: it keeps spaces in answers and follows the model's chat template exactly. "
            f"If the data has not changed, resume with the version that made the run ({program}){cure}"
        )
    else:
        what = (
            f"Run '{run.name}': {in_words(changed)} changed since the run started. Restore the original "
            f"({', '.join(places)}){cure}"
        )
    if "train" in changed and recipe.gradient_size(1):  # its steps cannot be computed again
        return [what]
    return [what, "To evaluate, generate or export anyway, add --changed-inputs; the result is marked."]


def _of_examples(examples: Sequence[Encoded]) -> str:
    digest = hashlib.sha256()
    for each in examples:
        rows = [(row.tokens, row.positions, row.targets, row.choices, row.branches) for row in each.rows]
        digest.update(repr((rows, each.choices, each.label, each.prompt, each.references, each.accepted)).encode())
    return digest.hexdigest()


def _of_files(folder: Path, patterns: Iterable[str]) -> str:
    digest = hashlib.sha256()
    for path in sorted({path for pattern in patterns for path in folder.glob(pattern) if path.is_file()}):
        digest.update(f"{path.relative_to(folder).as_posix()}\0".encode())
        digest.update(hashlib.sha256(_content(path)).digest())
    return digest.hexdigest()


def _content(path: Path) -> bytes:
    content = path.read_bytes()
    if not path.name.endswith("config.json") or path.name.startswith("tokenizer"):
        return content
    try:
        table = json.loads(content)
        return json.dumps({key: table[key] for key in sorted(table) if key not in _WRITER}, sort_keys=True).encode()
    except (ValueError, TypeError, RecursionError):  # reported when the file is used
        return content
