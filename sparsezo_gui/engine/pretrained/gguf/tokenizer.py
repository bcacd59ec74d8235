"""The tokenizer of a GGUF file, from its metadata, by transformers' own conversion."""

from __future__ import annotations

from functools import cache
from typing import Any

from tokenizers import Tokenizer, decoders, normalizers, pre_tokenizers
from transformers import PreTrainedTokenizerFast
from transformers.convert_slow_tokenizer import bytes_to_unicode
from transformers.integrations.gguf.gguf_tokenizer_mapping import (
    GGUF_PRE_TOKENIZER_SPLITS,
    GGUF_TOKENIZER_MAPPING,
    convert_gguf_tokenizer,
)

from sparsezo_gui.engine.pretrained.gguf.header import Header, Texts
from sparsezo_gui.errors import UserError, quoted
from sparsezo_gui.untrusted import outside

MOST_CHARACTERS = 4_000_000  # of tokens whose merges are derived, one candidate for each: Gemma 3's have 1.5 million
_SAME_AS = {"stablelm2": "qwen2", "llama4": "gpt-4o", "starcoder": "smollm", "refact": "smollm"}
"""How the text is split, in llama.cpp's words."""
_AS_GPT2 = ("", "default", "gpt-2", "smollm")
_COMPOSED = ("qwen2", "qwen35", "deepseek-r1-qwen")  # characters are composed first
_WHOLE = ("llama3", "llama-v3", "llama-bpe", "tekken")  # a word that is a token is not merged from its parts
_SPECIAL = {"bos": "bos_token", "eos": "eos_token", "unknown": "unk_token", "padding": "pad_token"}


def tokenizer_of(header: Header) -> PreTrainedTokenizerFast:
    """The tokenizer with its special tokens and chat template. Raises `UserError`."""
    with outside(header.path, "its tokenizer cannot be read"):
        table = _table(header)
        tokens = table.get("tokens") or []
        if len(set(tokens)) < len(tokens) or not tokens:
            raise ValueError("it has no tokens, or has one twice")
        if "merges" not in table and sum(map(len, tokens)) > MOST_CHARACTERS:
            raise ValueError(f"its tokens have more than {MOST_CHARACTERS:,} characters, and it has no merges")
        backend = _built(table, header.architecture)
        return PreTrainedTokenizerFast(tokenizer_object=backend, **_settings(header, table, tokens))


@cache
def splitter(split: str) -> Any:
    """What splits texts in a way that llama.cpp calls ``split``."""
    alphabet = sorted(bytes_to_unicode().values())
    table = {"tokenizer_type": "gpt2", "pre_tokenizer_type": split, "tokens": alphabet, "merges": []}
    return _built(table, "").pre_tokenizer


def _built(table: dict[str, Any], family: str) -> Tokenizer:
    backend: Tokenizer = convert_gguf_tokenizer(family, table)[0]
    _complete(backend, table, family)
    return backend


def _complete(backend: Tokenizer, table: dict[str, Any], family: str) -> None:
    """Sets what the conversion leaves out, as it is in the tokenizers that these files are made from."""
    split, pieces = table["pre_tokenizer_type"], table.get("tokenizer_type") == "llama"
    if split == "smollm":  # splits like GPT-2's, and digits from each other
        backend.pre_tokenizer = pre_tokenizers.Sequence(
            [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
        )
    if split in _COMPOSED:
        backend.normalizer = normalizers.NFC()
    if split in _WHOLE:
        backend.model.ignore_merges = True
    if pieces and not family.startswith("gemma") and table.get("add_prefix_space") is False:
        backend.pre_tokenizer, backend.normalizer = None, normalizers.Replace(" ", "▁")
        backend.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])


def _table(header: Header) -> dict[str, Any]:
    """What the conversion needs, by its names."""
    table: dict[str, Any] = {}
    for key, name in GGUF_TOKENIZER_MAPPING["tokenizer"].items():
        value = header.metadata.get(f"tokenizer.{key}")
        if isinstance(value, Texts):
            value = header.texts(f"tokenizer.{key}")
        if value is not None:
            table[name] = value.tolist() if hasattr(value, "tolist") else value
    split = table.get("pre_tokenizer_type", "")
    table["pre_tokenizer_type"] = split = _SAME_AS.get(split, split)
    if table.get("tokenizer_type") == "gpt2" and split not in (*_AS_GPT2, *GGUF_PRE_TOKENIZER_SPLITS):
        raise UserError(
            f"{header.path}: splits text in the way {quoted(split)}, which SparseZO does not know, so the model would "
            "get other tokens. Choose the original model in safetensors format."
        )
    return table


def _settings(header: Header, table: dict[str, Any], tokens: list[str]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, name in _SPECIAL.items():
        number = header.metadata.get(f"tokenizer.ggml.{key}_token_id")
        if type(number) is int and 0 <= number < len(tokens):
            found[name] = tokens[number]
    # As llama.cpp, which adds a first token with these tokenizers unless the file says otherwise.
    usual = table.get("tokenizer_type") == "llama" or table["pre_tokenizer_type"] in _WHOLE
    found["add_bos_token"] = bool(header.metadata.get("tokenizer.ggml.add_bos_token", usual)) and "bos_token" in found
    found["add_eos_token"] = bool(header.metadata.get("tokenizer.ggml.add_eos_token", False)) and "eos_token" in found
    return found | {"chat_template": header.text("tokenizer.chat_template") or None}
