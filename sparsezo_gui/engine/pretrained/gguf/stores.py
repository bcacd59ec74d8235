"""Models that Ollama and LM Studio have downloaded. Nothing is moved or written there.

Ollama names files by their hash: ``manifests/HOST/OWNER/NAME/TAG`` says which of ``blobs/sha256-HASH`` is the model.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from contextlib import suppress
from itertools import islice
from pathlib import Path

from sparsezo_gui.errors import UserError, did_you_mean
from sparsezo_gui.untrusted import outside, resolved

OLLAMA = "ollama:"
MOST = 1000  # models that are listed of each store
_MODEL = "application/vnd.ollama.image.model"
_HOST, _OWNER, _TAG = "registry.ollama.ai", "library", "latest"
_LARGEST = 1 << 20  # bytes of a manifest
_NAME = re.compile(r"(?:(?:([\w.-]+)/)?([\w.-]+)/)?(\w[\w.-]*)(?::(\w[\w.-]*))?")


def ollama_file(id: str) -> Path:
    """The GGUF file of the model ``id`` (``ollama:NAME`` or ``ollama:NAME:TAG``). Raises `UserError`."""
    match = _NAME.fullmatch(id.removeprefix(OLLAMA))
    places = match and (match[1] or _HOST, match[2] or _OWNER, match[3], match[4] or _TAG)
    if places and not {".", ".."} & set(places):
        for store in _ollama_stores():
            manifest = store.joinpath("manifests", *places)
            if manifest.is_file():
                return _blob(store, manifest)
    known = [name for name, _ in ollama_models()]
    hint = did_you_mean(id, known) if known else "No model of Ollama was found on this computer."
    raise UserError(f"There is no model '{id}'. {hint}")


def ollama_models() -> list[tuple[str, Path]]:
    """Id and file of each model of Ollama, by name; those whose files are damaged or gone are left out."""
    found: dict[str, Path] = {}
    for store in _ollama_stores():
        for manifest in islice(sorted(store.glob("manifests/*/*/*/*")), MOST):
            with suppress(UserError):
                found.setdefault(_id(manifest.relative_to(store / "manifests").parts), _blob(store, manifest))
    return sorted(found.items())


def lm_studio_models() -> list[Path]:
    """GGUF file of each model of LM Studio, by path: neither image encoders nor later parts of split models."""
    found: list[Path] = []
    for store in _lm_studio_stores():
        with suppress(OSError):
            found += islice(filter(_whole, store.rglob("*.gguf")), MOST)
    return sorted(found)


def lm_studio_store() -> Path | None:
    """The folder of LM Studio's models, which has them as PUBLISHER/MODEL/FILE.gguf; None if there is none."""
    return next((store for store in _lm_studio_stores() if store.is_dir()), None)


def _lm_studio_stores() -> tuple[Path, Path]:
    """Its folder, on every system, and that of earlier versions."""
    return Path.home() / ".lmstudio" / "models", Path.home() / ".cache" / "lm-studio" / "models"


def gguf_in(folder: Path) -> Path | None:
    """The only GGUF file in ``folder``; None if there is none, or a model in another format. Raises `UserError` for
    several."""
    files = sorted(filter(_whole, folder.glob("*.gguf")))
    if not files or any(path.suffix in (".safetensors", ".bin") for path in folder.iterdir()):
        return None
    if len(files) > 1:
        raise UserError(f"{folder}: contains {len(files)} GGUF files. Choose one of them, such as {files[0]}")
    return resolved(files[0])


def _whole(path: Path) -> bool:
    later = re.search(r"-(?!0*1-)\d+-of-\d+\.gguf$", path.name)
    return not path.name.startswith("mmproj") and not later and path.is_file()


def _ollama_stores() -> Iterator[Path]:
    chosen = os.environ.get("OLLAMA_MODELS")
    usual = (Path.home() / ".ollama/models", Path("/usr/share/ollama/.ollama/models"))  # the latter of a Linux service
    for place in [Path(chosen)] if chosen else usual:
        with suppress(OSError):
            if place.is_dir():
                yield place


def _id(parts: tuple[str, ...]) -> str:
    host, owner, name, tag = parts
    owner = "" if (host, owner) == (_HOST, _OWNER) else f"{owner}/"
    return f"{OLLAMA}{'' if host == _HOST else f'{host}/'}{owner}{name}{'' if tag == _TAG else f':{tag}'}"


def _blob(store: Path, manifest: Path) -> Path:
    """The file of the model that a manifest names. Raises `UserError`."""
    with outside(manifest, "is not a manifest of Ollama", "Pull the model again."):
        with manifest.open("rb") as file:
            layers = json.loads(file.read(_LARGEST))["layers"]
        digests = [str(layer["digest"]) for layer in layers if layer["mediaType"] == _MODEL]
        if len(digests) != 1 or not re.fullmatch("sha256[:-][0-9a-f]{64}", digests[0]):
            raise ValueError("it has not one model")
        path = store / "blobs" / digests[0].replace(":", "-")
        if not path.is_file():
            raise UserError(f"{manifest}: names {path.name}, which is missing. Pull the model again.")
        return resolved(path)
