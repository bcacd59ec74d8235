"""Imports what registries name by strings, on first use, so that listing the names imports nothing."""

from __future__ import annotations

from importlib import import_module
from typing import Any


def load(path: str) -> Any:
    """The object that ``module:name`` names."""
    module, name = path.split(":")
    return getattr(import_module(module), name)
