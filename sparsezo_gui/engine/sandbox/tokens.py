"""Tries a tokenizer file where it can do no harm."""

from __future__ import annotations

import base64
import json
import math
import threading
from typing import Any

STACK = 256 * 1024  # bytes; less than any thread of the program has, so nesting that passes here passes there
MOST_TIMES = 128  # factor by which a text may grow; Unicode expands a ligature to at most 18 characters
_TRIED = ("".join(map(chr, range(32, 127))) * 4, "the cat sat on the mat " * 40, "ÄÖ ß … 日本語 😀\n\t" * 8)


def check(path: str) -> str:
    """Loads the file, tokenises some texts and decodes them again. Also bounds how long other texts can become, since a
    step may react to a character that is in none of these. Raises what the library raises, or ValueError."""
    failed: list[BaseException] = []
    threading.stack_size(STACK)
    thread = threading.Thread(target=_try, args=(path, failed))
    thread.start()
    thread.join()
    if failed:
        raise failed[0]
    return ""


def _try(path: str, failed: list[BaseException]) -> None:
    from tokenizers import Tokenizer

    try:
        tokenizer = Tokenizer.from_file(path)
        for part in filter(None, (tokenizer.normalizer, tokenizer.decoder)):
            if (times := _times(json.loads(part.__getstate__()))) > MOST_TIMES:
                raise ValueError(f"it can make a text {times:.2g} times longer")
        for text in _TRIED:
            tokenizer.decode(tokenizer.encode(text).ids)
    except BaseException as error:  # a panic of the library is not an Exception
        failed.append(error)


def _times(step: dict[str, Any]) -> float:
    """The largest factor by which a step of a normalizer or decoder can lengthen a text."""
    if step["type"] == "Sequence":
        return math.prod(map(_times, step.get("normalizers") or step.get("decoders") or ()))
    if step["type"] == "Replace":
        content, literal = len(step["content"]), len(step["pattern"].get("String", ""))
        # A regular expression, or an empty pattern, can match between all characters.
        return max(1.0, content / literal if literal else 1.0 + content)
    if step["type"] == "Precompiled":
        table = base64.b64decode(step["precompiled_charsmap"])
        spelled = table[4 + int.from_bytes(table[:4], "little") :].split(b"\0")
        return max(1.0, *map(len, spelled))
    return 1.0
