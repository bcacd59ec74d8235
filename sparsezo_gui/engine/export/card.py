"""The model card: what was tuned, on which data, with which results, and how to reproduce it."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from huggingface_hub import EvalResult, ModelCardData

from sparsezo_gui import recipe as recipes
from sparsezo_gui.engine.hub.library import licence_of
from sparsezo_gui.engine.hub.licences import HUB_LICENCES
from sparsezo_gui.engine.pretrained.source import ModelSource
from sparsezo_gui.engine.privacy.accounting import spent
from sparsezo_gui.engine.provenance import in_words
from sparsezo_gui.engine.runs.folder import RunFolder
from sparsezo_gui.engine.session import Session
from sparsezo_gui.formats import data_format
from sparsezo_gui.plain import printable
from sparsezo_gui.recipe import Recipe, outcome
from sparsezo_gui.recipe.events import GeneralText
from sparsezo_gui.recipe.registry import SPACES

CODE = (
    "This model runs the Python code in its folder, with all permissions of the person who loads it. Read the code "
    "first; then load the model in `transformers` with `trust_remote_code=True`."
)


@dataclass(frozen=True)
class Use:
    """How to use an export that needs its base model: the ``library`` that loads it, and Python ``code``."""

    library: str
    code: str


def card_of(
    session: Session, run: RunFolder, weights: str, use: Use | None = None, serve: Mapping[str, str] | None = None
) -> str:
    """The card of ``session``, a step of ``run``; see `model_card`."""
    source, step, events = session.model.source, session.step, outcome.on_lineage(run.events())
    if session.changed:
        weights += f" Different from the run: {in_words(session.changed)} changed since it started."
    return model_card(
        source, session.recipe, step, session.tuned.mask.size, _metrics(run, step), licence_of(source.folder), weights,
        _privacy(run), outcome.general_text(events, step), use, serve,
    )  # fmt: skip


def base_name(session: Session) -> str:
    """The pretrained model by its Hub id, or as a folder beside the reader."""
    return _portable(session.recipe, session.model.source)


def _portable(recipe: Recipe, source: ModelSource) -> str:
    model = recipe.model.model_copy(update={"id": source.pretrained})
    return recipes.portable(recipe.model_copy(update={"model": model})).model.id


def _privacy(run: RunFolder) -> str:
    """The privacy guarantee for the training examples, if there is one."""
    found = spent(run)
    if found is None:
        return ""
    return (
        f"Differential privacy of each training example: {found}, for {found.steps:,} steps with Poisson sampling and "
        "neighbouring data sets that differ by one example. The examples used to choose step and recipe are not "
        "covered."
    )


def _metrics(run: RunFolder, step: int) -> dict[str, dict[str, float]]:
    """Metrics of the base model and of ``step``, on the test examples if ``step`` was evaluated on them."""
    events = outcome.evaluations(outcome.on_lineage(run.events()))
    found = {(event.split, event.step): event.metrics for event in events}
    for split in ("test", "validation"):
        if (split, step) in found:
            return {"base": found.get((split, 0), {}), "tuned": found[split, step]}
    return {}


def model_card(
    source: ModelSource,
    recipe: Recipe,
    step: int,
    tuned: int,
    metrics: Mapping[str, Mapping[str, float]],
    licence: str = "",
    weights: str = "",
    privacy: str = "",
    general: GeneralText | None = None,
    use: Use | None = None,
    serve: Mapping[str, str] | None = None,
) -> str:
    """README.md of an exported model, in Markdown with the Hub's front matter.

    ``metrics`` has metrics for 'base' and 'tuned' on the test examples, or else on the validation examples; ``weights``
    is a sentence about the untuned weights, ``privacy`` one about the training examples; ``general`` is what tuning
    cost on general text. Without ``use`` it is a whole model; ``serve`` are commands by program.
    """
    here, recipe = recipe, recipes.portable(recipe)  # a path would reveal details of this computer
    base = _portable(here, source)
    hub = base == source.pretrained and "/" in base and bool(source.revision)
    earlier = ", then ".join(layer.what for layer in source.layers)
    link = f"[{_words(base)}](https://huggingface.co/{quote(base)})"
    text = recipes.dump(recipe).strip()
    share = 100 * tuned / max(source.spec.eligible, 1)
    what = f"{tuned:,} {SPACES[recipe.mask.space].relation}"
    flag = " --trust-remote-code" if source.code else ""
    parts = [
        _front_matter(recipe, base if hub else "", licence, use.library if use else "transformers", metrics),
        f"# {_words(recipe.run.name) or 'Tuned model'}",
        f"{link if hub else _code(base)} fine-tuned",
        f"with SparseZO: {what} its {source.spec.eligible:,} linear weights ({share:.3g} %), by {step:,} "
        f"{'step' if step == 1 else 'steps'} of {_method(recipe)}.",
        f"It started from {_words(earlier)}, on top of that model; the result contains both." if earlier else "",
        weights,
        _table(metrics),
        f"Perplexity on {general.tokens:,} tokens of general text: {general}.\n" if general else "",
        f"## Use\n\n{_block(use.code, 'python')}\n" if use else "",
        "## Serve\n" if serve else "",
        *(f"- {program}: {_code(command)}" for program, command in (serve or {}).items()),
        "\n" if serve else "",
        "## Base model\n",
        f"- Model: {_code(base)}" + (f", revision {_code(source.revision)}" if source.revision else ""),
        f"- Licence: {_words(licence) or 'not stated; see the base model'}. It applies to this model too.\n",
        "## Data\n",
        f"- Source: {_code(recipe.data.source)}, task `{recipe.data.task}`",
        f"- At most {recipe.data.train:,} training, {recipe.data.validation:,} validation and {recipe.data.test:,} "
        "test examples\n",
        f"## Privacy\n\n{privacy}\n" if privacy else "",
        f"## Code\n\n{CODE.replace('This', 'The base', 1) if use else CODE}\n" if source.code else "",
        "## Reproduce\n",
        f"Save this as `recipe.toml`, then run `sparsezo train recipe.toml{flag}`:\n",
        _block(text, "toml"),
    ]
    return "\n".join(part for part in parts if part) + "\n"


def _method(recipe: Recipe) -> str:
    """What the steps were, and what was back-propagated before them."""
    if recipe.estimator.backwards:
        return recipe.estimator.title
    before = ""
    if recipe.mask.rule == "gradient-subspace":
        again = f" and every {recipe.mask.refresh} steps" if recipe.mask.refreshed else ""  # type: ignore[attr-defined]
        before = f"; before them{again}, gradients of training examples were computed"
    elif recipe.mask.sums:
        before = "; before them, the mask was found by gradients"
    return f"zeroth-order optimisation (forward passes only{before})"


def _words(text: str) -> str:
    """Outside text with all Markdown characters escaped."""
    return re.sub(r"([\\`*_{}\[\]<>()#!|~&$])", r"\\\1", printable(text))


def _code(text: str) -> str:
    """Outside text as inline code."""
    text, fence = printable(text), _fence(text, 1)
    return f"{fence}{text}{fence}" if len(fence) == 1 else f"{fence} {text} {fence}"


def _block(text: str, language: str) -> str:
    """Outside text as a block of code."""
    return f"{_fence(text, 3)}{language}\n{text}\n{_fence(text, 3)}"


def _fence(text: str, least: int) -> str:
    """More backticks than the text has in a row."""
    return "`" * max(least, 1 + max(map(len, re.findall("`+", text)), default=0))


def _front_matter(
    recipe: Recipe, base: str, licence: str, library: str, metrics: Mapping[str, Mapping[str, float]]
) -> str:
    data = ModelCardData(
        library_name=library, pipeline_tag="text-generation", tags=["sparsezo", "zeroth-order"],
        base_model=base or None, datasets=_data_sets(recipe), model_name=recipe.run.name or "Tuned model",
        eval_results=_results(recipe, metrics.get("tuned", {})) or None, **_hub_licence(licence),
    )  # fmt: skip
    return f"---\n{data.to_yaml()}\n---\n"


def _data_sets(recipe: Recipe) -> list[str] | None:
    name = recipe.data.source.partition(":")[0]
    return [name] if re.fullmatch(r"[\w-][\w.-]*/[\w.-]+", name) and data_format(Path(name)) is None else None


def _results(recipe: Recipe, tuned: Mapping[str, float]) -> list[EvalResult]:
    """The metrics as the Hub lists them; the loss and the number of examples are none of its metrics."""
    name, _, configuration = recipe.data.source.partition(":")
    task: dict[str, Any] = {"task_type": "text-generation", "dataset_type": name, "dataset_name": name}
    return [
        EvalResult(**task, dataset_config=configuration or None, metric_type=metric, metric_value=round(value, 4))
        for metric, value in tuned.items() if metric not in ("examples", "loss") and math.isfinite(value)
    ]  # fmt: skip


def _hub_licence(licence: str) -> dict[str, Any]:
    """The licence in words that the Hub accepts."""
    if not licence or licence in HUB_LICENCES:
        return {"license": licence} if licence else {}
    return {"license": "other", "license_name": re.sub(r"[^a-z0-9.]+", "-", licence.lower()).strip("-")}


def _table(metrics: Mapping[str, Mapping[str, float]]) -> str:
    """Base and tuned metrics; the number of examples comes once, below."""
    base, tuned = metrics.get("base", {}), metrics.get("tuned", {})
    names = [name for name in tuned if name != "examples"]
    if not names:
        return ""
    rows = [f"| {name} | {_number(base.get(name))} | {_number(tuned[name])} |" for name in names]
    count = tuned.get("examples")
    lines = ["\n## Results\n", "| metric | base | tuned |", "|---|---|---|", *rows]
    return "\n".join([*lines, f"\nOn {count:,.0f} examples.\n" if count else ""])


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.4g}"
