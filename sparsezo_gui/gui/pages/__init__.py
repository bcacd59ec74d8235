"""The pages, one file each, created when first needed."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sparsezo_gui.gui.session import Session
    from sparsezo_gui.gui.widgets.basic import Page

PAGES = {"model": "Model", "data": "Data", "method": "Method", "run": "Run", "runs": "Runs", "export": "Export"}


def make_page(name: str, session: Session, go: Callable[[str], None]) -> Page:
    """Creates the page of that name; ``go`` shows another page."""
    module = import_module(f"sparsezo_gui.gui.pages.{name}")
    return getattr(module, f"{PAGES[name]}Page")(session, go)
