"""Hands a GGUF file to Ollama, and knows where LM Studio looks for one."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Generator
from pathlib import Path

from sparsezo_gui.engine.pretrained.gguf.stores import lm_studio_store
from sparsezo_gui.errors import UserError
from sparsezo_gui.plain import printable
from sparsezo_gui.recipe.events import Progress

PUBLISHER = "sparsezo"  # LM Studio lists models as PUBLISHER/MODEL
_WAIT = 0.2  # seconds between looks at a process


def in_lm_studio(name: str) -> Path | None:
    """The file that LM Studio lists as the model ``name``; None where there is no LM Studio."""
    store, name = lm_studio_store(), named(name)
    return store / PUBLISHER / name / f"{name}.gguf" if store else None


def refuse_elsewhere(out: Path) -> None:
    """Raises `UserError` for a file that LM Studio would not list."""
    store = lm_studio_store()
    if store is None:
        raise UserError(
            f"LM Studio was not found: there is no folder {Path.home() / '.lmstudio' / 'models'}. Start LM Studio "
            "once, or export without --to and open the file there."
        )
    if out.absolute().parent.parent.parent != store.absolute():
        raise UserError(f"{out}: LM Studio lists only {store / 'PUBLISHER' / 'MODEL' / 'FILE.gguf'}. Leave out --out.")


def named(name: str) -> str:
    """``name`` as both programs accept it."""
    return re.sub(r"[^\w.-]+", "-", name, flags=re.ASCII).strip("-.").lower() or "model"


def in_ollama(out: str) -> str:
    """The command that adds the GGUF file ``out``, which has its Modelfile beside it, to Ollama, and starts it."""
    name = named(Path(out).stem)
    create = shlex.join(["ollama", "create", name, "-f", str(Path(out).with_suffix(".Modelfile"))])
    return f"{create} && ollama run {name}"


def create(name: str, modelfile: Path) -> Generator[Progress, None, str]:
    """Makes the model ``name`` in Ollama; a sentence on what came of it."""
    command = ["ollama", "create", named(name), "-f", str(modelfile)]
    if not shutil.which("ollama"):
        return f"Ollama is not installed here. Where it is, run: {shlex.join(command)}"
    yield Progress("Adding the model to Ollama")
    with tempfile.TemporaryFile() as said:
        try:
            process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=said, stderr=subprocess.STDOUT)
        except OSError as error:
            return f"Ollama could not be started ({error.strerror}). To try again: {shlex.join(command)}"
        try:
            while _running(process):
                yield Progress("Adding the model to Ollama")
        finally:
            if process.poll() is None:
                process.kill()  # its server goes on, and keeps what it has
                process.wait()
        said.seek(0)
        lines = said.read(1 << 16).decode(errors="replace").split("\n")
    if process.returncode:
        last = next((line.strip() for line in reversed(lines) if line.strip()), "no message")
        return f"Ollama could not add the model ({printable(last)[:200]}). To try again: {shlex.join(command)}"
    return f"Added to Ollama. Try it: ollama run {named(name)}"


def _running(process: subprocess.Popen[bytes]) -> bool:
    try:
        process.wait(_WAIT)
    except subprocess.TimeoutExpired:
        return True
    return False
