"""Descriptions of all variants, for ``sparsezo methods`` and for the documentation."""

from __future__ import annotations

from typing import Any

from sparsezo_gui.recipe.rates import times
from sparsezo_gui.recipe.registry import REGISTRIES, UPDATES
from sparsezo_gui.recipe.variants import Variant

INTRODUCTION = """# Methods

A method is a combination of rules, one for each table of the recipe. `sparsezo methods --markdown` prints this page;
`sparsezo methods --json` also lists each rule's settings. SparseZO refuses combinations that cannot work and says why.
"""


def rows() -> list[dict[str, Any]]:
    """Table, rule, title, first line of the docstring, source and settings of every variant."""
    return [
        {
            "table": registry.table, "rule": rule, "title": variant.title, "about": _about(variant),
            "source": variant.paper,
            "keys": {key: field.description or "" for key, field in variant.model_fields.items() if key != "rule"},
        }
        for registry in REGISTRIES
        for rule in registry
        for variant in (registry[rule],)
    ]  # fmt: skip


def _about(variant: type[Variant]) -> str:
    factor = getattr(variant, "rate_factor", 1.0)
    if factor == 1:
        return variant.summary()
    rates = f"{factor:g} times the rate of the sensitive ones, with SGD {times(variant, UPDATES['sgd']):g} times."
    return f"{variant.summary()} Takes about {rates}"


def markdown() -> str:
    """The documentation page."""
    parts = [INTRODUCTION]
    for registry in REGISTRIES:
        lines = [f"## [{registry.table}]", "", "| rule | what it does | source |", "| --- | --- | --- |"]
        for row in rows():
            if row["table"] == registry.table:
                usual = " (usual)" if row["rule"] == registry.default else ""
                lines.append(f"| `{row['rule']}`{usual} | {row['about']} | {row['source'] or 'own'} |")
        parts.append("\n".join(lines) + "\n")
    return "\n".join(parts)
