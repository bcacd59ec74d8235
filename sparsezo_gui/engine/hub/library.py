"""Lists of models on this computer, and facts about one model. Reads and downloads no weights."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import huggingface_hub
from huggingface_hub import constants
from transformers import CONFIG_MAPPING
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from sparsezo_gui import resources
from sparsezo_gui.answers import ModelSummary
from sparsezo_gui.engine.hub.cache import cached_folder, hub_error, model_info
from sparsezo_gui.engine.hub.refusals import HUB_ERRORS
from sparsezo_gui.engine.hub.token import token
from sparsezo_gui.engine.pretrained import kinds
from sparsezo_gui.engine.pretrained.code import has_code, named_type
from sparsezo_gui.engine.pretrained.consent import TrustedCode, permitted, required
from sparsezo_gui.engine.pretrained.gguf.header import read_gguf
from sparsezo_gui.engine.pretrained.gguf.stores import OLLAMA, lm_studio_models, ollama_models
from sparsezo_gui.engine.pretrained.places import local_folder
from sparsezo_gui.engine.pretrained.source import check_quantisation, find_weights, read_config
from sparsezo_gui.engine.pretrained.spec import ModelSpec, spec
from sparsezo_gui.engine.pretrained.tuned import untuned
from sparsezo_gui.errors import UserError
from sparsezo_gui.formats import tuned_model, tuned_models
from sparsezo_gui.recipe.paths import RUN
from sparsezo_gui.recipe.recipe import ModelTable
from sparsezo_gui.untrusted import reason

FRONT = 1 << 16  # characters of a model card that its licence is looked for in
_WEIGHTS = (".safetensors", ".bin", ".pt", ".pth", ".gguf")


def local_models() -> list[ModelSummary]:
    """Bundled models, the causal language models in the Hugging Face cache, the models of Ollama and LM Studio, and
    runs to continue from."""
    bundled = [_of_folder(ModelTable(id=id), folder, "bundled") for id, folder in resources.BUNDLED_MODELS.items()]
    ollama = [_of_folder(ModelTable(id=id), path, "ollama") for id, path in ollama_models()]
    studio = [_of_folder(ModelTable(id=str(path)), path, "lmstudio") for path in lm_studio_models()]
    tuned = [summary(id) for kind in tuned_models() for id in kind.listed()]
    return [*bundled, *_in_cache(), *ollama, *studio, *tuned]


def _in_cache() -> list[ModelSummary]:
    found: list[ModelSummary] = []
    try:
        repositories = huggingface_hub.scan_cache_dir(constants.HF_HUB_CACHE).repos
    except (huggingface_hub.errors.CacheNotFound, OSError):
        return found
    for repository in sorted(repositories, key=lambda each: each.repo_id.lower()):
        revisions = sorted(repository.revisions, key=lambda each: ("main" in each.refs, each.last_modified))
        if repository.repo_type == "model" and revisions and _is_causal(revisions[-1].snapshot_path):
            model = _of_folder(ModelTable(id=repository.repo_id), revisions[-1].snapshot_path, "cache")
            if not model.bytes and any((repository.repo_path / "blobs").glob("*.incomplete")):
                model = replace(model, problem="Only a part of it is downloaded. Download it again to resume.")
            elif not any(file.file_name.endswith(_WEIGHTS) for file in revisions[-1].files):
                continue  # only its config, which was looked at
            found.append(model)
    return found


def summary(table: ModelTable | str) -> ModelSummary:
    """Summary of the model of ``table``, from its config and the Hub's metadata; faults are its ``problem``."""
    table = ModelTable(id=table) if isinstance(table, str) else table
    try:
        if tuned := tuned_model(table.id):
            return replace(summary(untuned(table)), id=table.id, title=_title(table.id), kind=tuned.kind)
        folder = local_folder(table.id)
        if folder is not None:
            return _of_folder(table, folder, _kind(table.id, folder))
        folder = cached_folder(table)
        if folder is not None:
            return _of_folder(table, folder, "cache")
        return _of_hub(table)
    except UserError as error:
        return ModelSummary(table.id, _title(table.id), "hub", problem=str(error))


def spec_of(table: ModelTable) -> ModelSpec:
    """Model spec from the config alone, which is downloaded if needed: enough for the memory estimate.

    Raises `UserError`, and `ConsentNeeded` if only the model's own code, not yet allowed to run, knows the layout.
    """
    table = untuned(table)
    folder = local_folder(table.id) or cached_folder(table) or _fetch_config(table)
    code = usable_code(table, folder)
    return spec(read_config(folder, code), code)


