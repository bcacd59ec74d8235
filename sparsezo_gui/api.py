"""SparseZO from Python: load a recipe, run it, and use the run.

    import sparsezo_gui as sz

    recipe = sz.load_recipe("starter", "loop.steps=100")
    for event in sz.train(recipe, "my-run"):
        print(event)
    run = sz.Run("my-run")
    print(run.evaluate(), run.generate("my parcel is late"))
    run.export("my-model", "hf")

All of it is also in `sparsezo_gui` itself, and importing that loads neither torch nor Qt: the engine is loaded when
something is first asked of a model. Events are those of `sparsezo_gui.recipe.events`. What is wrong with a recipe, a
run or a file is a `UserError`, a sentence.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sparsezo_gui import recipe as recipes
from sparsezo_gui.errors import UserError
from sparsezo_gui.recipe import Recipe, outcome
from sparsezo_gui.recipe.events import Event
from sparsezo_gui.work import finish

if TYPE_CHECKING:
    import numpy as np

    from sparsezo_gui.engine.data.prompts import EncodedPrompt
    from sparsezo_gui.engine.session import Session

__all__ = ["Event", "Recipe", "Run", "UserError", "load_recipe", "train"]


def load_recipe(recipe: str | Path | Mapping[str, Mapping[str, Any]], *settings: str) -> Recipe:
    """The recipe in a TOML file, or of a bundled name, or with the given tables such as ``{"model": {"id": …}}``.

    ``settings`` change it, as ``"loop.steps=100"``; relative paths in them start from the current folder. Raises
    `UserError`.
    """
    found = recipes.build(dict(recipe)) if isinstance(recipe, Mapping) else recipes.load(recipe)
    return recipes.with_settings(found, settings, Path.cwd()) if settings else found


def train(recipe: Recipe | str | Path, folder: str | Path | None = None) -> Iterator[Event]:
    """Starts a new run of ``recipe`` in ``folder`` (None: in your list of runs, as the event `Started` says), and
    yields its events; the run takes steps as they are asked for.

    Whenever you stop asking, nothing is lost: `Run.resume` goes on after the last step. Raises `UserError`.
    """
    from sparsezo_gui.engine import training

    chosen = recipe if isinstance(recipe, Recipe) else load_recipe(recipe)
    return training.train(chosen, folder=None if folder is None else Path(folder))


class Run:
    """A run in a folder, or of that name in the list of runs. Its model is loaded once, when first needed.

    ``step`` in its methods is a step number, "best" (on the validation examples), or None for the last step.
    """

    def __init__(self, folder: str | Path) -> None:
        """Raises `UserError` if there is no such run."""
        from sparsezo_gui.engine.runs.folder import open_run

        self._folder = open_run(folder)
        self._session: Session | None = None

    @property
    def path(self) -> Path:
        """Its folder."""
        return self._folder.path

    @property
    def recipe(self) -> Recipe:
        """Its recipe, with the learning rate that was found."""
        return self._folder.recipe

    def events(self) -> list[Event]:
        """Its recorded events, such as evaluations, up to now and without those before a rollback."""
        return outcome.on_lineage(self._folder.events())

    def steps(self) -> np.ndarray[Any, Any]:
        """All its steps as a structured array, with fields such as ``step``, ``loss``, ``rate`` and ``seconds``."""
        from sparsezo_gui.engine.runs.curves import steps_of

        return steps_of(self._folder)

    def resume(self) -> Iterator[Event]:
        """Goes on after the last step, and yields events as `train` does. Raises `UserError`."""
        from sparsezo_gui.engine import training

        self._session = None
        return training.resume(self.path)

    def evaluate(self, split: str = "test", step: int | str | None = None) -> dict[str, dict[str, float]]:
        """Metrics of ``split`` ('train', 'validation', 'test') by name, for 'base' and 'tuned'. Raises `UserError`."""
        from sparsezo_gui.engine.session.metrics import base_and_tuned

        return finish(base_and_tuned(self._at(step), self._folder, split))

    def generate(
        self, prompt: str, step: int | str | None = None, *, base: bool = False, raw: bool = False, tokens: int = 128
    ) -> str:
        """The answer to ``prompt`` in the run's template (``raw``: without one), of at most so many ``tokens``; the
        likeliest one if the task has a list of answers. ``base``: before tuning. Raises `UserError`."""
        from sparsezo_gui.engine.generate import continuation, rank_candidates

        session, asked, model = self._asked(prompt, step, base, raw)
        with model:
            if asked.choice:
                return rank_candidates(session.model, asked)[0][0]
            return "".join(continuation(session.model, asked, tokens))

    def probabilities(self, prompt: str, step: int | str | None = None, *, base: bool = False) -> dict[str, float]:
        """The probability of each answer of the task's list, likeliest first. Raises `UserError` if it has none."""
        from sparsezo_gui.engine.generate import rank_candidates

        session, asked, model = self._asked(prompt, step, base, False)
        if not asked.choice:
            raise UserError(f"The task '{self.recipe.data.task}' has no list of answers. Use generate.")
        with model:
            return dict(rank_candidates(session.model, asked))

    def export(
        self, out: str | Path, format: str | None = None, step: int | str | None = None, **options: str
    ) -> dict[str, Any]:
        """Writes ``out``, a file or folder, in a ``format`` of ``sparsezo export`` (None: what suits the run), with its
        options such as ``weights="trained"``. Returns facts, with sentences in ``told``. Raises `UserError`."""
        from sparsezo_gui.engine.export import export_run

        work = export_run(self.path, format, Path(out), self._number(step), accept=False, **options)
        return finish(work)

    def _number(self, step: int | str | None) -> int | None:
        from sparsezo_gui.engine.runs.lineage import step_of

        return step_of(self._folder, step)

    def _at(self, step: int | str | None) -> Session:
        from sparsezo_gui.engine.session.opening import open_session, restore

        number = self._number(step)
        if self._session is None:
            self._session = finish(open_session(self._folder, number))
        else:
            finish(restore(self._session, self._folder, number))
        return self._session

    def _asked(
        self, prompt: str, step: int | str | None, base: bool, raw: bool
    ) -> tuple[Session, EncodedPrompt, AbstractContextManager[None]]:
        from sparsezo_gui.engine.run_prompts import prompt_in_run

        session = self._at(step)
        asked, _ = finish(prompt_in_run(session, self._folder, prompt, raw))
        return session, asked, session.tuned.base() if base else session.tuned.applied()
