"""Prompt templates of a recipe: the part of Jinja that they may use, and what renders one.

Both sides import it: the parent parses a template, and the confined process compiles and runs it.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable
from typing import Any

from jinja2 import StrictUndefined, Template, nodes
from jinja2.filters import FILTERS as JINJA_FILTERS
from jinja2.sandbox import ImmutableSandboxedEnvironment

LARGEST_TEXT = 16_000_000  # characters
METHODS = (
    "strip", "lstrip", "rstrip", "removeprefix", "removesuffix", "startswith", "endswith", "lower", "upper", "title",
    "capitalize", "split", "rsplit", "splitlines", "partition", "rpartition",
)  # fmt: skip
NODES = (
    nodes.Output, nodes.TemplateData, nodes.Const, nodes.Name, nodes.Getattr, nodes.Getitem, nodes.Slice, nodes.Tuple,
    nodes.List, nodes.If, nodes.CondExpr, nodes.Compare, nodes.Operand, nodes.And, nodes.Or, nodes.Not, nodes.Test,
    nodes.Filter, nodes.Keyword, nodes.Call, nodes.Add, nodes.Sub, nodes.Div, nodes.FloorDiv, nodes.Neg, nodes.Pos,
)  # fmt: skip


def capital(text: str) -> str:
    """First letter as a capital, the rest as it is."""
    return text[:1].upper() + text[1:]


def uncapital(text: str) -> str:
    """First word in small letters, for a sentence that goes on after 'because'; 'I' stays."""
    first, space, rest = text.partition(" ")
    return (first if first == "I" else first.lower()) + space + rest


def replace(text: Any, old: str, new: str) -> str:
    """``text`` with ``new`` wherever ``old`` stands."""
    return str(text).replace(old, new)


def join(values: Iterable[Any], separator: str = "") -> str:
    """The values as one text."""
    return separator.join(map(str, values))


_KEPT = (
    "capitalize", "default", "first", "float", "int", "last", "length", "lower", "string", "title", "trim", "truncate",
    "upper",
)  # fmt: skip
FILTERS = {name: JINJA_FILTERS[name] for name in _KEPT}
FILTERS |= {"capital": capital, "uncapital": uncapital, "replace": replace, "join": join}


@functools.cache
def environment() -> ImmutableSandboxedEnvironment:
    """The sandbox: filters and nothing else that is callable."""
    made = ImmutableSandboxedEnvironment(undefined=StrictUndefined, keep_trailing_newline=True)
    made.filters = FILTERS
    made.globals.clear()
    return made


@functools.lru_cache(maxsize=32)
def compiled(text: str) -> Template:
    """``text`` as a template, which was checked before."""
    return environment().from_string(text)


def render(text: str, values: dict[str, Any]) -> str:
    """The text for one row. Raises whatever a template can do wrong."""
    pieces, size = [], 0
    for piece in compiled(text).generate(values):
        size += len(piece)
        if size > LARGEST_TEXT:
            raise ValueError(f"its text is longer than {LARGEST_TEXT:,} characters; split it into more rows")
        pieces.append(piece)
    return "".join(pieces)
