"""Searches the Hub for models and data sets. Its answers are untrusted: checked, and bounded in number and length."""

from __future__ import annotations

import re
import tempfile
import time
from collections.abc import Callable, Iterable
from itertools import islice
from pathlib import Path
from typing import Any

import huggingface_hub
from huggingface_hub import constants
from huggingface_hub.utils import build_hf_headers, get_session, hf_raise_for_status
from transformers import CONFIG_MAPPING

from sparsezo_gui.answers import Found
from sparsezo_gui.engine.hub.library import licence_tag
from sparsezo_gui.engine.hub.refusals import HUB_ERRORS, refusal, search_refusal
from sparsezo_gui.engine.hub.token import token
from sparsezo_gui.engine.pretrained import kinds
from sparsezo_gui.engine.pretrained.source import check_quantisation, read_config
from sparsezo_gui.engine.pretrained.spec import ModelSpec, spec
from sparsezo_gui.engine.pretrained.weights import DTYPES
from sparsezo_gui.errors import UserError

LIMIT = 20  # results of a search
LONGEST = 60  # characters of a text from the Hub
LARGEST = 2**20  # bytes of a config.json
PATIENCE = 20.0  # seconds for one
_MODEL = ("config", "downloads", "gated", "safetensors", "tags")  # what to ask for
_DATA = ("downloads", "gated", "mainSize", "tags")


def search_hub(text: str, limit: int = LIMIT, datasets: bool = False) -> list[Found]:
    """Text-generation models, or data sets, on the Hub whose name contains ``text``, most downloaded first. Raises
    `UserError`."""
    api, make = huggingface_hub.HfApi(token=token() or False), _data_set if datasets else _model
    more: dict[str, Any] = {
        "search": text,
        "sort": "downloads",
        "limit": limit,
        "expand": _DATA if datasets else _MODEL,
    }
    huggingface_hub.logging.set_verbosity_error()
    try:
        found: Iterable[Any] = (
            api.list_datasets(**more) if datasets else api.list_models(**more, pipeline_tag="text-generation")
        )
        return [entry for info in islice(found, limit) if (entry := _checked(make, info))]
    except HUB_ERRORS as error:
        raise search_refusal(error) from error
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise UserError(f"{constants.ENDPOINT} answers a search with something unreadable. Try again later.") from error


def spec_from(config_json: bytes) -> ModelSpec:
    """Model spec from the content of a config.json alone. Raises `UserError`."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "config.json").write_bytes(config_json)
        try:
            config = read_config(Path(folder))
            check_quantisation("It", config)
            return spec(config)
        except UserError as error:
            place = rf"{re.escape(folder)}(/config\.json)?: "
            raise UserError(*(re.sub(place, "", sentence) for sentence in error.args)) from error


def read_config_json(id: str) -> bytes:
    """The config.json of a model on the Hub, which is not kept. Raises `UserError`."""
    url, end = huggingface_hub.hf_hub_url(id, "config.json"), time.monotonic() + PATIENCE
    content, timeout = bytearray(), constants.HF_HUB_DOWNLOAD_TIMEOUT
    try:
        with get_session().stream("GET", url, headers=build_hf_headers(token=token()), timeout=timeout) as response:
            hf_raise_for_status(response)
            for chunk in response.iter_bytes():
                content += chunk
                if len(content) > LARGEST or time.monotonic() > end:
                    raise UserError(f"The config.json of '{id}' is too large or takes too long.")
    except HUB_ERRORS as error:
        raise refusal("model", id, error, "choose another model", False) from error
    return bytes(content)


def _checked(make: Callable[[Any], Found], info: Any) -> Found | None:
    """The entry, if it has an id that may be shown and asked for."""
    try:
        made = make(info)
    except (AttributeError, KeyError, TypeError, ValueError):
        return None
    return made if re.fullmatch(r"[\w.-]{1,96}(/[\w.-]{1,96})?", made.id, re.ASCII) else None


def _data_set(info: Any) -> Found:
    rows = next((tag.removeprefix("size_categories:") for tag in info.tags or () if "size_categories:" in tag), "")
    for sign, word in (("<n<", " to "), ("n<", "under "), ("n>", "over ")):
        rows = rows.replace(sign, word)
    size = _count(getattr(info, "main_size", 0))
    return Found(info.id, rows=_short(rows), bytes=size, **_facts(info))


def _model(info: Any) -> Found:
    config = info.config or {}
    kind = config.get("model_type")
    numbers = {
        dtype: _count(count) for dtype, count in (info.safetensors.parameters if info.safetensors else {}).items()
    }
    size = sum(count * (DTYPES[dtype].itemsize if dtype in DTYPES else 1) for dtype, count in numbers.items())
    problem = "" if numbers else "It has no safetensors weights. Choose a copy that has them."
    problem = kinds.of_tags(info.tags) or _it(kinds.of_config(config)) or problem
    if kind and kind not in CONFIG_MAPPING:
        problem = f"transformers does not support its model type '{_short(kind)}'."
    return Found(info.id, sum(numbers.values()), bytes=size, **_facts(info), problem=problem)


def _facts(info: Any) -> dict[str, Any]:
    licence, downloads = _short(licence_tag(info.tags)), _count(getattr(info, "downloads", 0))
    return {"licence": licence, "downloads": downloads, "gated": bool(info.gated)}


def _short(text: object) -> str:
    text = str(text)
    return text if len(text) <= LONGEST else text[: LONGEST - 1] + "…"


def _count(number: object) -> int:
    return number if isinstance(number, int) and 0 < number < 2**60 else 0


def _it(what: str) -> str:
    return f"It {what}" if what else ""
