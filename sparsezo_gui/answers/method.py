"""Masks, and tried learning rates."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Cost:
    """The cost of finding a mask: seconds, and the peak memory of the process in bytes; ``kept`` if it was found
    before, at this cost."""

    seconds: float
    bytes: int
    kept: bool = False


@dataclass(frozen=True)
class Tally:
    """The number of eligible ``weights`` under a label, and of ``tuned`` ones."""

    label: str
    tuned: int
    weights: int


@dataclass(frozen=True)
class Overlap:
    """How much of a mask is in another one of the same model, found by ``rule`` (its title) with the ``settings`` that
    differ: of its ``tuned`` weights, ``shared`` are in both. They are a ``share`` of the first mask; of a random one,
    it would be ``chance``."""

    rule: str
    settings: dict[str, Any]
    tuned: int
    shared: int
    share: float
    chance: float


@dataclass(frozen=True)
class MaskReport:
    """A mask in numbers. ``cost`` is that of finding it, without loading the model. ``overlaps`` are with the other
    masks of the model that the program keeps."""

    tuned: int
    eligible: int
    cost: Cost
    layers: tuple[Tally, ...]
    """One entry per decoder block, '0', '1', …, in the model's order."""
    kinds: tuple[Tally, ...]
    """One entry per kind of weight, such as 'q_proj' or 'down_proj': the last part of its module's name."""
    overlaps: tuple[Overlap, ...] = ()


@dataclass(frozen=True)
class Rung:
    """A short run at ``rate``: its training ``losses``, in nats, and the ``loss`` on the held-out examples after it,
    None if it is not finite or was not worth measuring."""

    rate: float
    loss: float | None
    stable: bool
    steps: int
    losses: tuple[float, ...]


@dataclass(frozen=True)
class RateReport:
    """``rate`` is the one to use, None if no rate lowers the loss. ``base`` is the initial loss on the held-out
    examples, ``steps`` the length of the longest short runs, whose ``rungs`` decide. It is ``lowered`` if more would
    cost too much on general text. All took so many forward ``passes`` of a batch."""

    rungs: tuple[Rung, ...]
    base: float
    steps: int
    rate: float | None
    lowered: bool = False
    passes: int = 0

    @property
    def last(self) -> tuple[Rung, ...]:
        """The longest short runs, by rate."""
        return tuple(rung for rung in self.rungs if rung.steps == self.steps)

    @property
    def best(self) -> Rung | None:
        """The rung with the lowest loss, of those that are stable."""
        stable = [rung for rung in self.last if rung.stable and rung.loss is not None]
        return min(stable, key=lambda rung: rung.loss or 0.0, default=None)

    @property
    def words(self) -> str:
        """The result in sentences."""
        low, high = short_rate(self.last[0].rate), short_rate(self.last[-1].rate)
        if self.best is None or self.rate is None:
            return f"No learning rate from {low} to {high} lowered the loss."
        lowered = " A higher one would make the model worse at other text." if self.lowered else ""
        return (
            f"Learning rate {short_rate(self.rate)}: of the rates from {low} to {high}, {short_rate(self.best.rate)} "
            f"was best for {self.steps} steps (loss {self.base:.3g} → {self.best.loss:.3g}); adjusted to the length of "
            f"the run, and towards the usual rate.{lowered}"
        )

    def as_json(self) -> dict[str, Any]:
        """Plain object."""
        return asdict(self)


def short_rate(rate: float) -> str:
    """A learning rate with two digits, such as 0.003 or 5e-7."""
    return f"{rate:.2g}".replace("e-0", "e-")
