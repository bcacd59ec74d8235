"""The tokenizer of a model as metadata of a GGUF file.

What of a tokenizer has no name in such a file, above all how it splits text, is found by trial: the first way in which
this program reads the same tokens from the file is written.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from sparsezo_gui.engine.pretrained.gguf.tokenizer import splitter
from sparsezo_gui.errors import UserError

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = 1, 2, 3, 4, 5, 6
SPLITS = ("qwen2", "llama-bpe", "gpt-2", "smollm", "tekken", "gpt-4o", "qwen35")
"""Ways to split text before byte pairs are merged, in the words of llama.cpp; each stands for all that do the same."""
SAMPLES = (
    "The quick brown fox can't jump over 12345 lazy dogs; they'LL sleep!",
    "  two spaces, a\ttab,\n\n  and   lines\r\n\r\nwith 3.14159 and x_1 += f(y)[0] // 2;",
    "naïve café — Übergröße, 你好，世界。 こんにちは 안녕하세요 Привет, мир! שלום नमस्ते",
    "e\u0301 n\u0303 \u00a0 \u200b ﬁ Å 🙂👩‍💻 don’t I'm WE'RE camelCaseWord HTTPServer 1/2 10,000.50",
    " leading and trailing ",
    "",
)
"""Texts that show how a tokenizer splits."""
Reader = Callable[[dict[str, Any]], Any]


def vocabulary(tokenizer: Any, rows: int, ends: Sequence[int], read: Reader) -> dict[str, Any]:
    """Metadata by key of ``tokenizer``, for a model with ``rows`` embeddings that stops at the tokens ``ends``.

    ``read`` makes the tokenizer that a file with some metadata has. Raises `UserError` for one that no file has.
    """
    table = _table(tokenizer)
    common = {**_tokens(table, rows), **_ends(tokenizer, ends), **_added(tokenizer)}
    expected = [tokenizer(text).input_ids for text in SAMPLES]
    for way in _ways(tokenizer, table, rows):
        found = {**way, **common}
        reader = read(found)
        if [reader(text).input_ids for text in SAMPLES] == expected:
            return found
    raise UserError(
        "The model's tokenizer splits text in a way that GGUF files have no name for, so other programs would get "
        "other tokens. Export the run with --format hf."
    )


def _table(tokenizer: Any) -> dict[str, Any]:
    """The content of tokenizer.json. Raises `UserError` for a tokenizer that merges no pairs."""
    backend: Any = getattr(tokenizer, "backend_tokenizer", None)
    table: dict[str, Any] = json.loads(backend.to_str()) if hasattr(backend, "to_str") else {"model": {}}
    if table["model"].get("type") != "BPE":
        raise UserError(
            "The model's tokenizer merges no byte pairs (BPE), so SparseZO cannot write it into a GGUF file. Export "
            "the run with --format hf."
        )
    return table


def _tokens(table: dict[str, Any], rows: int) -> dict[str, Any]:
    """The ``rows`` tokens of the model and their kinds; those without a text are unused."""
    vocabulary, bytewise = table["model"]["vocab"], not _in_bytes(table)
    texts, kinds = [f"[PAD{number}]" for number in range(rows)], np.full(rows, UNUSED, np.int32)
    for text, number in vocabulary.items():
        if number < rows:
            byte = bytewise and len(text) == 6 and text.startswith("<0x")
            texts[number], kinds[number] = text, BYTE if byte else NORMAL
    for added in table["added_tokens"]:
        if (number := added["id"]) < rows:
            kind = CONTROL if added["special"] else USER_DEFINED
            spaced = added["content"].replace("▁", " ") if bytewise and kind == USER_DEFINED else added["content"]
            texts[number], kinds[number] = spaced, kind
    unknown = table["model"].get("unk_token")
    if bytewise and vocabulary.get(unknown, rows) < rows:
        kinds[vocabulary[unknown]] = UNKNOWN
    if len(set(texts)) < rows:
        raise UserError("The model's tokenizer has a token twice, which GGUF files forbid. Export with --format hf.")
    return {"tokenizer.ggml.tokens": texts, "tokenizer.ggml.token_type": kinds}


def _in_bytes(table: dict[str, Any]) -> bool:
    """Whether tokens are written in GPT-2's alphabet of bytes, rather than as SentencePiece writes them."""
    return not table["model"].get("byte_fallback") and '"ByteLevel"' in json.dumps(table["pre_tokenizer"])


def _ways(tokenizer: Any, table: dict[str, Any], rows: int) -> Iterator[dict[str, Any]]:
    """What may describe the tokenizer, likelier things first."""
    merges = [tuple(merge.split(" ")) if isinstance(merge, str) else tuple(merge) for merge in table["model"]["merges"]]
    if _in_bytes(table):
        split = tokenizer.backend_tokenizer.pre_tokenizer
        for name in SPLITS:
            if all(split.pre_tokenize_str(text) == splitter(name).pre_tokenize_str(text) for text in SAMPLES):
                joined = [" ".join(merge) for merge in merges]
                yield {"tokenizer.ggml.model": "gpt2", "tokenizer.ggml.pre": name, "tokenizer.ggml.merges": joined}
        return
    for space in (False, True):
        yield {"tokenizer.ggml.model": "llama", "tokenizer.ggml.pre": "default",
               "tokenizer.ggml.scores": _scores(table, merges, rows),
               "tokenizer.ggml.add_space_prefix": space}  # fmt: skip


def _scores(table: dict[str, Any], merges: Sequence[tuple[str, ...]], rows: int) -> np.ndarray[Any, Any]:
    """SentencePiece merges what gives the token of the highest score: the sooner it is merged, the higher."""
    ranks: dict[str, int] = {}
    for rank, pair in enumerate(merges):
        ranks.setdefault("".join(pair), rank)
    found = np.full(rows, -len(merges), np.float32)
    for text, number in table["model"]["vocab"].items():
        if number < rows:
            found[number] = -ranks.get(text, len(merges))
    return found


def _ends(tokenizer: Any, ends: Sequence[int]) -> dict[str, Any]:
    """Special tokens. The tokens that end a text have three places; the tokenizer's own end is the first of them."""
    own = tokenizer.eos_token_id
    ordered = [*(end for end in ends if end == own), *(end for end in ends if end != own)] or [own]
    found = {"bos": tokenizer.bos_token_id, "unknown": tokenizer.unk_token_id, "padding": tokenizer.pad_token_id}
    found |= dict(zip(("eos", "eot", "eom"), ordered, strict=False))
    return {f"tokenizer.ggml.{name}_token_id": number for name, number in found.items() if number is not None}


def _added(tokenizer: Any) -> dict[str, Any]:
    """What is added before and after each text, and the chat template."""
    bare, whole = (tokenizer("a", add_special_tokens=special).input_ids for special in (False, True))
    found: dict[str, Any] = {
        "tokenizer.ggml.add_bos_token": whole[:1] != bare[:1],
        "tokenizer.ggml.add_eos_token": whole[-1:] != bare[-1:],
    }
    template = tokenizer.chat_template
    if isinstance(template, dict):
        template = template.get("default") or next(iter(template.values()), None)
    return found | ({"tokenizer.chat_template": template} if template else {})
