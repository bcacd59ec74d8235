"""Prompt templates: a small subset of Jinja in a sandbox, with clear error messages.

A template comes with a recipe, and recipes are shared, so it reaches the values of the row and nothing else. It may
contain only columns, ``if``, comparisons, sums, the filters in `FILTERS` and the string methods in `METHODS`; no loop,
assignment, macro or include, and no ``*``, ``**``, ``%`` or ``~``. A user's template runs in a separate process (see
`sparsezo_gui.engine.sandbox`), with `SECONDS` and `MEMORY` for each row. Most rows do not need it: if no part of a
template can lengthen its input, the work is bounded by the lengths of template and row, and what is `SMALL` runs here.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Any

from jinja2 import TemplateSyntaxError, nodes

from sparsezo_gui.engine.data.record import Binary
from sparsezo_gui.engine.sandbox import faults, prompt
from sparsezo_gui.engine.sandbox.process import Exceeded, Refused, sandbox
from sparsezo_gui.engine.sandbox.prompt import FILTERS, METHODS, environment
from sparsezo_gui.errors import UserError
from sparsezo_gui.sizes import size

LARGEST_TEMPLATE = 20_000  # characters
SECONDS, MEMORY = 1.0, 64 << 20  # of processor time, and bytes, for one row
SMALL = 4_000_000  # characters of a template times those it reads: this takes a few milliseconds at most
_GROWING = (nodes.Add, nodes.Tuple, nodes.List)  # and filters that join or replace: their output can be long
# A name in the template syntax of other programs: {name}, {name!r}, {name:>5}, {row[name]}, ${name}, $name, %(name)s.
# Not after a letter or a backslash, where braces are LaTeX.
_OTHERS = re.compile(
    r"(?<![{\w\\])\$?\{\s*(?:row\[['\"]?([^{}\n'\"]{1,200})['\"]?\]|([^{}\n]{1,200}?))\s*(?:![rsa])?"
    r"(?::[^{}\s'\"]*)?\}(?!\})|%\(([^()\n]{1,200})\)[sdr]|(?<![\w$])\$(\w{1,200})"
)
_SHRINKING = FILTERS.keys() - {"join", "replace", "truncate"}


class Template:
    """A compiled template. ``names`` are the values it needs; those tested by ``{% if name %}`` are ``optional``. A
    template ``bundled`` with the program needs no separate process."""

    def __init__(self, text: str, where: str = "[data] template", bundled: bool = False):
        self.text, self.where, self.bundled = text, where, bundled
        if len(text) > LARGEST_TEMPLATE:
            raise UserError(f"{where}: longer than {LARGEST_TEMPLATE:,} characters. Move long texts into the data.")
        try:
            tree = environment().parse(text)
            for node in tree.find_all(nodes.Node):
                _check_node(node)
        except TemplateSyntaxError as error:
            raise UserError(
                f"{where}, line {error.lineno}: {faults.words(error.message)}. Write a column as {{{{ column }}}}."
            ) from error
        except Exception as error:  # the parser itself can fail, for example on deep nesting
            raise UserError(f"{where}: too deeply nested, or damaged. Use a simpler template.") from error
        self._shrinks = not any(tree.find_all(_GROWING)) and all(
            node.name in _SHRINKING for node in tree.find_all(nodes.Filter)
        )
        tests: list[nodes.Node] = [each.test for each in tree.find_all(nodes.If)]
        tests += [each.test for each in tree.find_all(nodes.CondExpr)]
        self.optional = frozenset(test.name for test in tests if isinstance(test, nodes.Name))
        # Nothing can be assigned. Jinja's own search would evaluate constant parts here, without limits.
        self.names = frozenset(name.name for name in tree.find_all(nodes.Name)) - self.optional
        self.used = self.names | self.optional
        self.written = frozenset(_named(piece) for each in tree.find_all(nodes.Output) for piece in each.nodes) - {""}
        self._words = "".join(node.data for node in tree.find_all(nodes.TemplateData))

    def mistaken(self, known: Collection[str]) -> dict[str, str]:
        """Columns written in the syntax of other programs, such as '{text}', with the ``known`` one that each names."""
        found = ((match[0], next(filter(None, match.groups()))) for match in _OTHERS.finditer(self._words))
        return {written: name for written, name in found if name in known}

    def check_uses(self, there: Collection[str], parts: Collection[str] = ()) -> None:
        """Raises `UserError` if the template uses none of the columns ``there`` or of a task's ``parts``, so that all
        rows would get the same text."""
        if self.used:
            return
        guess = "Write a column as {{ column }}."
        if mistaken := self.mistaken({*there, *parts}):
            written, name = next(iter(mistaken.items()))
            guess = f"'{written}' is plain text here. Did you mean '{{{{ {name} }}}}'?"
        raise UserError(
            f"{self.where}: it uses no column, so all rows would have the same prompt. {guess} "
            f"Columns: {', '.join(there)}."
        )

    def render(self, values: dict[str, Any], place: str) -> str:
        """The text for one row; ``place`` names the row in errors."""
        try:
            wanted = {name: values[name] for name in self.names | self.optional if name in values}
            if self.bundled or self._is_small(wanted):
                return prompt.render(self.text, wanted)
            return rendered("prompt", self.text, wanted, self.where, place)
        except UserError:
            raise
        except Exception as error:  # any error in a template is reported in the same form
            said = str(error) if isinstance(error, Refused) else faults.told(error)
            raise UserError(f"{self.where}: fails on {place}: {said}.") from error

    def _is_small(self, values: dict[str, Any]) -> bool:
        """Whether one row certainly stays far below the limits."""
        if not self._shrinks or not all(type(value) is str for value in values.values()):
            return False
        return len(self.text) * (len(self.text) + sum(map(len, values.values()))) < SMALL


def rendered(
    kind: str, text: str, values: dict[str, Any], where: str, place: str, *more: Any, times: int = 1
) -> str:  # fmt: skip
    """The result of the confined process's work ``kind`` for the template ``text`` with ``values``, within the limits
    of one row, with ``times`` its time. Raises `UserError`, or `Refused` with the template's own message."""
    seconds = SECONDS * times
    try:
        return sandbox.ask(kind, text, plain(values), *more, seconds=seconds, memory=MEMORY)
    except Exceeded as error:
        much = f"{seconds:.0f} second{'s' * (times > 1)}" if str(error) == "time" else f"{size(MEMORY)} of memory"
        raise UserError(
            f"{where}: takes more than {much} on {place}. Shorten the row or leave it out, or use a simpler template."
        ) from error


