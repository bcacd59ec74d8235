"""Reading and writing recipes as TOML, with a clear sentence for every possible error."""

from __future__ import annotations

import os
import tomllib
from pathlib import Path

import tomlkit

from sparsezo_gui import resources
from sparsezo_gui.errors import UserError
from sparsezo_gui.plain import quoted_plain
from sparsezo_gui.recipe import paths
from sparsezo_gui.recipe.recipe import Recipe
from sparsezo_gui.recipe.tables import build
from sparsezo_gui.recipe.versions import as_it_was, migrated
from sparsezo_gui.sizes import size

LARGEST_FILE = 200 << 10  # bytes; a recipe is about 1 KiB
MOST_DOTS = 1000  # in a line; time and memory to parse a dotted key grow with the square of its parts


def load(name: str | Path, automatic: bool = False) -> Recipe:
    """Recipe from a TOML file, or from the name of a bundled recipe. Relative paths in it start from its folder.

    If ``automatic``, a recipe that names no [estimator] rule gets 'auto'.
    """
    path = Path(name)
    if os.path.isdir(path):
        raise UserError(f"'{path}' is a folder; a recipe is a TOML file.")
    if not os.path.exists(path):
        if path.suffix or len(path.parts) > 1:
            raise UserError(
                f"There is no recipe file '{path}'. Check the path, or use a bundled recipe: "
                f"{', '.join(resources.recipes())}."
            )
        path = resources.recipe(str(name))
    if not os.path.isfile(path):  # reading from a pipe may never end
        raise UserError(f"'{path}' is not a file; a recipe is a TOML file.")
    try:
        if path.stat().st_size > LARGEST_FILE:
            raise UserError(f"{path}: larger than {size(LARGEST_FILE)}, so this is not a recipe.")
        text = path.read_text(encoding="utf-8-sig")  # some editors write a byte order mark
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not a text file in UTF-8 (byte {error.start}).") from error
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}).") from error
    recipe = loads(text, str(path), path.parent, automatic)
    if not recipe.run.name:
        recipe = recipe.model_copy(update={"run": recipe.run.model_copy(update={"name": path.stem})})
    return recipe


def loads(text: str, where: str = "recipe", folder: Path | None = None, automatic: bool = False) -> Recipe:
    """Recipe from TOML text; ``where`` names it in errors, relative paths start from ``folder``; see `load`."""
    if any(line.count(".") > MOST_DOTS for line in text.splitlines()):
        raise UserError(f"{where}: a line has more than {MOST_DOTS:,} dots, so this is not a recipe.")
    try:
        tables = tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{where}: not valid TOML: {error}.") from error
    tables = as_it_was(migrated(tables, where))
    if folder is not None:
        paths.resolve(tables, folder, where)
    if automatic and isinstance(own := tables.get("estimator", {}), dict):
        tables = {**tables, "estimator": {"rule": "auto", **own}}
    return build(tables, where)


def dump(recipe: Recipe) -> str:
    """Recipe as TOML text that `loads` reads back unchanged; every key is written, including defaults."""
    return quoted_plain(tomlkit.dumps(recipe.model_dump(mode="json")))
