"""Tunes a model, and shows what it learned."""

import sys

import sparsezo_gui as sz


def main(recipe: str, folder: str, *settings: str) -> None:
    """Runs ``recipe`` (a TOML file or 'starter') in ``folder``, with settings such as loop.steps=100."""
    for event in sz.train(sz.load_recipe(recipe, *settings), folder):
        facts = event.as_json()
        if facts["event"] == "step" and facts["step"] % 10 == 0:
            print(f"step {facts['step']}: loss {facts['loss']:.3f}")
    for model, metrics in sz.Run(folder).evaluate().items():
        print(model, {name: round(value, 3) for name, value in metrics.items()})


if __name__ == "__main__":
    main(*sys.argv[1:])
