"""Asks a run before and after tuning, and exports it as a Hugging Face folder."""

import sys

import sparsezo_gui as sz


def main(folder: str, prompt: str, out: str) -> None:
    """Asks the run in ``folder`` the ``prompt``, and writes its last step to ``out``."""
    run = sz.Run(folder)
    losses = run.steps()["loss"]
    print(f"{len(losses)} steps, loss {losses[0]:.3f} to {losses[-1]:.3f}")
    print("before:", run.generate(prompt, base=True))
    print("after:", run.generate(prompt))
    for sentence in run.export(out, "hf")["told"]:
        print(sentence)


if __name__ == "__main__":
    main(*sys.argv[1:])
