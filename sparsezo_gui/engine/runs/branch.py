"""A branch: a run that starts from a step of another one, with different settings."""

from __future__ import annotations

from collections.abc import Sequence

from sparsezo_gui.engine.drafts import drafting, new_folder, publish
from sparsezo_gui.engine.files import cannot_write
from sparsezo_gui.engine.runs.facts import Branched
from sparsezo_gui.engine.runs.folder import BRANCHES, RunFolder, create
from sparsezo_gui.engine.runs.lineage import Lineage, lineage_of
from sparsezo_gui.errors import UserError
from sparsezo_gui.recipe import Recipe, outcome, ways, with_settings

OWN = {"version", "name", "created", "versions", "branched"}  # facts that a branch does not share with its tree
OF_MODEL = ("tokenizer", "config")  # inputs that do not depend on the data


def branch(run: RunFolder, step: int | None, settings: Sequence[str] = (), name: str = "") -> RunFolder:
    """A new run that continues from ``step`` (None: the last) of ``run``, with ``key=value`` settings in its recipe.

    It is stored in the folder of the run that took the step; only the evaluations are copied. With settings of [data],
    it uses the current data, even if they name the same source. Raises `UserError`.
    """
    lineage = lineage_of(run).until(step)
    recipe = _recipe(run, lineage.step, settings, name)
    part = lineage.segments[-1]
    records = part.journal.count
    beginning = Branched(
        step=lineage.step, records=records, hash=part.journal.hash(records), factor=_factor(lineage, settings)
    )
    facts = {**run.facts.model_dump(exclude=OWN), "branched": beginning}
    same_data = recipe.data == run.recipe.data and not any(each.strip().startswith("data.") for each in settings)
    if not same_data:
        facts["data_hash"] = facts["examples"] = None  # recorded when the branch starts
        facts["inputs"] = {name: hash for name, hash in run.facts.inputs.items() if name in OF_MODEL}
    branches = part.run.path / BRANCHES
    try:
        with drafting(branches) as draft:
            made = create(draft, recipe, facts)
            for event in outcome.evaluations(outcome.on_lineage(run.events())) if same_data else ():
                if event.step <= lineage.step:
                    made.record(event)
            path = new_folder(branches, recipe.run.name)
            publish(draft, path)
    except OSError as error:
        raise cannot_write(branches, error) from error
    return RunFolder(path, made.facts)


def _recipe(run: RunFolder, step: int, settings: Sequence[str], name: str) -> Recipe:
    recipe = with_settings(run.recipe, settings)
    if recipe.mask != run.recipe.mask or _weights(recipe) != _weights(run.recipe):
        raise UserError(
            "[model] and [mask] cannot change in a branch, since the tuned values belong to them. Start a new run "
            "instead."
        )
    if recipe.estimator.rule == ways.AUTO:
        raise UserError(
            f"[estimator] rule = '{ways.AUTO}' chooses at the start of a new run. In a branch, set one of the others, "
            "such as 'first-order'."
        )
    if recipe.update.find_rate:
        raise UserError(
            "[update] find_rate = true finds a learning rate at the start of a new run. In a branch, set a "
            "learning_rate, or leave both out to keep that of the run."
        )
    if recipe.loop.steps <= step:
        raise UserError(
            f"A branch from step {step} needs more steps than [loop] steps = {recipe.loop.steps}. For example, set "
            f"loop.steps={step + recipe.loop.steps}."
        )
    called = (name or f"{run.name} from {step}")[:80]
    return recipe.model_copy(update={"run": recipe.run.model_copy(update={"name": called, "folder": ""})})


def _weights(recipe: Recipe) -> object:
    return recipe.model.model_copy(update={"device": "auto"})


def _factor(lineage: Lineage, settings: Sequence[str]) -> float:
    """A rate that the user changed during the run stays changed, unless the branch sets [update] itself."""
    return 1.0 if any(setting.strip().startswith("update.") for setting in settings) else lineage.factor
