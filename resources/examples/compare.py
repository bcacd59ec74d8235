"""Compares learning rates: a run for each, with the same seed, and the best on the validation examples."""

import sys
from pathlib import Path

import sparsezo_gui as sz


def main(recipe: str, folder: str, *settings: str, rates: tuple[float, ...] = (0.0003, 0.001, 0.003)) -> float:
    """Runs ``recipe`` in folders inside ``folder``, and returns the learning rate with the lowest loss."""
    losses = {}
    for rate in rates:
        run = Path(folder, f"rate-{rate}")
        for _ in sz.train(sz.load_recipe(recipe, *settings, f"update.learning_rate={rate}"), run):
            pass
        losses[rate] = sz.Run(run).evaluate("validation")["tuned"]["loss"]
        print(f"{rate}: {losses[rate]:.4f}")
    return min(losses, key=lambda rate: losses[rate])


if __name__ == "__main__":
    print("best:", main(*sys.argv[1:]))
