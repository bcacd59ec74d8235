"""The pages, one file each, created when first needed."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from sparsezo_gui.gui.help import PLACE

if TYPE_CHECKING:
    from sparsezo_gui.gui.widgets.basic import Page
    from sparsezo_gui.gui.workspace import Workspace

PAGES = {"model": "Model", "data": "Data", "method": "Method", "run": "Run", "runs": "Runs", "export": "Export"}
_HELP = {
    "model": "reference/recipe.md#models", "data": "reference/recipe.md#tasks",
    "method": "reference/methods.md#presets", "run": "guides/runs.md", "runs": "guides/runs.md#look-back",
    "export": "guides/use.md",
}  # fmt: skip


def make_page(name: str, workspace: Workspace) -> Page:
    """Creates the page of that name."""
    module = import_module(f"sparsezo_gui.gui.pages.{name}")
    page: Page = getattr(module, f"{PAGES[name]}Page")(workspace)
    page.setProperty(PLACE, _HELP[name])
    return page
