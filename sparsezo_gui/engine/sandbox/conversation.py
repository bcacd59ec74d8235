"""Chat templates as `transformers` renders them, for a process that must not import it (it would import torch).

A template sees and may call the same as in ``transformers.utils.chat_template_utils``; a test compares the two.
Documents are not supported.
"""

from __future__ import annotations

import functools
import json
import re
from datetime import datetime
from typing import Any

from jinja2 import Environment, Template, TemplateError, nodes
from jinja2.exceptions import SecurityError
from jinja2.ext import Extension, LoopControlExtension
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Namespace

from sparsezo_gui.engine.sandbox import ends, turns

_MARKED = re.compile(r"\{%-?\s*generation\s*-?%\}")


class _Generation(Extension):
    """``{% generation %}`` marks what the assistant writes and leaves the text unchanged. Inside `tracked`, positions
    are recorded as `transformers` does: in characters from the start of the text."""

    tags = {"generation"}

    def __init__(self, environment: Environment) -> None:
        super().__init__(environment)
        environment.extend(generation=self)
        self.written: list[str] | None = None
        self.spans: list[turns.Span] = []

    def parse(self, parser: Parser) -> nodes.Node:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.CallBlock(self.call_method("_written"), [], [], body).set_lineno(line)

    def _written(self, caller: Any) -> str:
        text = str(caller())
        if self.written is not None:
            start = sum(map(len, self.written))
            self.spans.append((start, start + len(text)))
        return text

    def tracked(self, template: Template, values: dict[str, Any]) -> tuple[str, list[turns.Span]]:
        """The text and its marked spans."""
        self.written, self.spans = [], []
        try:
            for piece in template.generate(values):
                self.written.append(piece)
            return "".join(self.written), self.spans
        finally:
            self.written = None


class _Namespace(Namespace):
    def __init__(*args: Any, **values: Any) -> None:
        self, args = args[0], args[1:]
        values = dict(*args, **values)
        for name in values:
            _check_name(name)
        Namespace.__init__(self, values)

    def __setitem__(self, name: str, value: Any) -> None:
        _check_name(name)
        Namespace.__setitem__(self, name, value)


class _Dict:
    def __call__(self, *args: Any, **values: Any) -> dict[Any, Any]:
        return dict(*args, **values)

    def fromkeys(self, *args: Any) -> dict[Any, Any]:
        return dict.fromkeys(*args)


def _check_name(name: object) -> None:
    if isinstance(name, str) and name.startswith("_"):
        raise SecurityError(f"a namespace cannot hold {name!r}")


def _tojson(
    value: Any, ensure_ascii: bool = False, indent: Any = None, separators: Any = None, sort_keys: bool = False
) -> str:
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def _raise(message: str) -> None:
    raise TemplateError(message)


@functools.lru_cache(maxsize=4)
def compiled(text: str) -> Template:
    """``text`` compiled."""
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, LoopControlExtension]
    )
    environment.filters["tojson"] = _tojson
    environment.globals |= {
        "raise_exception": _raise, "strftime_now": lambda form: datetime.now().strftime(form), "dict": _Dict(),
        "namespace": _Namespace,
    }  # fmt: skip
    return environment.from_string(text)


def ending(text: str, values: dict[str, Any], special: list[str]) -> str:
    """`ends.Ending` of the template as JSON."""
    found = ends.ending(_writer(text, values), special)
    return json.dumps({**vars(found), "openers": sorted(found.openers)})


def split(text: str, values: dict[str, Any], trained: list[int], ending: dict[str, Any], special: list[str]) -> str:
    """`turns.split` of the conversation ``values['messages']`` as JSON."""

    def generated(messages: list[ends.Message]) -> tuple[str, list[turns.Span]]:
        template = compiled(text)
        shared = {"tools": None, "documents": None, **values, "add_generation_prompt": False}
        generation: _Generation = getattr(template.environment, "generation")  # noqa: B009 (an extension's own)
        return generation.tracked(template, {**shared, "messages": _normal(messages)})

    found = turns.split(
        _writer(text, values), values["messages"], trained, ends.Ending(**ending), special,
        generated if _MARKED.search(text) else None, bool(values.get("tools")),
    )  # fmt: skip
    return json.dumps(found)


def _writer(text: str, values: dict[str, Any]) -> ends.Write:
    shared = {"tools": None, "documents": None, **values}

    def write(messages: list[ends.Message], prompt: bool, **more: Any) -> str:
        more |= {"messages": _normal(messages), "add_generation_prompt": prompt}
        return compiled(text).render({**shared, **more})

    return write


def _normal(messages: list[ends.Message]) -> list[ends.Message]:
    """Without null fields, and with the reasoning under each of its names."""
    found = []
    for message in messages:
        message = {key: value for key, value in message.items() if value is not None}
        if thought := next((message[key] for key in turns.THOUGHTS if key in message), None):
            message = {"thinking": thought, **message, "reasoning_content": thought}
        found.append(message)
    return found
