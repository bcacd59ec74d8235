"""Finding a model: bundled, in a folder, in the Hugging Face cache, or on the Hub (then downloads it)."""

from __future__ import annotations

import re
from collections.abc import Generator
from dataclasses import replace
from pathlib import Path

import huggingface_hub
from huggingface_hub import constants
from huggingface_hub import errors as hub
from huggingface_hub.utils import filter_repo_objects

from sparsezo_gui import resources
from sparsezo_gui.answers import Downloaded
from sparsezo_gui.engine.hub.download import HubFile, Snapshot, check_download_room, fetch_all, hub_file, patiently
from sparsezo_gui.engine.hub.refusals import HUB_ERRORS, refusal
from sparsezo_gui.engine.hub.token import token
from sparsezo_gui.engine.pretrained import kinds
from sparsezo_gui.engine.pretrained.code import find_code
from sparsezo_gui.engine.pretrained.consent import required
from sparsezo_gui.engine.pretrained.places import local_folder
from sparsezo_gui.engine.pretrained.source import (
    INDEX,
    PICKLES,
    SINGLE,
    ModelSource,
    check_quantisation,
    find_weights,
    inspect,
    read_config,
)
from sparsezo_gui.engine.pretrained.spec import spec
from sparsezo_gui.engine.pretrained.tuned import tables, untuned
from sparsezo_gui.errors import UserError
from sparsezo_gui.recipe.events import Progress
from sparsezo_gui.recipe.recipe import ModelTable
from sparsezo_gui.untrusted import outside

FILES = ("*.json", "*.safetensors", "*.model", "*.txt", "*.jinja", "*.tiktoken", "LICENSE*", "NOTICE*", "README.md")
"""Files to download from the Hub."""
MORE_TEMPLATES = re.compile(r"additional_chat_templates/\w[\w.-]*\.jinja")
"""Templates of a model that has several, such as one for tools."""
LEFT_OUT = ("*/*", "*:*", "consolidated*", "adapter_*", "*.bin.index.json", "*onnx*")
PICKLED = {pattern[1:] for pattern in PICKLES}


def find(table: ModelTable) -> Generator[Progress, None, ModelSource]:
    """Finds the model that ``table`` names, downloads it if needed, and checks it without reading weights.

    Searches the bundled models, folders, the Hugging Face cache and the Hub, in this order. Closing the generator
    cancels a download, but keeps downloaded parts for the next time. Raises `UserError`.
    """
    yield Progress("Looking for the model")
    tuned = tables(table)
    source = yield from _pretrained(tuned[-1][1] if tuned else table)
    if tuned and source.bitsandbytes:
        raise UserError(
            f"{table.id}: its base model '{source.id}' is itself quantised, so nothing can be merged into it. Name the "
            "16-bit original as the base model, or merge it with the program that made it."
        )
    for model, base in reversed(tuned):
        layer = yield from model.layer(source, base)
        source = replace(source, layers=(*source.layers, layer))
    return replace(source, id=table.id) if tuned else source


def _pretrained(table: ModelTable) -> Generator[Progress, None, ModelSource]:
    folder = local_folder(table.id)
    if folder is None:
        folder = cached_folder(table)
        if folder is None:
            folder = Path((yield from download(table)).path)
    with outside(folder, "cannot be used as a model"):
        return inspect(folder, table)


def tokenizer_folder(table: ModelTable) -> Generator[Progress, None, Path]:
    """Folder with the tokenizer of the model that ``table`` names; if it is only on the Hub, everything but the weights
    is downloaded. Raises `UserError`."""
    yield Progress("Looking for the model")
    table = untuned(table)
    folder = local_folder(table.id) or cached_folder(table)
    if folder is not None:
        return folder
    try:
        snapshot, files = yield from _listing(table)
        small = [file for file in files if not file.name.endswith(".safetensors")]
        yield from fetch_all(snapshot, small, 0, sum(file.size for file in small))
    except HUB_ERRORS as error:
        raise hub_error(table, error) from error
    return snapshot.folder


