"""The model card: what was tuned, on which data, with which results, and how to reproduce it."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from urllib.parse import quote

from sparsezo_gui import recipe as recipes
from sparsezo_gui.engine.pretrained.source import ModelSource
from sparsezo_gui.plain import printable
from sparsezo_gui.recipe import Recipe
from sparsezo_gui.recipe.events import GeneralText
from sparsezo_gui.recipe.registry import SPACES

CODE = (
    "This model runs the Python code in its folder, with all permissions of the person who loads it. Read the code "
    "first; then load the model in `transformers` with `trust_remote_code=True`."
)


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
) -> str:
    """README.md of an exported model, in Markdown with the Hub's front matter.

    ``metrics`` has metrics for 'base' and 'tuned' on the test examples, or else on the validation examples; ``weights``
    is a sentence about the untuned weights, ``privacy`` one about the training examples; ``general`` is what tuning
    cost on general text.
    """
    here, recipe = recipe, recipes.portable(recipe)  # a path would reveal details of this computer
    local = recipe.model.id != here.model.id
    base, hub = recipe.model.id if local else source.id, "/" in source.id and bool(source.revision) and not local
    link = f"[{_words(base)}](https://huggingface.co/{quote(base)})"
    text = recipes.dump(recipe).strip()
    share = 100 * tuned / max(source.spec.eligible, 1)
    what = f"{tuned:,} {SPACES[recipe.mask.space].relation}"
    flag = " --trust-remote-code" if source.code else ""
    steps = recipe.estimator.title if recipe.estimator.backwards else "zeroth-order optimisation (forward passes only)"
    parts = [
        _front_matter(base if hub else "", licence),
        f"# {_words(recipe.run.name) or 'Tuned model'}",
        f"{link if hub else _code(base)} fine-tuned",
        f"with SparseZO: {what} its {source.spec.eligible:,} linear weights ({share:.3g} %), by {step:,} steps "
        f"of {steps}.",
        weights,
        _table(metrics),
        f"Perplexity on {general.tokens:,} tokens of general text: {general}.\n" if general else "",
        "## Base model\n",
        f"- Model: {_code(base)}" + (f", revision {_code(source.revision)}" if source.revision else ""),
        f"- Licence: {_words(licence) or 'not stated; see the base model'}. It applies to this model too.\n",
        "## Data\n",
        f"- Source: {_code(recipe.data.source)}, task `{recipe.data.task}`",
        f"- At most {recipe.data.train:,} training, {recipe.data.validation:,} validation and {recipe.data.test:,} "
        "test examples\n",
        f"## Privacy\n\n{privacy}\n" if privacy else "",
        f"## Code\n\n{CODE}\n" if source.code else "",
        "## Reproduce\n",
        f"Save this as `recipe.toml`, then run `sparsezo train recipe.toml{flag}`:\n",
        f"{_fence(text, 3)}toml\n{text}\n{_fence(text, 3)}",
    ]
    return "\n".join(part for part in parts if part) + "\n"


def _words(text: str) -> str:
    """Outside text with all Markdown characters escaped."""
    return re.sub(r"([\\`*_{}\[\]<>()#!|~&$])", r"\\\1", printable(text))


def _code(text: str) -> str:
    """Outside text as inline code."""
    text, fence = printable(text), _fence(text, 1)
    return f"{fence}{text}{fence}" if len(fence) == 1 else f"{fence} {text} {fence}"


def _fence(text: str, least: int) -> str:
    """More backticks than the text has in a row."""
    return "`" * max(least, 1 + max(map(len, re.findall("`+", text)), default=0))


def _front_matter(base: str, licence: str) -> str:
    # JSON strings are valid YAML, so no name can break the header.
    lines = ["---", "library_name: transformers", "pipeline_tag: text-generation", "tags: [sparsezo, zeroth-order]"]
    if base:
        lines.append(f"base_model: {json.dumps(base)}")
    if licence:
        lines.append(f"license: {json.dumps(licence)}")
    return "\n".join([*lines, "---\n"])


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
