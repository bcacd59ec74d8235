"""Tries a tokenizer's file where it can do no harm."""

from __future__ import annotations

import threading

STACK = 256 * 1024  # bytes; less than any thread of the program has, so that nesting that passes here passes there
_TRIED = ("".join(map(chr, range(32, 127))) * 4, "the cat sat on the mat " * 40, "ÄÖ ß … 日本語 😀\n\t" * 8)


def check(path: str) -> str:
    """Loads the file, tokenises some texts and decodes them again. Raises what the library raises."""
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
        for text in _TRIED:
            tokenizer.decode(tokenizer.encode(text).ids)
    except BaseException as error:  # a panic of the library is no Exception
        failed.append(error)
