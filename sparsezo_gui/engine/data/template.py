"""Prompt templates: Jinja in a sandbox, with sentences for what is wrong in one.

A template comes with a recipe, and recipes are passed around: it reaches the values of the row and nothing else.
"""

from __future__ import annotations

import functools
from typing import Any

from jinja2 import StrictUndefined, TemplateSyntaxError, meta, nodes
from jinja2.sandbox import ImmutableSandboxedEnvironment

from sparsezo_gui.errors import UserError


def capital(text: str) -> str:
    """First letter as a capital, the rest as it is."""
    return text[:1].upper() + text[1:]


def uncapital(text: str) -> str:
    """First word in small letters, for a sentence that goes on after 'because'; 'I' stays."""
    first, space, rest = text.partition(" ")
    return (first if first == "I" else first.lower()) + space + rest


@functools.cache
def _environment() -> ImmutableSandboxedEnvironment:
    environment = ImmutableSandboxedEnvironment(undefined=StrictUndefined, keep_trailing_newline=True)
    environment.filters.update(capital=capital, uncapital=uncapital)
    environment.globals.clear()
    return environment


class Template:
    """A compiled template. ``names`` are the values it needs; those asked for by ``{% if name %}`` are ``optional``."""

    def __init__(self, text: str, where: str = "[data] template"):
        self.text, self.where = text, where
        try:
            tree = _environment().parse(text)
            self._template = _environment().from_string(text)
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
        try:
            return self._template.render(values)
        except Exception as error:  # whatever a user's template can do wrong: all of it is told the same way
            raise UserError(f"{self.where}: fails on {place}: {error}.") from error


class Literal:
    """Stands in for a `Template` where text must be taken as it is."""

    names = optional = frozenset()

    def __init__(self, text: str):
        self.text = text

    def render(self, values: dict[str, Any], place: str) -> str:
        """The text."""
        return self.text
