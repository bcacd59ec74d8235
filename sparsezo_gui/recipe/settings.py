"""Single settings on the command line."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from sparsezo_gui.errors import UserError, did_you_mean
from sparsezo_gui.recipe import paths
from sparsezo_gui.recipe.recipe import Recipe
from sparsezo_gui.recipe.tables import changed


def with_settings(recipe: Recipe, settings: Iterable[str], folder: Path | None = None) -> Recipe:
    """Recipe with ``key=value`` settings applied, such as ``loop.steps=100``; values are TOML, or else plain strings.

    Relative paths in them start from ``folder`` (None: they stay as they are). See `changed` for a change of rules.
    """
    tables, values = recipe.model_dump(mode="json"), dict[str, dict[str, Any]]()
    for setting in settings:
        key, sign, value = setting.partition("=")
        table, dot, name = key.strip().partition(".")
        if not sign or not dot:
            raise UserError(f"--set {setting}: write it as table.key=value, such as loop.steps=100.")
        if not isinstance(tables.get(table), dict):
            tables_known = [name for name, content in tables.items() if isinstance(content, dict)]
            raise UserError(f"--set {setting}: unknown table '{table}'. {did_you_mean(table, tables_known)}")
        values.setdefault(table, {})[name] = _value(value.strip())
    if folder is not None:
        paths.resolve(values, folder, "--set")
    return changed(recipe, values, "--set")


def _value(text: str) -> Any:
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except (ValueError, RecursionError):
        return text
