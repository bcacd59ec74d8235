"""Recipes of earlier versions of the program, and what they mean in this one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from sparsezo_gui.errors import UserError, quoted

Tables = dict[str, Any]
VERSION: Final = 1
# From version N to N + 1; none yet.
MIGRATIONS: dict[int, Callable[[Tables], Tables]] = {}
# Old names of keys, by table: in files, settings and runs they mean the new ones.
ALIASES: dict[str, dict[str, str]] = {"run": {"frames": "checkpoints"}}
# Tables that got more keys: the table, all keys that the program used to write for it before, and what the later keys
# mean in a recipe from then.
BEFORE: list[tuple[str, set[str], dict[str, Any]]] = [
    ("model", {"id", "revision", "bits", "device"}, {"block": 64}),
    (
        "data",
        {"source", "task", "template", "columns", "answers", "train", "validation", "test", "max_tokens"},
        {"chat_template": False},
    ),
    (
        "mask",
        {"rule", "blocks", "density", "scope", "text", "sequences", "tokens", "directions", "examples"},
        {"refresh": 0},
    ),  # gradient-subspace
    ("estimator", {"rule", "epsilon", "blocks", "weight"}, {"balanced": False}),  # elastic
    ("estimator", {"rule", "epsilon", "short", "alpha"}, {"balanced": False}),  # addax
]


def migrated(tables: Tables, where: str) -> Tables:
    """The tables, migrated to the current version of the format. Raises `UserError`."""
    version = tables.get("version", VERSION)
    if not isinstance(version, int) or isinstance(version, bool) or not 1 <= version <= VERSION:
        raise UserError(
            f"{where}: unknown version {quoted(version)} (this program writes version {VERSION}). Update SparseZO."
        )
    for step in range(version, VERSION):
        tables = MIGRATIONS[step](tables)
    return {**tables, "version": VERSION}


def as_it_was(tables: Tables) -> Tables:
    """The tables; those from before a key existed get the value that it had in effect then, see `BEFORE`."""
    found = {}
    for name, written, added in BEFORE:
        table = tables.get(name)
        if isinstance(table, dict) and table.keys() >= written:
            found[name] = {**added, **table}
    return {**tables, **found}


def renamed(tables: Tables) -> Tables:
    """The tables with the new names of keys, see `ALIASES`; beside the new name, an old one is an unknown key."""
    found = {}
    for name, names in ALIASES.items():
        table = tables.get(name)
        if isinstance(table, dict):
            found[name] = {key if (new := names.get(key, key)) in table else new: table[key] for key in table}
    return {**tables, **found}
