"""What was measured to choose ε: differences of the loss, and how much of them is rounding noise."""

from __future__ import annotations

from dataclasses import dataclass

from sparsezo_gui.recipe.events import Event, Number

CLEAR = 5.0  # required difference / noise; estimates then correlate with exact projected gradients at 0.98


@dataclass(frozen=True)
class Noise:
    """Root mean squares in nats: of the differences L(θ+εz) − L(θ−εz), and of the rounding noise in one of them."""

    epsilon: float
    difference: Number
    rounding: Number

    @property
    def clear(self) -> bool:
        """Whether differences stand out from rounding noise."""
        return self.difference >= self.required

    @property
    def required(self) -> float:
        """The smallest difference that does."""
        return CLEAR * self.rounding


@dataclass(frozen=True, slots=True)
class NoiseProbed(Event):
    """The noise at each epsilon that was tried, from the ``wanted`` one up, and the ``epsilon`` that a run takes: the
    first with little of it, else the last."""

    wanted: float
    epsilon: float
    trials: list[Noise]

    @classmethod
    def of(cls, trials: list[Noise]) -> NoiseProbed:
        """Of ``trials`` by epsilon, the first of which is wanted."""
        chosen = next((each for each in trials if each.clear), trials[-1])
        return cls(trials[0].epsilon, chosen.epsilon, trials)

    @property
    def chosen(self) -> Noise:
        """The noise at ``epsilon``."""
        return next(each for each in self.trials if each.epsilon == self.epsilon)

    @property
    def words(self) -> str:
        """The result in sentences."""
        found, noise = self.chosen, f"rounding noise ({_short(self.chosen.rounding)})"
        difference = f"differences of the loss ({_short(found.difference)})"
        if not found.clear:
            return (
                f"Even at epsilon {found.epsilon:g}, {difference} are close to {noise}: the run may learn slowly. "
                "Compute in float32, or tune more weights."
            )
        times = found.difference / found.rounding if found.rounding else float("inf")
        why = f"{difference} are {f'{times:.0f} times' if times < 1000 else 'far above'} {noise}"
        if self.epsilon == self.wanted:
            return f"Epsilon {self.epsilon:g} is large enough: {why}."
        return f"Epsilon {self.wanted:g} is too small, so a run raises it to {self.epsilon:g}: there, {why}."


def _short(nats: float) -> str:
    return f"{nats:.1e}".replace("e-0", "e-")
