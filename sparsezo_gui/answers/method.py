"""Masks, and tried learning rates."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

CLEAR = 0.99  # times the base's loss, below which a learning rate has lowered it


@dataclass(frozen=True)
class Cost:
    """The cost of finding a mask: seconds, and the peak memory of the process in bytes."""

    seconds: float
    bytes: int


@dataclass(frozen=True)
class Tally:
    """The number of eligible ``weights`` under a label, and of ``tuned`` ones."""

    label: str
    tuned: int
    weights: int


@dataclass(frozen=True)
class MaskReport:
    """A mask in numbers. ``cost`` is that of finding it, without loading the model."""

    tuned: int
    eligible: int
    cost: Cost
    layers: tuple[Tally, ...]
    """One entry per decoder block, '0', '1', …, in the model's order."""
    kinds: tuple[Tally, ...]
    """One entry per kind of weight, such as 'q_proj' or 'down_proj': the last part of its module's name."""


@dataclass(frozen=True)
class Rung:
    """The result of ``rate``: the ``loss`` on the held-out examples, in nats; None if it was not worth measuring."""

    rate: float
    loss: float | None
    stable: bool


@dataclass(frozen=True)
class RateReport:
    """``rate`` is the one to use, None if no rate lowered the loss; ``base`` is the initial loss."""

    rungs: tuple[Rung, ...]
    base: float
    steps: int
    rate: float | None

    @property
    def best(self) -> Rung | None:
        """The rung with the lowest loss, of those that are stable and lower it."""
        lower = [rung for rung in self.rungs if rung.stable and rung.loss is not None and rung.loss < CLEAR * self.base]
        return min(lower, key=lambda rung: rung.loss or 0.0, default=None)

    @property
    def words(self) -> str:
        """The result in sentences."""
        low, high = self.rungs[0].rate, self.rungs[-1].rate
        tried = f"of the rates from {short_rate(low)} to {short_rate(high)}, each for {self.steps} steps,"
        unstable = next((rung.rate for rung in self.rungs if not rung.stable), None)
        end = f" From {short_rate(unstable)} on, the loss increased." if unstable else ""
        if self.best is None or self.rate is None:
            return f"None {tried} clearly lowered the loss of {self.base:.3g}.{end} More steps may show a difference."
        return (
            f"{short_rate(self.rate)} is a good rate: {tried} {short_rate(self.best.rate)} lowered the loss the most, "
            f"from {self.base:.3g} to {self.best.loss:.3g}, and a long run needs a third of that.{end}"
        )

    def as_json(self) -> dict[str, Any]:
        """Plain object."""
        return asdict(self)


def short_rate(rate: float) -> str:
    """A learning rate with two digits, such as 0.003 or 5e-7."""
    return f"{rate:.2g}".replace("e-0", "e-")
