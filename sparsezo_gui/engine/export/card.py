"""The model card: what was tuned, on what, how well it does, and the command that does it again."""

from __future__ import annotations

import json
from collections.abc import Mapping

from sparsezo_gui import recipe as recipes
from sparsezo_gui.engine.models.source import ModelSource
from sparsezo_gui.recipe import Recipe


def model_card(
    source: ModelSource,
    recipe: Recipe,
    step: int,
    tuned: int,
    metrics: Mapping[str, Mapping[str, float]],
    licence: str = "",
    weights: str = "",
    privacy: str = "",
) -> str:
    """README.md of an exported model, in Markdown with the Hub's front matter.

    ``metrics`` holds metrics by 'base' and 'tuned', of the test examples or else of the validation examples;
    ``weights`` is a sentence on the untuned weights, ``privacy`` one on the training examples.
    """
    here, recipe = recipe, recipes.portable(recipe)  # a path would tell of the computer that it was made on
    local = recipe.model.id != here.model.id
    base, hub = recipe.model.id if local else source.id, "/" in source.id and bool(source.revision) and not local
    share = 100 * tuned / max(source.anatomy.eligible, 1)
    what = f"{tuned:,} {'values that move all' if recipe.mask.space == 'low-rank' else 'of'}"
    steps = recipe.estimator.title if recipe.estimator.backwards else "zeroth order (forward passes only)"
    parts = [
        _front_matter(base if hub else "", licence),
        f"# {recipe.run.name or 'Tuned model'}",
        f"[{base}](https://huggingface.co/{base}) tuned" if hub else f"`{base}` tuned",
        f"with SparseZO: {what} its {source.anatomy.eligible:,} linear weights ({share:.3g} %), by {step:,} steps "
        f"of {steps}.",
        weights,
        _table(metrics),
        "## Base model\n",
        f"- Model: `{base}`" + (f", revision `{source.revision}`" if source.revision else ""),
        f"- Licence: {licence or 'not stated; see the base model'}. It holds for this model too.\n",
        "## Data\n",
        f"- Source: `{recipe.data.source}`, task `{recipe.data.task}`",
        f"- At most {recipe.data.train:,} training, {recipe.data.validation:,} validation and {recipe.data.test:,} "
        "test examples\n",
        f"## Privacy\n\n{privacy}\n" if privacy else "",
        "## Do it again\n",
        "Save this as `recipe.toml`, then run `sparsezo train recipe.toml`:\n",
        f"```toml\n{recipes.dump(recipe).strip()}\n```",
    ]
    return "\n".join(part for part in parts if part) + "\n"


def _front_matter(base: str, licence: str) -> str:
    # JSON strings are YAML strings too, so nothing in a name can break the header.
    lines = ["---", "library_name: transformers", "pipeline_tag: text-generation", "tags: [sparsezo, zeroth-order]"]
    if base:
        lines.append(f"base_model: {json.dumps(base)}")
    if licence:
        lines.append(f"license: {json.dumps(licence)}")
    return "\n".join([*lines, "---\n"])


def _table(metrics: Mapping[str, Mapping[str, float]]) -> str:
    """Base against tuned; counts are told once, below."""
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
