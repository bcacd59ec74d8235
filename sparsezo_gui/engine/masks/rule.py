"""Base of mask rules, and of those that tune the weights with the highest scores."""

from __future__ import annotations

import re
import time
from abc import abstractmethod
from collections.abc import Callable, Generator, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Literal, TypeVar

from pydantic import field_validator

from sparsezo_gui.answers import Cost
from sparsezo_gui.recipe.events import Progress
from sparsezo_gui.recipe.variants import Variant, setting

if TYPE_CHECKING:
    from torch import Tensor

    from sparsezo_gui.engine.frozen import FrozenModel
    from sparsezo_gui.engine.masks.select import Selection
    from sparsezo_gui.engine.pretrained.spec import ModelSpec
    from sparsezo_gui.engine.spaces.mask import Mask
    from sparsezo_gui.recipe.recipe import DataTable

T = TypeVar("T")
Scope = Literal["global", "tensor", "row"]
USUAL, LARGEST = 0.001, 0.01  # densities, where none is set
ENOUGH = 32_768  # weights; fewer of the starter's learn less (tests/benchmarks/quality.md)
DENSITY = (
    "Fraction of the eligible weights to tune; 0.001 is 0.1 %. 0 means 0.1 %, and more in small models: "
    f"{ENOUGH:,} weights, but 1 % at most."
)
LARGE = 1 << 18  # scores of a layer after which freed memory is given back, which takes milliseconds
BLOCKS = "all|half|quarter|[1-9][0-9]{0,3}"


@dataclass(frozen=True)
class Search:
    """What a rule may use besides the model: the run's seed and data, and the id of the ``generator`` the run started
    with, None for a new run. ``known`` are the texts that were read for this search, if they are kept."""

    seed: int
    data: DataTable
    generator: str | None = None
    known: dict[Any, Any] | None = field(default=None, compare=False, repr=False)

    def once(self, text: Any, read: Callable[[], T]) -> T:
        """What ``read`` returns for ``text``, read once if texts are kept."""
        if self.known is None:
            return read()
        if text not in self.known:
            self.known[text] = read()
        found: T = self.known[text]
        return found


class MaskRule(Variant):
    """Base of mask rules: which of the frozen weights are tuned."""

    space: ClassVar[str] = "entries"
    """What the values are: the name of a space in `sparsezo_gui.recipe.registry`."""
    rate_factor: ClassVar[float] = 1.0
    """Factor on a learning rate in units of weights, relative to the sensitive mask, where the loss is steepest;
    changing the rule scales the rate by it (see `sparsezo_gui.recipe.rates`)."""
    blocks: str = setting(
        "all",
        "Decoder blocks with tuned weights: all, or the last half, quarter or number of them. What enters these is "
        "computed once per example, so that steps are faster.",
        pattern=f"^({BLOCKS})$",
    )
    sums: ClassVar[int] = 0
    """fp32 numbers per weight of a block, besides the weight, held while gradients are summed."""

    @field_validator("blocks", mode="before")
    @classmethod
    def _read_blocks(cls, value: Any) -> str:
        found = str(value) if type(value) is int else value
        if not isinstance(found, str) or not re.fullmatch(BLOCKS, found):
            raise ValueError("must be 'all', 'half', 'quarter' or a number of blocks")
        return found

    def tunable(self, spec: ModelSpec) -> ModelSpec:
        """``spec`` with the weights of `blocks` eligible."""
        shares = {"all": 1.0, "half": 1 / 2, "quarter": 1 / 4}
        count = max(1, int(shares[self.blocks] * spec.layers)) if self.blocks in shares else int(self.blocks)
        return spec if count >= spec.layers else spec.last(count)

    @property
    def count(self) -> int:
        """Number of subspaces that a run goes through."""
        return 1

    @property
    def names(self) -> tuple[str, ...]:
        """The texts used to find the mask: bundled ones, files, data sets, or the run's own examples."""
        return ()

    @property
    def reads_task(self) -> bool:
        """Whether the mask depends on the run's own examples."""
        return False

    def reads(self, model: FrozenModel, search: Search) -> tuple[Any, ...]:
        """All text and examples that the mask depends on, as tokens."""
        return ()

    def work(self, model: FrozenModel, search: Search, own: bool = False) -> int:
        """Tokens that go through the model to find the mask, a backward pass counted as two forward passes: all, or
        those of the run's ``own`` examples."""
        return 0

    @abstractmethod
    def tuned(self, spec: ModelSpec) -> int:
        """Number of tuned values in a model of ``spec``, for the memory estimate."""

    def bases(self, spec: ModelSpec) -> int:
        """Number of additional numbers held to locate them in the weights."""
        return 0

    @property
    def refreshed(self) -> int:
        """Most basis vectors that are found again from time to time during a run (see `due`); 0 if none are."""
        return 0

    def due(self, step: int) -> bool:
        """Whether the basis is found again right before ``step``."""
        return False

    def refresh_cost(self, steps: int, batch_size: int) -> int:
        """Cost of that in forward passes of a batch, for each of so many steps, rounded up."""
        return 0

    @abstractmethod
    def source(self) -> str:
        """Where the mask comes from, in one sentence."""

    @abstractmethod
    def cost(self) -> str:
        """The cost of finding it, in one sentence; empty if there is nothing to find."""

    @abstractmethod
    def find(self, model: FrozenModel, search: Search) -> Generator[Progress, None, Mask]:
        """Finds the mask of ``model``; yields progress and returns the mask. Closing the generator cancels."""

    def mask_of(self, model: FrozenModel, parts: Mapping[str, Tensor], tuned: int) -> Mask:
        """A mask that lists no entries: the ``parts`` of this rule's space, and the number of ``tuned`` values."""
        from sparsezo_gui.engine.spaces.mask import Mask

        rule = self.model_dump(mode="json")
        return Mask({}, rule, model.fingerprint, model.spec.eligible, self.space, parts, tuned)