def cached_folder(table: ModelTable) -> Path | None:
    """The model's folder in the Hugging Face cache, if it is complete (offline: if there is any); else None. Makes no
    network call. Raises `UserError` for the model's own code if that cannot be run at all.
    """
    table = untuned(table)
    try:
        path = Path(
            huggingface_hub.snapshot_download(
                table.id, revision=table.revision, local_files_only=True, allow_patterns="config.json"
            )
        )
    except (hub.HFValidationError, hub.LocalEntryNotFoundError, OSError):
        return None
    if not (path / "config.json").is_file():
        return None
    return path if huggingface_hub.is_offline_mode() or _complete(path, table) else None


def _complete(folder: Path, table: ModelTable) -> bool:
    try:
        find_weights(folder)
    except UserError:
        return False
    code = find_code(table, folder)
    return code is None or not code.missing


def hub_error(table: ModelTable, error: BaseException) -> UserError:
    """The sentence for an error of the Hub's client."""
    bundled = ", ".join(resources.BUNDLED_MODELS)
    return refusal("model", table.id, error, f"choose a folder or a bundled model ({bundled})")


def download(table: ModelTable) -> Generator[Progress, None, Downloaded]:
    """Downloads what is missing of the model into the Hugging Face cache: small files first, to refuse unusable models
    early. Closing the generator cancels, but keeps downloaded parts for the next time. Raises `UserError`.
    """
    if (folder := local_folder(table.id)) is not None:
        raise UserError(f"'{table.id}' is a model on this computer ({folder}). There is nothing to download.")
    try:
        snapshot, files = yield from _listing(table)
        missing, total = sum(map(snapshot.missing, files)), sum(file.size for file in files)
        check_download_room(snapshot, missing)
        weights = [file for file in files if file.name.endswith(".safetensors")]
        done = yield from fetch_all(snapshot, [file for file in files if file not in weights], 0, total)
        code = required(table, snapshot.folder)
        config = read_config(snapshot.folder, code)
        check_quantisation(f"'{table.id}' on the Hub", config)
        spec(config, code)
        yield from fetch_all(snapshot, weights, done, total)
        snapshot.note(table.revision)
    except HUB_ERRORS as error:
        raise hub_error(table, error) from error
    return Downloaded(table.id, snapshot.commit, str(snapshot.folder), total, missing)


def _listing(table: ModelTable) -> Generator[Progress, None, tuple[Snapshot, list[HubFile]]]:
    """The commit and its files to download. Raises `UserError` if they are not a model that can be loaded."""
    if huggingface_hub.is_offline_mode():
        raise hub.OfflineModeIsEnabled
    info = yield from patiently(lambda: model_info(table), Progress("Looking for the model"))
    names = [sibling.rfilename for sibling in info.siblings or ()]
    if what := kinds.of_files(names, kinds.base_of_tags(info.tags)):
        raise UserError(f"'{table.id}' on the Hub {what}")
    patterns = [*FILES, *PICKLES, *(["*.py"] if table.trust_remote_code else [])]
    others = [name for name in names if MORE_TEMPLATES.fullmatch(name)]
    names = [*filter_repo_objects(names, allow_patterns=patterns, ignore_patterns=list(LEFT_OUT)), *others]
    if "config.json" not in names:
        raise UserError(f"'{table.id}' on the Hub is incomplete: it has no config.json. Choose another copy.")
    if SINGLE not in names and INDEX not in names:
        raise UserError(
            f"'{table.id}' on the Hub has no safetensors weights, the only format that SparseZO loads. "
            "Choose a copy of the model with model.safetensors."
        )
    unused = re.compile(r"model-\d+-of-\d+\.safetensors|.*\.index\.json") if SINGLE in names else re.compile("$^")
    wanted = {name for name in names if Path(name).suffix not in PICKLED and not unused.fullmatch(name)}
    files = [hub_file(each) for each in info.siblings or () if each.rfilename in wanted]
    files.sort(key=lambda file: file.size)  # what describes the model comes before its weights
    return Snapshot(table.id, info.sha or "", token()), files


def model_info(table: ModelTable) -> huggingface_hub.ModelInfo:
    """The Hub's metadata of the model at the table's revision, with its files. Raises the client's errors."""
    return huggingface_hub.HfApi().model_info(
        table.id, revision=table.revision, files_metadata=True, token=token(), timeout=constants.HF_HUB_ETAG_TIMEOUT
    )
