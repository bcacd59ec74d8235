"""Descriptions of all variants and settings, for ``sparsezo methods`` and for the documentation."""

from __future__ import annotations

import json
from typing import Any

from sparsezo_gui.recipe.presets import PRESETS
from sparsezo_gui.recipe.rates import times
from sparsezo_gui.recipe.recipe import Recipe
from sparsezo_gui.recipe.registry import BY_TABLE, MASKS, REGISTRIES, UPDATES, Registry
from sparsezo_gui.recipe.variants import Settings

INTRODUCTION = """# Methods

A method is a combination of rules, one for each table of the recipe. `sparsezo methods --markdown` prints this page;
`sparsezo methods --json` also lists each rule's settings. SparseZO refuses combinations that cannot work and says why.
"""


def rows() -> list[dict[str, Any]]:
    """Table, rule, title, first line of the docstring, source and settings of every variant."""
    return [
        {
            "table": registry.table, "rule": rule, "title": variant.title, "about": _about(registry, rule),
            "source": variant.paper,
            "keys": {key: field.description or "" for key, field in variant.model_fields.items() if key != "rule"},
        }
        for registry in REGISTRIES
        for rule in registry
        for variant in (registry[rule],)
    ]  # fmt: skip


def _about(registry: Registry[Any], rule: str) -> str:
    summary = str(registry[rule].summary())
    factor = MASKS[rule].rate_factor if registry is MASKS else 1.0
    if factor == 1:
        return summary
    with_sgd = times(MASKS[rule], UPDATES["sgd"])
    sgd = "the same" if with_sgd == 1 else f"{with_sgd:g} times"
    return f"{summary} Needs about {factor:g} times the learning rate of `sensitive`, with SGD {sgd}."


def markdown() -> str:
    """The documentation page."""
    parts = [INTRODUCTION, *_presets()]
    for registry in REGISTRIES:
        lines = [f"## [{registry.table}]", "", "| rule | what it does | source |", "| --- | --- | --- |"]
        for row in rows():
            if row["table"] == registry.table:
                default = " (default)" if row["rule"] == registry.default else ""
                lines.append(f"| `{row['rule']}`{default} | {row['about']} | {row['source'] or 'own'} |")
        parts.append("\n".join(lines) + "\n")
    return "\n".join((*parts, SETTINGS, *_references()))


def _presets() -> list[str]:
    """A table of the presets, and what each sets."""
    lines = ["## Presets", "", "The goals on the Method page. All find their learning rate.", ""]
    lines += ["| preset | goal | sets |", "| --- | --- | --- |"]
    for preset in PRESETS:
        rules = (f"`[{table}] {_own(table, values)}`" for table, values in preset.settings.items())
        lines.append(f"| {preset.title} | {preset.goal} | {', '.join(rules)} |")
    return ["\n".join(lines) + "\n"]


def _own(table: str, values: dict[str, Any]) -> str:
    """The rule of ``values``, and what is not its default."""
    kind: Any = BY_TABLE[table][values["rule"]] if table in BY_TABLE else Recipe.model_fields[table].annotation
    fields = kind.model_fields
    own = {key: value for key, value in values.items() if key == "rule" or fields[key].default != value}
    return ", ".join(f"{key} = {json.dumps(value)}" for key, value in own.items())


def _references() -> list[str]:
    """Every key of the recipe file, one Markdown table each for the recipe's tables and for the rules of a table."""
    found = []
    for name, field in Recipe.model_fields.items():
        kinds: list[Any] = [BY_TABLE[name][rule] for rule in BY_TABLE[name]] if name in BY_TABLE else [field.annotation]
        shared = _keys(kinds[0]).items() & set.intersection(*({*_keys(kind).items()} for kind in kinds))
        for kind in kinds:
            own = {key: line for key, line in _keys(kind).items() if len(kinds) == 1 or (key, line) not in shared}
            if own:
                rule = kind.model_fields["rule"].default if name in BY_TABLE else ""
                found.append(_reference(f"[{name}]" + (f" `{rule}`" if rule else ""), own))
        if name in BY_TABLE and (both := {key: line for key, line in _keys(kinds[0]).items() if (key, line) in shared}):
            found.append(_reference(f"[{name}], every rule", both))
    return found


def _reference(title: str, keys: dict[str, str]) -> str:
    head = ["| key | values | default | meaning |", "| --- | --- | --- | --- |"]
    return "\n".join([f"### {title}", "", *head, *keys.values()]) + "\n"


def _keys(kind: Any) -> dict[str, str]:
    """A row for each setting of a table."""
    if not (isinstance(kind, type) and issubclass(kind, Settings)):
        return {}
    properties = kind.model_json_schema()["properties"]
    return {
        key: f"| `{key}` | {_values(properties[key])} | {_default(properties[key])} | "
        f"{(field.description or '').replace('|', '&#124;')} |"
        for key, field in kind.model_fields.items() if key != "rule"
    }  # fmt: skip


def _values(schema: dict[str, Any]) -> str:
    """Type, bounds and unit, from pydantic's JSON schema."""
    if "anyOf" in schema:
        return " or ".join(_values(each) for each in schema["anyOf"])
    if "enum" in schema:
        return ", ".join(f"`{json.dumps(value)}`" for value in schema["enum"])
    if schema.get("type") == "array":
        return f"list of {_values(schema.get('items', {}))}"
    if schema.get("type") == "object":
        return f"table of {_values(schema.get('additionalProperties') or {})}"
    limits = [f"{sign} {schema[key]:,}" for key, sign in _LIMITS.items() if key in schema]
    words = [_TYPES.get(schema.get("type", ""), "any value"), ", ".join(limits), schema.get("unit", "")]
    return " ".join(word for word in words if word)


def _default(schema: dict[str, Any]) -> str:
    return f"`{json.dumps(schema['default'])}`" if schema.get("default") is not None else ""


_LIMITS = {
    "minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<", "minLength": "characters ≥",
    "maxLength": "characters ≤",
}  # fmt: skip
_TYPES = {"integer": "integer", "number": "number", "string": "text", "boolean": "`true`, `false`"}
SETTINGS = """## All settings

The recipe file is TOML (UTF-8). Every key is optional; an unknown key is an error. `rule` chooses the rule of
a table. Without a `learning_rate`, the one that suits mask, estimator and update is used.
"""
