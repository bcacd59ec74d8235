"""The tokenizer of a model on disk.

On some damaged files, the tokenizers library aborts the whole process, so an unknown file is first loaded in the
confined process (see `sparsezo_gui.engine.sandbox`). For each file that passed, the program's home gets an empty file
``tokenizers/HASH``, where HASH is the SHA-256 of the content and the library's version.
"""

from __future__ import annotations

import hashlib
import json
from contextlib import closing, suppress
from functools import lru_cache
from pathlib import Path
from typing import Any
from weakref import WeakValueDictionary

import tokenizers
from transformers import PreTrainedTokenizerBase

from sparsezo_gui import resources
from sparsezo_gui.engine.files import home, write_text
from sparsezo_gui.engine.pretrained import auto
from sparsezo_gui.engine.pretrained.consent import TrustedCode
from sparsezo_gui.engine.pretrained.gguf.folder import companions
from sparsezo_gui.engine.sandbox.process import Exceeded, Refused, Sandbox
from sparsezo_gui.errors import UserError
from sparsezo_gui.sizes import size
from sparsezo_gui.untrusted import outside

SECONDS, SECONDS_MIB = 10, 2  # of processor time to try a file, and in addition for each of its MiB
MEMORY, TIMES = 200 << 20, 30  # bytes to try a file, and in addition for each of its bytes
LARGEST_TEMPLATE = 1 << 20  # bytes of a file with a chat template
CURE = "Download or copy the model again, or choose another."


_loaded: WeakValueDictionary[Any, PreTrainedTokenizerBase] = WeakValueDictionary()


def load_tokenizer(folder: Path, code: TrustedCode | None = None) -> PreTrainedTokenizerBase:
    """The tokenizer in ``folder``, from the model's own ``code`` if it has a class for it, or of a GGUF file.

    One that is still in use is not loaded twice while its files stay as they are: one of 262,144 tokens takes 280 MiB.
    Nobody changes it. Raises `UserError`.
    """
    with outside(folder, "its tokenizer cannot be loaded", CURE):
        paths = sorted(path for path in folder.iterdir() if path.is_file()) if folder.is_dir() else [folder]
        key = folder, code, tuple((path.name, (about := path.stat()).st_mtime_ns, about.st_size) for path in paths)
    found = _loaded.get(key)
    if found is None:
        found = _loaded[key] = _load(folder, code)
    return found


def _load(folder: Path, code: TrustedCode | None) -> PreTrainedTokenizerBase:
    folder = companions(folder) if folder.is_file() else folder
    if folder not in resources.BUNDLED_MODELS.values():
        for path in sorted(folder.glob("tokenizer*.json")):
            if path.name != "tokenizer_config.json":
                _try(path)
        _refuse_others(folder / "tokenizer_config.json")
    with outside(folder, "its tokenizer cannot be loaded", CURE):
        found = auto.load_tokenizer(folder, code)
        found.model_max_length = 10**9  # the recipe limits the length, so the library should not warn about it
        found.decode(found("a").input_ids, skip_special_tokens=True)  # some faults appear only in use
    if not found.chat_template:
        beside, processor = folder / "chat_template.json", folder / "processor_config.json"
        found.chat_template = _template_beside(beside) or _template_beside(processor, may_lack=True)
    return found


def _template_beside(path: Path, may_lack: bool = False) -> Any:
    """The chat template in a separate file, as of vision models, which `transformers` reads only for their processors;
    several are a dict by name; None if there is none. Raises `UserError`."""
    if not path.is_file():
        return None
    with outside(path, "is not valid JSON", CURE), path.open("rb") as file:
        table = json.loads(file.read(LARGEST_TEMPLATE + 1))
    found = table.get("chat_template") if isinstance(table, dict) else None
    if may_lack and found is None:
        return None
    if isinstance(found, list) and all(isinstance(each, dict) and "name" in each for each in found):
        found = {str(each["name"]): each.get("template") for each in found}  # as tokenizer_config.json has several
    texts = found.values() if isinstance(found, dict) else [found]
    if not all(isinstance(text, str) for text in texts):
        raise UserError(f"{path}: has no text under 'chat_template'. {CURE}")
    return found


def _try(path: Path) -> None:
    """Raises `UserError` if the file cannot be loaded and used within the limits."""
    with outside(path, "cannot be read"):
        facts = path.stat()
    problem = _problem(path, (facts.st_dev, facts.st_ino, facts.st_size, facts.st_mtime_ns, facts.st_ctime_ns))
    if problem:
        raise UserError(problem)


@lru_cache(maxsize=16)
def _problem(path: Path, state: tuple[int, ...]) -> str:
    """What is wrong with the file; empty if nothing is. The file is tried once for each ``state`` (device, inode, size,
    times), and a file that passed only once for each content."""
    with outside(path, "cannot be read"), path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256")
    digest.update(tokenizers.__version__.encode())
    verdict = home() / "tokenizers" / digest.hexdigest()
    if verdict.exists():
        return ""
    length = state[2]
    seconds, memory = SECONDS + SECONDS_MIB * length // 2**20, MEMORY + TIMES * length
    try:
        with closing(Sandbox()) as sandbox:
            sandbox.ask("tokenizer", str(path.absolute()), seconds=seconds, memory=memory)
    except Exceeded as error:
        much = f"{seconds} seconds" if str(error) == "time" else f"{size(memory)} of memory"
        return f"{path}: takes more than {much} for a few words, or crashes. {CURE}"
    except Refused as error:
        return f"{path}: this tokenizer cannot be loaded ({error}). {CURE}"
    with suppress(UserError):  # then the file is tried again next time
        write_text(verdict, "")
    return ""


def _refuse_others(config: Path) -> None:
    """Raises `UserError` if the config makes `transformers` load a file that was not tried."""
    if not config.is_file():
        return
    with outside(config, "is not valid JSON"):
        table = json.loads(config.read_text(encoding="utf-8"))
        names = table.get("fast_tokenizer_files") or ()
    if any(Path(str(name)).name != name for name in names):
        raise UserError(f"{config}: 'fast_tokenizer_files' names a file in another folder. {CURE}")
