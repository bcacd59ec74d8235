"""Prompt templates: a small part of Jinja in a sandbox, with sentences for what is wrong in one.

A template comes with a recipe, and recipes are passed around: it reaches the values of the row and nothing else, and it
ends soon and in little memory. For that it is made of columns, ``if``, comparisons, sums, the filters `FILTERS` and the
methods of text `METHODS` alone. There is no loop, assignment, macro or include, and no ``*``, ``**``, ``%`` or ``~``;
what joins or replaces text may not make more than `LARGEST_PART` characters of it.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Sized
from typing import Any

from jinja2 import StrictUndefined, TemplateSyntaxError, meta, nodes
from jinja2.filters import FILTERS as JINJA_FILTERS
from jinja2.sandbox import ImmutableSandboxedEnvironment

from sparsezo_gui.errors import UserError

LARGEST_TEMPLATE, LARGEST_PART, LARGEST_TEXT = 20_000, 500_000, 16_000_000  # characters
METHODS = (
    "strip", "lstrip", "rstrip", "removeprefix", "removesuffix", "startswith", "endswith", "lower", "upper", "title",
    "capitalize", "split", "rsplit", "splitlines", "partition", "rpartition",
)  # fmt: skip
_NODES = (
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
    text = str(text)
    _check_size(text.count(old) * (len(new) - len(old)))
    return text.replace(old, new)


def join(values: Iterable[Any], separator: str = "") -> str:
    """The values as one text."""
    texts = [str(value) for value in values]
    _check_size(sum(map(len, texts)) + len(texts) * len(separator))
    return separator.join(texts)


def _check_size(size: int) -> None:
    if size > LARGEST_PART:
        raise ValueError(f"a filter or + makes more than {LARGEST_PART:,} characters")


_KEPT = (
    "capitalize", "default", "first", "float", "int", "last", "length", "lower", "string", "title", "trim", "truncate",
    "upper",
)  # fmt: skip
FILTERS = {name: JINJA_FILTERS[name] for name in _KEPT}
FILTERS |= {"capital": capital, "uncapital": uncapital, "replace": replace, "join": join}


class _Environment(ImmutableSandboxedEnvironment):
    intercepted_binops = frozenset("+")

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        _check_size(sum(len(side) for side in (left, right) if isinstance(side, Sized)))
        return left + right


@functools.cache
def _environment() -> _Environment:
    environment = _Environment(undefined=StrictUndefined, keep_trailing_newline=True)
    environment.filters = FILTERS
    environment.globals.clear()
    return environment


class Template:
    """A compiled template. ``names`` are the values it needs; those asked for by ``{% if name %}`` are ``optional``."""

    def __init__(self, text: str, where: str = "[data] template"):
        self.text, self.where = text, where
        if len(text) > LARGEST_TEMPLATE:
            raise UserError(f"{where}: longer than {LARGEST_TEMPLATE:,} characters. Put long texts into the data.")
        try:
            tree = _environment().parse(text)
            for node in tree.find_all(nodes.Node):
                _check_node(node)
            self._template = _environment().from_string(tree)
        except TemplateSyntaxError as error:
            raise UserError(
                f"{where}, line {error.lineno}: {error.message}. A column goes in as {{{{ column }}}}."
            ) from error
        except Exception as error:  # the compiler itself can fail on strange text, such as nesting without end
            raise UserError(f"{where}: cannot be understood ({type(error).__name__}: {error}).") from error
        tests = (node.test for node in tree.find_all((nodes.If, nodes.CondExpr)))
        self.optional = frozenset(test.name for test in tests if isinstance(test, nodes.Name))
        self.names = frozenset(meta.find_undeclared_variables(tree)) - self.optional

    def render(self, values: dict[str, Any], place: str) -> str:
        """The text for one row, which ``place`` names in errors."""
        pieces, size = [], 0
        try:
            for piece in self._template.generate(values):
                size += len(piece)
                if size > LARGEST_TEXT:
                    raise ValueError(f"its text is longer than {LARGEST_TEXT:,} characters; split it into more rows")
                pieces.append(piece)
        except Exception as error:  # whatever a user's template can do wrong: all of it is told the same way
            raise UserError(f"{self.where}: fails on {place}: {error}.") from error
        return "".join(pieces)


def _check_node(node: nodes.Node) -> None:
    """Raises an error, with the line, for what a template must not hold."""
    called = node.node if isinstance(node, nodes.Call) else None
    if not isinstance(node, _NODES):
        word = getattr(node, "operator", type(node).__name__.lower())
        reason = f"'{word}' is not possible in a prompt; columns, if, +, filters and methods of text are"
    elif called and not (isinstance(called, nodes.Getattr) and called.attr in METHODS):
        word = getattr(called, "attr", getattr(called, "name", "this"))
        reason = f"'{word}' cannot be called. Methods: {', '.join(METHODS)}; filters: {', '.join(sorted(FILTERS))}"
    else:
        return
    raise TemplateSyntaxError(reason, node.lineno)


class Literal:
    """Stands in for a `Template` where text must be taken as it is."""

    names = optional = frozenset()

    def __init__(self, text: str):
        self.text = text

    def render(self, values: dict[str, Any], place: str) -> str:
        """The text."""
        return self.text
