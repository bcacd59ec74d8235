"""What of a recipe determines its run, and where another recipe differs."""

from __future__ import annotations

from typing import Any

from sparsezo_gui.recipe.paths import PATHS
from sparsezo_gui.recipe.recipe import Recipe
from sparsezo_gui.recipe.versions import migrated, renamed

# Keys that only say where things are stored on this computer; they may change at any time during a run.
PLACES: dict[str, Any] = {
    "model": {"id", "revision", "device", "trust_remote_code"},
    "data": {"source"},
    "mask": {"file"},
    "run": True,
}


def values(recipe: Recipe) -> dict[str, Any]:
    """What determines a run, as plain tables: all except `PLACES`, and only bundled names for the mask's texts."""
    tables = recipe.model_dump(mode="json", exclude=PLACES)
    for table, key, names in PATHS:
        if table == "mask" and key in tables[table]:
            value = tables[table][key]
            kept = [each if each in names else "" for each in ([value] if isinstance(value, str) else value)]
            tables[table][key] = kept[0] if isinstance(value, str) else kept
    return tables


def differences(kept: dict[str, Any], recipe: Recipe) -> list[tuple[str, Any, Any]]:
    """Where ``recipe`` differs from ``kept``, an earlier result of `values`: key, old and new value. Keys newer than
    ``kept`` are ignored. Raises `UserError`."""
    now = values(recipe)
    if kept == now:
        return []
    before = renamed(migrated(kept, "run.json: [recipe]"))
    return [
        (f"{table}.{key}", old, now[table].get(key))
        for table, content in before.items() if isinstance(content, dict) and table in now
        for key, old in content.items() if now[table].get(key) != old
    ]  # fmt: skip
