"""Finding a model: bundled, in a folder, in the Hugging Face cache, or on the Hub, from which it is downloaded."""

from __future__ import annotations

import errno
import re
import shutil
import threading
from collections.abc import Generator
from pathlib import Path
from typing import Any

import huggingface_hub
from huggingface_hub import constants
from huggingface_hub import errors as hub
from huggingface_hub.utils._xet import abort_xet_session

from sparsezo_gui import resources
from sparsezo_gui.engine.models.anatomy import anatomy
from sparsezo_gui.engine.models.source import (
    INDEX,
    PICKLES,
    SINGLE,
    ModelSource,
    check_quantisation,
    find_weights,
    inspect,
    local_folder,
    read_config,
)
from sparsezo_gui.errors import UserError
from sparsezo_gui.recipe.events import Progress
from sparsezo_gui.recipe.recipe import ModelTable

FILES = ("*.json", "*.safetensors", "*.model", "*.txt", "*.jinja", "*.tiktoken", "LICENSE*", "NOTICE*", "README.md")
"""What is fetched from the Hub."""
LEFT_OUT = ("*/*", "consolidated*", "adapter_*", "*.bin.index.json", "*onnx*")
PICKLED = {pattern[1:] for pattern in PICKLES}
SPARE = 256 * 2**20  # bytes that stay free on the disk after a download


def find(table: ModelTable) -> Generator[Progress, None, ModelSource]:
    """Finds the model that ``table`` names, downloading it where it must, and checks it without reading a weight.

    Looks among the bundled models, then for a folder, then in the Hugging Face cache, then on the Hub. Closing the
    generator cancels a download; what was fetched stays for the next time. Raises `UserError`.
    """
    yield Progress("Looking for the model")
    folder = local_folder(table.id)
    if folder is None:
        folder = cached_folder(table)
        if folder is None:
            folder = yield from _download(table)
    return inspect(folder, table)


def cached_folder(table: ModelTable) -> Path | None:
    """Folder in the Hugging Face cache when all of the model is there (offline: when any of it is); no network call."""
    try:
        path = Path(huggingface_hub.snapshot_download(
            table.id, revision=table.revision, local_files_only=True, allow_patterns="config.json"
        ))
    except (hub.HFValidationError, hub.LocalEntryNotFoundError, OSError):
        return None
    if not (path / "config.json").is_file():
        return None
    return path if huggingface_hub.is_offline_mode() or _complete(path) else None


def _complete(folder: Path) -> bool:
    try:
        find_weights(folder)
    except UserError:
        return False
    return True


def hub_error(table: ModelTable, error: BaseException) -> UserError:
    """The sentence for whatever the Hub's client raised."""
    chain = _chain(error)

    def any_is(*kinds: type) -> bool:
        return any(isinstance(link, kinds) for link in chain)

    name, page = f"'{table.id}' on the Hub", f"{constants.ENDPOINT}/{table.id}"
    if any_is(hub.OfflineModeIsEnabled):
        return UserError(f"'{table.id}' is not on this computer, and the program is offline (HF_HUB_OFFLINE). Go "
                         "online once to download it, or name a folder or a bundled model "
                         f"({', '.join(resources.BUNDLED_MODELS)}).")
    if any_is(hub.GatedRepoError):
        return UserError(f"{name} is gated. Accept its terms at {page}, make a token at "
                         f"{constants.ENDPOINT}/settings/tokens, and give it with 'hf auth login' or as HF_TOKEN.")
    if any_is(hub.RepositoryNotFoundError, hub.HFValidationError):
        return UserError(f"There is no model {name}, or it is private, and there is no folder of that name. Check it "
                         "('owner/model'); for a private model, give a token with 'hf auth login' or the variable "
                         f"HF_TOKEN. Bundled models: {', '.join(resources.BUNDLED_MODELS)}.")
    if any_is(hub.RevisionNotFoundError):
        return UserError(f"{name} has no revision '{table.revision}'. Use 'main', or a branch, tag or commit listed at "
                         f"{page}/tree/main.")
    if any_is(hub.DisabledRepoError):
        return UserError(f"{name} was disabled by the Hub. Choose another model.")
    if any(isinstance(link, OSError) and link.errno == errno.ENOSPC for link in chain):
        return UserError(f"The disk of {constants.HF_HUB_CACHE} is full. Free some space and start again; what was "
                         "downloaded is kept.")
    reason = (str(chain[-1]).strip() or type(chain[-1]).__name__).split("\n")[0]
    return UserError(f"{name} cannot be reached ({reason}). Check the connection and start again; what was downloaded "
                     "is kept.")


def _chain(error: BaseException) -> list[BaseException]:
    chain = [error]
    while (cause := chain[-1].__cause__ or chain[-1].__context__) is not None and cause not in chain:
        chain.append(cause)
    return chain


HUB_ERRORS = (hub.HTTPError, hub.HFValidationError, hub.EntryNotFoundError, hub.XetDownloadError, OSError)


