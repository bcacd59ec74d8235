"""LoRA adapters on the linear layers."""

from __future__ import annotations

from collections.abc import Generator
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import field_validator

from sparsezo_gui.engine.masks.report import kind_of
from sparsezo_gui.engine.masks.rule import MaskRule, Search
from sparsezo_gui.errors import UserError, did_you_mean
from sparsezo_gui.recipe.events import Progress
from sparsezo_gui.recipe.variants import setting

if TYPE_CHECKING:
    from sparsezo_gui.engine.frozen import FrozenModel
    from sparsezo_gui.engine.pretrained.spec import ModelSpec
    from sparsezo_gui.engine.spaces.mask import Mask

EVERY = "all"


class Lora(MaskRule):
    """LoRA adapters beside frozen weights: W + (α/r)·B·A, where A (r × in) and B (out × r) are both tuned.

    LoRA (arXiv 2106.09685), on a base model that may stay quantised, as in QLoRA (arXiv 2305.14314). B starts at zero,
    A with normal values from the seed. Own choices: α = 2r, so that the factor is 2 at every rank; A has variance 1/r,
    so that A·x is as long as x, and ε and the rate mean about the same as for entries of W; no dropout; a rank is
    limited by a weight's smaller side. Zeroth-order estimators perturb A and B together; 'first-order' with 'adam' is
    the usual way to train them.
    """

    title: ClassVar[str] = "LoRA"
    paper: ClassVar[str] = "LoRA, arXiv 2106.09685"
    space: ClassVar[str] = "lora"
    rate_factor: ClassVar[float] = 0.25  # bundled model: adam learns fast at 1.2e-3, little at 5e-3; two-sided to 4e-3
    rule: Literal["lora"] = "lora"
    rank: int = setting(8, "Rank r of the adapter of each weight matrix.", ge=1, le=4096, basic=True, sane=(4, 64))
    targets: tuple[str, ...] = setting(
        (EVERY,), "Linear layers with an adapter: 'all', or kinds of them such as 'q_proj' and 'v_proj'."
    )

    @field_validator("targets", mode="before")
    @classmethod
    def _listed(cls, targets: Any) -> Any:
        return tuple(word.strip() for word in targets.split(",")) if isinstance(targets, str) else targets

    @field_validator("targets")
    @classmethod
    def _some(cls, targets: tuple[str, ...]) -> tuple[str, ...]:
        if not targets or not all(targets) or len(set(targets)) < len(targets) or (EVERY in targets and targets[1:]):
            raise ValueError("must be 'all', or different names of linear layers")
        return targets

    def ranks(self, spec: ModelSpec) -> dict[str, int]:
        """The rank of each weight with an adapter. Raises `UserError` for a target that the model does not have."""
        kinds = dict.fromkeys(map(kind_of, spec.linears))
        for target in self.targets:
            if target != EVERY and target not in kinds:
                raise UserError(f"[mask] targets: this model has no linear layer '{target}'. "
                                f"{did_you_mean(target, [*kinds, EVERY])}")  # fmt: skip
        return {
            name: min(self.rank, *shape)
            for name, shape in spec.linears.items()
            if EVERY in self.targets or kind_of(name) in self.targets
        }

    def tuned(self, spec: ModelSpec) -> int:
        """See `MaskRule.tuned`."""
        return sum(rank * sum(spec.linears[name]) for name, rank in self.ranks(spec).items())

    def source(self) -> str:
        """See `MaskRule.source`."""
        where = "every linear layer" if EVERY in self.targets else ", ".join(self.targets)
        return f"Adapters of rank {self.rank} on {where}, drawn from the seed."

    def cost(self) -> str:
        """See `MaskRule.cost`."""
        return "No search is needed."

    def find(self, model: FrozenModel, search: Search) -> Generator[Progress, None, Mask]:
        """See `MaskRule.find`."""
        from sparsezo_gui.engine.spaces.lora import Adapters

        yield Progress("Drawing the adapters")
        spec = model.spec
        found = Adapters(spec.linears, self.ranks(spec), search.seed)
        return self.mask_of(model, found.parts, self.tuned(spec))
