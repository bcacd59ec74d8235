"""The pages, one file each, created when first needed."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sparsezo_gui.gui.widgets.basic import Page
    from sparsezo_gui.gui.workspace import Workspace

PAGES = {"model": "Model", "data": "Data", "method": "Method", "run": "Run", "runs": "Runs", "export": "Export"}


def make_page(name: str, workspace: Workspace) -> Page:
    """Creates the page of that name."""
    module = import_module(f"sparsezo_gui.gui.pages.{name}")
    page: Page = getattr(module, f"{PAGES[name]}Page")(workspace)
    return page