def _download(table: ModelTable) -> Generator[Progress, None, Path]:
    """Fetches the model into the Hugging Face cache: small files first, so that a useless one is refused early."""
    files = _listing(table)
    meter = _Meter(sum(file.file_size or 0 for file in files if file.will_download))
    _check_disk(table, meter.total)
    weights = [file for file in files if file.filename.endswith(".safetensors")]
    folder = yield from _fetch(table, [file for file in files if file not in weights], meter)
    config = read_config(folder, table.trust_remote_code)
    check_quantisation(f"'{table.id}' on the Hub", config)
    anatomy(config, table.trust_remote_code)
    return (yield from _fetch(table, weights, meter))


def _listing(table: ModelTable) -> list[huggingface_hub.DryRunFileInfo]:
    """The files to fetch. Raises `UserError` when they do not make a model that can be loaded."""
    if huggingface_hub.is_offline_mode():
        raise hub_error(table, hub.OfflineModeIsEnabled())
    patterns = [*FILES, *PICKLES, *(["*.py"] if table.trust_remote_code else [])]
    try:
        files = huggingface_hub.snapshot_download(
            table.id, revision=table.revision, allow_patterns=patterns, ignore_patterns=LEFT_OUT, dry_run=True
        )
    except HUB_ERRORS as error:
        raise hub_error(table, error) from error
    names = [file.filename for file in files]
    if "config.json" not in names:
        raise UserError(f"'{table.id}' on the Hub is not a whole model: it has no config.json. An adapter or a GGUF "
                        "copy cannot be tuned; choose the base model.")
    if SINGLE not in names and INDEX not in names:
        raise UserError(f"'{table.id}' on the Hub has no safetensors weights, and SparseZO opens no other format. "
                        "Choose a copy of the model that has model.safetensors.")
    unused = re.compile(r"model-\d+-of-\d+\.safetensors|.*\.index\.json") if SINGLE in names else re.compile("$^")
    return [file for file in files if Path(file.filename).suffix not in PICKLED and not unused.fullmatch(file.filename)]


def _check_disk(table: ModelTable, needed: int) -> None:
    place = Path(constants.HF_HUB_CACHE)
    while not place.exists():
        place = place.parent
    free = shutil.disk_usage(place).free
    if needed and needed + SPARE > free:
        raise UserError(f"'{table.id}' needs {needed / 1e9:.1f} GB on the disk of {place}, but only {free / 1e9:.1f} "
                        "GB are free. Free some space, or set HF_HOME to a folder on another disk.")


class _Cancelled(Exception):
    """Raised inside the client's progress report, the one place where a download can be stopped."""


class _Meter:
    """Counts bytes of all files together, and stops the download when asked."""

    def __init__(self, total: int) -> None:
        self.total, self.done = total, 0
        self.stop = threading.Event()

    def bars(self) -> type[_Bar]:
        """The class that the client shall use in tqdm's place."""
        return type("Bar", (_Bar,), {"meter": self})


class _Bar:
    """The part of tqdm's interface that the client uses; ``initial`` bytes were there from an earlier try."""

    meter: _Meter

    def __init__(self, *_: Any, initial: int = 0, **__: Any) -> None:
        self.meter.done += initial

    def __enter__(self) -> _Bar:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def update(self, count: float | None = 1) -> None:
        self.meter.done += int(count or 0)
        if self.meter.stop.is_set():
            raise _Cancelled

    def _ignore(self, *_: Any, **__: Any) -> None:
        pass

    close = refresh = set_postfix_str = set_description = set_description_str = _ignore
    update_transfer = set_transfer_postfix_str = _ignore


def _fetch(
    table: ModelTable, files: list[huggingface_hub.DryRunFileInfo], meter: _Meter
) -> Generator[Progress, None, Path]:
    """Fetches ``files`` in a thread, telling the bytes of all; returns the folder they are in."""
    faults: list[BaseException] = []
    folders: list[Path] = []

    def work() -> None:
        try:
            for file in files:
                path = huggingface_hub.hf_hub_download(
                    table.id, file.filename, revision=file.commit_hash, tqdm_class=meter.bars()
                )
                folders.append(Path(path).parent)
        except BaseException as error:  # told in the thread that asked
            faults.append(error)

    thread = threading.Thread(target=work, name="download", daemon=True)
    thread.start()
    try:
        while thread.is_alive():
            thread.join(0.1)
            yield Progress("Downloading the model", min(meter.done, meter.total), meter.total, "bytes")
    finally:
        if thread.is_alive():
            meter.stop.set()
            thread.join(2)
            if thread.is_alive():  # chunked storage reports from a thread of its own, which swallows `_Cancelled`
                abort_xet_session()
                thread.join(5)
    if faults:
        if isinstance(faults[0], HUB_ERRORS):
            raise hub_error(table, faults[0]) from faults[0]
        raise faults[0]
    return folders[-1]
