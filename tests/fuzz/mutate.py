"""Damage to files: bits, bytes, lengths and cuts for every format, brackets, numbers and escapes for those of text."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any

INTEGERS = (0, 1, 127, 128, 255, 2**15, 2**16 - 1, 2**31 - 1, 2**31, 2**32 - 1, 2**62, 2**63 - 1, 2**63, 2**64 - 1)
BYTES = (b"\0", b"\xff", b"\xc3", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\xef\xbb\xbf", b"\xff\xfe", b"\r", b"\x1b[2J")
TOKENS = tuple(token.encode() for token in (
    *"[]{}()\"'\\,:;=#|.\t\n\r-+0", '""', "'''", '"""', "{{", "}}", "{%", "%}", "{#", "null", "true", "-1", "1e999",
    "NaN", "Infinity", "-0.0", "9" * 20, "9" * 5000, "0x" + "f" * 5000, "1" + "0" * 400, "\\ud800", "\\u0000", "\\x1b",
    "../../x", "/etc/passwd", "~nobody/x", "a" * 300, "__class__", " " * 1000, "\r\n", "\u202e", "é", "😀",
))  # fmt: skip
VALUES = (
    None, True, False, 0, 1, -1, 3, 2**31, 2**62, 2**63, 2**64, -(2**63), 10**400, 1.5, -0.0, 1e308, float("nan"),
    float("inf"), "", "a", "a" * 300, "../../x", "/etc/passwd", "\ud800", "\0", "a\nb", "\x1b[2J", "\u202e", "1" * 5000,
    [], {}, [[]], {"": {}}, [1, "a", None], {"a": 1}, [2**62] * 3, json.loads("[" * 400 + "]" * 400),
    json.loads('{"a":' * 800 + "1" + "}" * 800),
)  # fmt: skip
LONGEST = 200_000
DEEP = ("[", "{", "(", '{"a":', "[[", "a.", "- ", "{{", "not ", '"', ",", "\n")


def mutate(content: bytes, random: Random, others: Sequence[bytes] = (b"",), words: Sequence[bytes] = ()) -> bytes:
    """``content`` with one to four random changes; ``others`` are spliced in, ``words`` are tokens of the format."""
    damage = Damage(random, others, (*TOKENS, *words))
    for _ in range(random.choice((1, 1, 1, 2, 3, 4))):
        content = random.choice(CHANGES)(damage, content)[:LONGEST]
    return content


@dataclass(frozen=True)
class Damage:
    """Single changes: each method gives another content."""

    random: Random
    others: Sequence[bytes]
    tokens: Sequence[bytes]

    def flip(self, content: bytes) -> bytes:
        place = self.place(content)
        flipped = bytes(byte ^ 1 << self.random.randrange(8) for byte in content[place : place + 1])
        return put(content, place, place + 1, flipped)

    def set(self, content: bytes) -> bytes:
        place = self.place(content)
        return put(content, place, place + 1, self.random.choice((self.random.randbytes(1), *BYTES)))

    def integer(self, content: bytes) -> bytes:
        """An extreme number over what is there, as binary lengths and offsets are; often over the very first."""
        size = self.random.choice((1, 2, 4, 8))
        number = (self.random.choice(INTEGERS) + self.random.choice((-1, 0, 0, 1))) % 256**size
        place = self.random.choice((0, self.place(content)))
        return put(content, place, place + size, number.to_bytes(size, self.random.choice(("little", "big"))))

    def digits(self, content: bytes) -> bytes:
        """An extreme number in the place of a written one."""
        numbers = [match.span() for match in re.finditer(rb"\d+", content)]
        number = self.random.choice(INTEGERS) * self.random.choice((1, 1, -1))
        new = self.random.choice((str(number), "9" * 5000, "1e999", "1.5", "")).encode()
        return put(content, *self.random.choice(numbers), new) if numbers else content

    def truncate(self, content: bytes) -> bytes:
        return content[: self.place(content)]

    def delete(self, content: bytes) -> bytes:
        return put(content, *self.span(content), b"")

    def double(self, content: bytes) -> bytes:
        start, end = self.span(content)
        return put(content, start, end, content[start:end] * self.random.choice((2, 2, 3, 50)))

    def insert(self, content: bytes) -> bytes:
        place = self.place(content)
        new = (self.random.choice(self.tokens), self.random.randbytes(4), self.random.choice(BYTES))
        return put(content, place, place, self.random.choice(new))

    def replace(self, content: bytes) -> bytes:
        """A token in the place of another one that is there, such as a name or a sign."""
        old = self.random.choice([token for token in self.tokens if token in content] or [b"a"])
        place = content.find(old, self.place(content))
        return content if place < 0 else put(content, place, place + len(old), self.random.choice(self.tokens))

    def splice(self, content: bytes) -> bytes:
        other = self.random.choice(self.others)
        return content[: self.place(content)] + other[self.place(other) :]

    def deepen(self, content: bytes) -> bytes:
        place = self.place(content)
        return put(content, place, place, self.random.choice(DEEP).encode() * self.random.choice((2, 50, 500, 5000)))

    def lengthen(self, content: bytes) -> bytes:
        place = self.place(content)
        new = self.random.choice((b"a", b" ", b"a,", b"\n", self.random.choice(self.tokens)[:8]))
        return put(content, place, place, new * 20_000)

    def value(self, content: bytes) -> bytes:
        """Another value in JSON (in a line of it, where the whole is none), or another name."""
        start, end = 0, len(content)
        if b"\n" in content and not content.rstrip().endswith((b"\n}", b"\n]")):
            start = content.rfind(b"\n", 0, self.place(content)) + 1
            end = content.find(b"\n", start) if b"\n" in content[start:] else end
        try:
            root = [json.loads(content[start:end])]
            self.change(list(tables(root)))
            return put(content, start, end, json.dumps(root[0]).encode())
        except (ValueError, RecursionError):  # no JSON; or it now holds itself
            return content

    def change(self, found: list[Any]) -> None:
        """Changes one entry of one of these tables and lists."""
        table, other = self.random.choice(found), self.random.choice(found)
        key = self.random.choice(list(table) if isinstance(table, dict) else range(len(table)))
        word = self.random.choice(self.tokens).decode("utf-8", "surrogateescape")
        others = other.values() if isinstance(other, dict) else other
        if isinstance(table, dict) and self.random.random() < 0.3:
            table[word] = table.pop(key)
        else:
            table[key] = self.random.choice((*VALUES, *VALUES, word, other, *others))

    def place(self, content: bytes) -> int:
        return self.random.randint(0, len(content))

    def span(self, content: bytes) -> tuple[int, int]:
        """A random piece, mostly a short one."""
        start = self.place(content)
        return start, min(len(content), start + self.random.choice((0, 1, 1, 2, 4, 8, 16, self.place(content))))


def put(content: bytes, start: int, end: int, new: bytes) -> bytes:
    return content[:start] + new + content[end:]


def tables(tree: Any) -> Iterator[Any]:
    """All tables and lists that hold something, the outer ones first."""
    if isinstance(tree, dict | list) and tree:
        yield tree
        for inner in tree.values() if isinstance(tree, dict) else tree:
            yield from tables(inner)


CHANGES: tuple[Callable[[Damage, bytes], bytes], ...] = (
    Damage.flip, Damage.set, Damage.integer, Damage.digits, Damage.truncate, Damage.delete, Damage.double,
    *[Damage.insert, Damage.replace] * 2, Damage.splice, Damage.deepen, Damage.lengthen, *[Damage.value] * 5,
)  # fmt: skip
