"""Prompt templates of a recipe: the subset of Jinja they may use, and how one is rendered.

Both sides import it: the parent parses a template, and the confined process compiles and runs it.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
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
    """Capitalises the first letter and leaves the rest unchanged."""
    return text[:1].upper() + text[1:]


def uncapital(text: str) -> str:
    """First word in lower case, to continue a sentence after 'because'; 'I' stays."""
    first, space, rest = text.partition(" ")
    return (first if first == "I" else first.lower()) + space + rest


def described(value: Any) -> str:
    """Describes a value that is not text ('a list of 3 items'), or ''; a model must not see Python's repr of it."""
    if isinstance(value, dict):
        return f"an object with {', '.join(map(repr, list(value)[:5])) or 'nothing in it'}"
    if isinstance(value, list | tuple | set):
        return f"a list of {len(value)} item{'s' * (len(value) != 1)}"
    return f"{len(value)} bytes" if isinstance(value, bytes | bytearray | memoryview) else ""


def plain(value: Any) -> Any:
    """What is written for ``value``: nothing for null. Raises `ValueError` for values that are not text or numbers."""
    if reason := described(value):
        raise ValueError(f"{reason} is not text: name the part to use, as {{{{ column.part }}}} or {{{{ column[0] }}}}")
    return "" if value is None else value


def _of_text(work: Callable[..., Any]) -> Callable[..., Any]:
    """The filter ``work``, for text only."""

    @functools.wraps(work)  # Jinja reads attributes it sets on a filter
    def safe(*arguments: Any, **options: Any) -> Any:
        return work(*(plain(each) if described(each) or each is None else each for each in arguments), **options)

    return safe


def replace(text: Any, old: str, new: str) -> str:
    """``text`` with every ``old`` replaced by ``new``."""
    return str(text).replace(old, new)


def join(values: Iterable[Any], separator: str = "") -> str:
    """The values joined to one text."""
    return separator.join(str(plain(value)) for value in values)


_KEPT = ("default", "first", "float", "int", "last", "length")
_OWN = {"capital": capital, "uncapital": uncapital, "replace": replace}
OF_TEXT = (*_OWN, "capitalize", "lower", "string", "title", "trim", "truncate", "upper")
FILTERS = {name: JINJA_FILTERS[name] for name in _KEPT} | {"join": join}
FILTERS |= {name: _of_text((JINJA_FILTERS | _OWN)[name]) for name in OF_TEXT}


@functools.cache
def environment() -> ImmutableSandboxedEnvironment:
    """The sandbox, in which only filters can be called."""
    made = ImmutableSandboxedEnvironment(undefined=StrictUndefined, keep_trailing_newline=True, finalize=plain)
    made.filters = FILTERS
    made.globals.clear()
    return made


@functools.lru_cache(maxsize=32)
def compiled(text: str) -> Template:
    """``text`` compiled; it was checked before."""
    return environment().from_string(text)


def render(text: str, values: dict[str, Any]) -> str:
    """The text for one row. Raises whatever the template raises."""
    pieces, size = [], 0
    for piece in compiled(text).generate(values):
        size += len(piece)
        if size > LARGEST_TEXT:
            raise ValueError(f"its text is longer than {LARGEST_TEXT:,} characters; split it into more rows")
        pieces.append(piece)
    return "".join(pieces)
