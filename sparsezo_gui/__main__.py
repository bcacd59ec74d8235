"""``sparsezo-gui [RECIPE|RUN] [--autostart] [--exit-when-done]``: opens the window."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from sparsezo_gui import __version__, plain, start
from sparsezo_gui.engine.sandbox import child
from sparsezo_gui.errors import UserError


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="sparsezo-gui",
        description="Fine-tune language models on a laptop. Opens the window; use 'sparsezo' for the command line.",
        epilog="Exit codes with --exit-when-done: 0 the run finished, 1 it did not, 2 the recipe, its model or "
        "its data is invalid.",
    )
    parser.add_argument(
        "target",
        nargs="?",
        metavar="RECIPE|RUN",
        help="a recipe file, the name of a bundled recipe such as 'starter', or a run folder",
    )
    parser.add_argument("--autostart", action="store_true", help="start or resume as soon as the engine is loaded")
    parser.add_argument(
        "--exit-when-done", action="store_true", help="close when the run ends, and print metrics before and after"
    )
    parser.add_argument("--version", action="version", version=f"sparsezo-gui {__version__}")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the program; returns the exit code."""
    if sys.argv[1:] == [child.WORD]:
        return child.main()
    with plain.streams():
        return _main(arguments)


def _main(arguments: Sequence[str] | None) -> int:
    options = _parser().parse_args(arguments)
    recipe = run = path = None
    if options.target and _is_run(Path(options.target)):
        run = Path(options.target).resolve()
    elif options.target:
        # Report a wrong recipe before any window opens, so that scripts see it.
        from sparsezo_gui.recipe import load

        try:
            recipe = load(options.target)
        except UserError as error:
            print(error, file=sys.stderr)
            return 2
        path = Path(options.target).resolve() if Path(options.target).is_file() else None
    if sys.platform == "win32":
        # On Windows, torch 2.9 and later cannot load its libraries after Qt.
        import torch  # noqa: F401
    from sparsezo_gui.gui import app

    return app.run(app.Options(recipe, path, run, options.autostart, options.exit_when_done))


def _is_run(path: Path) -> bool:
    if not path.is_dir():
        return False
    from sparsezo_gui.engine.runs.preparing import is_start

    return (path / "run.json").exists() or is_start(path)


if __name__ == "__main__":
    sys.exit(start.window())