def usable_code(table: ModelTable, folder: Path) -> TrustedCode | None:
    """The model's own code if the user allowed it to run; None if transformers knows the layout without it.

    Raises `ConsentNeeded` if only the code knows the layout, and `UserError`.
    """
    code = permitted(table, folder)
    return code if code is not None or named_type(folder) in CONFIG_MAPPING else required(table, folder)


def licence_of(folder: Path) -> str:
    """Licence in the model card in ``folder`` or in the GGUF file, such as 'apache-2.0'; empty if there is none."""
    if folder.is_file():
        return read_gguf(folder).licence
    try:
        with (folder / "README.md").open(encoding="utf-8", errors="replace") as file:
            text = file.read(FRONT)
    except OSError:
        return ""
    front = re.match(r"---\s*\n(.*?)\n---", text, re.DOTALL)
    pairs = re.findall(r"^(license|license_name):\s*[\"']?([^\"'\n]+?)[\"']?\s*$", front[1], re.M) if front else []
    fields = dict(pairs)
    return fields.get("license_name") or fields.get("license") or ""


def _is_causal(folder: Path) -> bool:
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        remote = "AutoModelForCausalLM" in (config.get("auto_map") or {})
        return remote or config.get("model_type") in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
    except (OSError, ValueError, AttributeError, TypeError, RecursionError):
        return False


def _kind(id: str, folder: Path) -> str:
    if id in resources.BUNDLED_MODELS:
        return "bundled"
    if id.startswith(OLLAMA):
        return "ollama"
    return "file" if folder.is_file() else "folder"


def _title(id: str) -> str:
    name = Path(id).name.removeprefix(OLLAMA).removeprefix(RUN)
    return "Starter model" if id == "starter" else name.removesuffix(".gguf") or id


def _of_folder(table: ModelTable, folder: Path, kind: str) -> ModelSummary:
    facts: dict[str, Any] = {}
    try:
        facts["licence"], facts["code"] = licence_of(folder), folder.is_dir() and has_code(folder)
        code = usable_code(table, folder)
        config = read_config(folder, code)
        facts["architecture"] = (getattr(config, "architectures", None) or [config.model_type])[0]
        check_quantisation(folder, config)
        facts["parameters"] = spec(config, code).parameters
        facts["bytes"] = sum(path.stat().st_size for path in set(find_weights(folder).values()))
    except UserError as error:
        facts["problem"] = str(error)
    except Exception as error:  # libraries may raise anything for it; the other models are still listed
        facts["problem"] = f"{folder}: cannot be used as a model ({reason(error)}). Download or copy it again."
    return ModelSummary(table.id, _title(table.id), kind, **facts)


def _of_hub(table: ModelTable) -> ModelSummary:
    try:
        info = model_info(table)
    except HUB_ERRORS as error:
        raise hub_error(table, error) from error
    facts: dict[str, Any] = {"licence": licence_tag(info.tags), "gated": bool(info.gated)}
    files = [file for file in info.siblings or () if re.fullmatch(r"[^/]+\.safetensors", file.rfilename)]
    facts["bytes"] = sum(file.size or 0 for file in files)
    try:
        names = {file.rfilename for file in info.siblings or ()}
        if what := kinds.of_files(names, kinds.base_of_tags(info.tags)):
            raise UserError(f"'{table.id}' on the Hub {what}")
        folder = _fetch_config(table)
        facts["code"] = has_code(folder)
        code = usable_code(table, folder)
        config = read_config(folder, code)
        facts["architecture"] = (getattr(config, "architectures", None) or [config.model_type])[0]
        check_quantisation(f"'{table.id}' on the Hub", config)
        facts["parameters"] = spec(config, code).parameters
        if not files:
            facts["problem"] = f"'{table.id}' on the Hub has no safetensors weights. Choose a copy that has them."
    except UserError as error:
        facts["problem"] = str(error)
    return ModelSummary(table.id, _title(table.id), "hub", **facts)


def _fetch_config(table: ModelTable) -> Path:
    try:
        path = huggingface_hub.hf_hub_download(table.id, "config.json", revision=table.revision, token=token())
    except HUB_ERRORS as error:
        raise hub_error(table, error) from error
    return Path(path).parent


def licence_tag(tags: Iterable[str] | None) -> str:
    """The licence among the Hub's tags, such as 'apache-2.0'; empty if there is none."""
    return next((tag.removeprefix("license:") for tag in tags or () if tag.startswith("license:")), "")
