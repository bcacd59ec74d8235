"""The current recipe, and every way in which the window changes it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from PySide6.QtCore import QSettings, Signal

from sparsezo_gui.errors import UserError
from sparsezo_gui.gui.calls import EngineCalls
from sparsezo_gui.gui.current import Current
from sparsezo_gui.gui.faults import Faults, differing
from sparsezo_gui.gui.following import following
from sparsezo_gui.gui.kept import texts
from sparsezo_gui.recipe import Recipe, load, loads
from sparsezo_gui.recipe.presets import METHOD, Preset
from sparsezo_gui.recipe.registry import ESTIMATORS, UPDATES
from sparsezo_gui.recipe.tables import changed
from sparsezo_gui.recipe.ways import AUTO

RECENT_RECIPES = 8


class Editing(Current):
    """A part of the workspace."""

    recipe_changed = Signal()

    def __init__(self, store: QSettings, engine: EngineCalls | None) -> None:
        super().__init__(engine)
        self.store = store
        self.recipe = _first_recipe(store)
        self.recipe_path: Path | None = None
        self.faults = Faults()
        self._bits: tuple[dict[str, Any], dict[str, Any]] = {}, {}  # as a preset needs them, and from before it

    def set_recipe(self, recipe: Recipe, path: Path | None = None) -> None:
        """Replaces the recipe."""
        self.recipe_path = path
        if path is not None:
            paths = [str(path), *(p for p in self.recent_recipes() if p != str(path))]
            self.store.setValue("recent_recipes", paths[:RECENT_RECIPES])
        self.faults.clear()
        self._bits = {}, {}
        self._changed(recipe)

    def recent_recipes(self) -> list[str]:
        """Paths of recent recipe files, newest first."""
        return texts(self.store, "recent_recipes")

    def change(self, table: str, **values: Any) -> str:
        """Changes settings of one table; returns a sentence about what is wrong with them, or an empty string."""
        return self.change_all({table: values})

    def change_all(self, tables: dict[str, dict[str, Any]]) -> str:
        """Like `change`, for several tables at once."""
        return self._take(lambda: changed(self.recipe, tables), tables)

    def use_preset(self, preset: Preset) -> str:
        """Sets the whole method, and takes back the bits that an earlier preset needed; returns what is wrong."""
        table = self.recipe.model.model_dump(include={"bits", "compute"})
        own = preset.settings.get("model")
        needed, usual = self._bits
        back = usual if table == needed and own is None else {}
        fault = self._take(lambda: preset.recipe(self.recipe, **back), dict.fromkeys(METHOD, ("rule",)))
        if not fault:
            self._bits = (own, usual if table == needed else table) if own else ({}, {})
        return fault

    def _take(self, make: Callable[[], Recipe], tables: Mapping[str, Iterable[str]]) -> str:
        """Uses the recipe that ``make`` returns, which sets ``tables``; returns what is wrong with it."""
        try:
            recipe = make()
        except UserError as error:
            return str(error).replace("recipe: ", "")
        self.faults.settle(tables)
        if recipe != self.recipe:
            self._changed(following(self.recipe, recipe, self.recipe_path.stem if self.recipe_path else ""))
        return ""

    def apply_text(self, text: str) -> None:
        """Sets the recipe from TOML text. Raises `UserError` with one sentence per mistake."""
        self.set_recipe(loads(text, "recipe"), self.recipe_path)

    @property
    def automatic(self) -> bool:
        """Whether the user wants recipes to choose their method automatically."""
        return bool(self.store.value("automatic", False, bool))

    def set_automatic(self, on: bool) -> None:
        """Saves what the user wants, and changes the recipe accordingly."""
        self.store.setValue("automatic", on)
        if on and self.recipe.estimator.rule != AUTO:
            update = {"update": {"rule": UPDATES.default}} if self.recipe.estimator.backwards else {}
            self.change_all({"estimator": {"rule": AUTO}, **update})
        elif not on and self.recipe.estimator.rule == AUTO:
            self.change("estimator", rule=ESTIMATORS.default)

    def _changed(self, recipe: Recipe) -> None:
        self.faults.settle(differing(self.recipe, recipe))
        self.recipe = recipe
        self.recipe_changed.emit()


def _first_recipe(store: QSettings) -> Recipe:
    """The last session's recipe, else the bundled one, else the defaults."""
    text = str(store.value("recipe", "", str))
    attempts: list[Callable[[], Recipe]] = [lambda: loads(text), lambda: load("starter")]
    for attempt in attempts if text else attempts[1:]:
        try:
            return attempt()
        except UserError:
            continue  # from another version of SparseZO, or not installed
    return Recipe.model_validate({})
