"""Models in lists, and the code that comes with one."""

from __future__ import annotations

import builtins
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol


@dataclass(frozen=True)
class ModelSummary:
    """One model in a list. ``bytes`` are those of its weight files; 0 and '' stand for what is not known."""

    id: str
    title: str
    kind: str
    """'bundled', 'folder', 'file' (GGUF), 'cache', 'ollama', 'lmstudio', 'hub', 'run', 'adapter' or
    'overlay'."""
    architecture: str = ""
    parameters: int = 0
    bytes: int = 0
    licence: str = ""
    gated: bool = False
    problem: str = ""
    """Why it cannot be tuned here, in a sentence; empty when it can."""
    code: bool = False
    """Whether it comes with Python code of its own."""

    @property
    def family(self) -> str:
        """Such as 'Qwen3'."""
        return self.architecture.removesuffix("ForCausalLM").removesuffix("LMHeadModel")


@dataclass(frozen=True)
class Found:
    """A model or data set that a search of the Hub found; 0 and '' stand for what is not known."""

    id: str
    parameters: int = 0
    """Of a model."""
    rows: str = ""
    """Of a data set, roughly, such as '10K to 100K'."""
    bytes: int = 0
    licence: str = ""
    downloads: int = 0
    """In the last month."""
    gated: bool = False
    fit: str = ""
    """Whether tuning a model fits this computer: see `MemoryEstimate.verdict`."""
    problem: str = ""
    """Why a model cannot be tuned here, in a sentence."""
    config: builtins.bytes = field(default=b"", repr=False)
    """Content of a model's config.json, from which ``fit`` follows; empty if it was not read."""


@dataclass(frozen=True)
class Downloaded:
    """A model or data set of the Hub that is on this computer now: its commit, its folder, the ``bytes`` of its files,
    and how many of them were ``downloaded`` just now."""

    id: str
    revision: str
    path: str
    bytes: int
    downloaded: int


@dataclass(frozen=True)
class Pushed:
    """An export on the Hub: its ``address``, and the ``bytes`` of its files."""

    id: str
    address: str
    private: bool
    bytes: int


class ModelCode(Protocol):
    """The Python code that comes with a model: its ``files`` by name, relative to ``folder``."""

    @property
    def model(self) -> str: ...
    @property
    def folder(self) -> Path: ...
    @property
    def files(self) -> Mapping[str, bytes]: ...


@dataclass(frozen=True)
class Cache:
    """What the program keeps of earlier work: its size, and when it was ``used`` (seconds since 1970)."""

    name: str
    kind: str
    bytes: int
    used: float
    path: str