def find_measured(rule: MaskRule, model: FrozenModel, search: Search) -> Generator[Progress, None, tuple[Mask, Cost]]:
    """`MaskRule.find`, with its cost."""
    from sparsezo_gui.engine.device import watched

    began = time.perf_counter()
    with watched(model.device) as peak:
        peak.start()
        mask = yield from rule.find(model, search)
    return mask, Cost(time.perf_counter() - began, peak.bytes)


def ranked(
    rule: MaskRule, model: FrozenModel, selection: Selection, scores: Iterator[Progress | tuple[str, Tensor]]
) -> Generator[Progress, None, Mask]:
    """The mask of what ``selection`` picks from ``scores``."""
    from sparsezo_gui.engine.device import trim
    from sparsezo_gui.engine.spaces.mask import Mask

    for item in scores:
        if isinstance(item, Progress):
            yield item
        else:
            selection.offer(*item)
            if item[1].numel() >= LARGE:
                trim()  # what was drawn, scores and candidates have many sizes
    return Mask(selection.result(), rule.model_dump(mode="json"), model.fingerprint, model.spec.eligible)


class DensityRule(MaskRule):
    """Base of rules that tune a ``density`` of the weights."""

    density: float = setting(USUAL, DENSITY, unit="fraction", ge=0, le=1, basic=True, sane=(1e-4, 1e-1))

    def share(self, spec: ModelSpec) -> float:
        """Fraction of the eligible weights of ``spec`` to tune."""
        return self.density or min(LARGEST, max(USUAL, ENOUGH / spec.eligible))


class ScoredRule(DensityRule):
    """A rule that tunes the weights with the highest scores, over the whole model, in each weight, or in its rows."""

    scope: Scope = setting(
        "global", "Rank all weights together (global), within each weight matrix (tensor), or within each row (row)."
    )

    def tuned(self, spec: ModelSpec) -> int:
        """See `MaskRule.tuned`."""
        from sparsezo_gui.engine.masks.select import size_of

        return size_of(self.share(spec), self.scope, spec.linears)

    @abstractmethod
    def scores(
        self, model: FrozenModel, search: Search, selection: Selection
    ) -> Iterator[Progress | tuple[str, Tensor]]:
        """Progress, and the name and scores (out, in) of every eligible weight, each once.

        All are offered to ``selection``; a rule that can be interrupted saves it, and restores it later.
        """

    def find(self, model: FrozenModel, search: Search) -> Generator[Progress, None, Mask]:
        """See `MaskRule.find`."""
        from sparsezo_gui.engine.masks.select import Selection

        selection = Selection(self.share(model.spec), self.scope, model.spec.linears)
        return (yield from ranked(self, model, selection, self.scores(model, search, selection)))
