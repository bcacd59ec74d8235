"""What the window's thread and the worker's exchange: tickets to the worker, and messages about them back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sparsezo_gui.gui.calls import Request
from sparsezo_gui.gui.problems import Problem
from sparsezo_gui.recipe.events import Event


@dataclass(frozen=True, slots=True)
class Ticket:
    """A request with its number."""

    number: int
    request: Request[Any]


@dataclass(frozen=True, slots=True)
class Message:
    """Base of what the worker reports about a ticket: an `Emitted` event first, then one of the others."""

    ticket: Ticket


@dataclass(frozen=True, slots=True)
class Emitted(Message):
    """An event of work in progress."""

    event: Event


@dataclass(frozen=True, slots=True)
class Answered(Message):
    """The answer."""

    answer: Any


@dataclass(frozen=True, slots=True)
class Failed(Message):
    """Why there is no answer."""

    problem: Problem


@dataclass(frozen=True, slots=True)
class Cancelled(Message):
    """The work was cancelled, or the window is closing."""