def plain(value: Any) -> Any:
    """``value`` in types that can be sent between processes; anything else, such as a date, as text."""
    if isinstance(value, dict):
        return {plain(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, Binary):
        raise UserError("the row has binary data, such as an image. Use text columns.")
    return value if type(value) in (str, int, float, bool, bytes, type(None)) else str(value)


def _named(node: nodes.Node) -> str:
    """The value that a piece of a template writes, possibly through text filters, or ''."""
    while isinstance(node, nodes.Filter) and node.name in prompt.OF_TEXT and node.node is not None:
        node = node.node
    return node.name if isinstance(node, nodes.Name) else ""


def _check_node(node: nodes.Node) -> None:
    """Raises an error, with the line, for what a template must not contain."""
    called = node.node if isinstance(node, nodes.Call) else None
    if isinstance(node, nodes.Filter) and node.name not in FILTERS:
        reason = f"there is no filter '{node.name}'. Filters: {', '.join(sorted(FILTERS))}"
    elif isinstance(node, nodes.Test) and node.name not in environment().tests:
        reason = f"there is no test '{node.name}'. Tests: {', '.join(sorted(environment().tests))}"
    elif not isinstance(node, prompt.NODES):
        word = getattr(node, "operator", type(node).__name__.lower())
        reason = f"'{word}' is not allowed in a prompt; only columns, if, +, filters and string methods are"
    elif called and not (isinstance(called, nodes.Getattr) and called.attr in METHODS):
        word = getattr(called, "attr", getattr(called, "name", "this"))
        reason = f"'{word}' cannot be called. Methods: {', '.join(METHODS)}; filters: {', '.join(sorted(FILTERS))}"
    else:
        return
    raise TemplateSyntaxError(reason, node.lineno)


class Literal:
    """Replaces a `Template` where text must be taken literally."""

    names = optional = used = written = frozenset[str]()

    def __init__(self, text: str):
        self.text = text

    def render(self, values: dict[str, Any], place: str) -> str:
        """The text."""
        return self.text
