"""The only access to the files in ``resources/``."""

from __future__ import annotations

from pathlib import Path

from sparsezo_gui.errors import UserError, did_you_mean

_PACKAGE = Path(__file__).parent
# A wheel carries the folder inside the package; a checkout keeps it at the top, beside the package.
ROOT = _PACKAGE / "resources" if (_PACKAGE / "resources").is_dir() else _PACKAGE.parent / "resources"

BUNDLED_MODELS = {"starter": ROOT / "starter" / "model"}
BUNDLED_DATA = {"starter": ROOT / "starter" / "data"}
BUNDLED_TEXT = {"starter": ROOT / "starter" / "text.jsonl", "general": ROOT / "text" / "general.jsonl"}
CHECK_TEXT = ROOT / "text" / "check.jsonl"
"""General text that is reserved for checking a tuned model, and so is none of `BUNDLED_TEXT`, to find a mask on."""

RECOMMENDED = ROOT / "models.toml"
"""Small open models of the Hub to begin with."""

DOCS = ROOT / "docs"
"""The documentation, in Markdown: the help of the window, and the source of the site."""


def recipes() -> dict[str, Path]:
    """Bundled recipes by name."""
    return {path.stem: path for path in sorted((ROOT / "recipes").glob("*.toml"))}


def recipe(name: str) -> Path:
    """Path of a bundled recipe, or a `UserError` that names the nearest one."""
    found = recipes()
    if name not in found:
        raise UserError(f"There is no recipe file or bundled recipe '{name}'. {did_you_mean(name, found)}")
    return found[name]


def icon(name: str) -> Path:
    """Path of a bundled SVG icon."""
    return ROOT / "icons" / f"{name}.svg"
