"""Core sets: a few examples that represent many."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar, Literal

from sparsezo_gui.engine.selection import Chosen, Selection
from sparsezo_gui.recipe.variants import setting

if TYPE_CHECKING:
    import numpy as np

    from sparsezo_gui.engine.data.encode import Encoded
    from sparsezo_gui.engine.session import Session


class CoreSet(Selection):
    """Picks each batch from a larger pool so that it represents every example of the pool.

    CoLM (arXiv 2407.19580) uses zeroth-order gradients of one projection as features and selects by greedy facility
    location: it maximises Σᵢ maxₛ (D − |fᵢ − fₛ|₁) over the batch, within 1 − 1/e of the optimum. Own choices: features
    are the projected gradients of each example along several random directions, since a single direction distinguishes
    examples by only one number; their l1 distances grow with those of the gradients. Selected examples have equal
    weight, not that of the examples they represent (small clusters should gain); there is no gradient history and no
    split by source. Compare it with 'shuffled' at equal forward passes.
    """

    title: ClassVar[str] = "Core set"
    paper: ClassVar[str] = "CoLM, arXiv 2407.19580"
    rule: Literal["coreset"] = "coreset"
    forward_passes: ClassVar[int] = 2
    pool: int = setting(2, "Size of the pool, in batches.", unit="batches", ge=2, le=64, sane=(2, 4), title="Pool size")
    features: int = setting(
        4, "Projected gradients per example used as features. A step takes 1 + features × pool times as long.",
        ge=1, le=256, sane=(4, 16),
    )  # fmt: skip

    def candidates(self, batch_size: int) -> int:
        """See `Selection.candidates`."""
        return self.pool * batch_size

    @property
    def cost(self) -> int:
        """Two per feature, on the whole pool."""
        return 2 * self.features * self.pool

    def choose(self, session: Session, examples: Sequence[Encoded]) -> Chosen:
        """See `Selection.choose`. Ties go to the example that comes first in the data order."""
        import numpy as np
        import torch

        from sparsezo_gui.engine.objective import count_tokens
        from sparsezo_gui.engine.zo.batches import batch_indices
        from sparsezo_gui.engine.zo.generator import Stream, normal

        loop, values, step = session.recipe.loop, session.tuned.values, session.step + 1
        places = batch_indices(loop.seed, step, self.pool * loop.batch_size, len(examples))
        pool = [examples[place] for place in dict.fromkeys(places)]
        if len(pool) <= loop.batch_size:  # all of them, some twice
            return Chosen([examples[place] for place in places[: loop.batch_size]])
        epsilon = getattr(session.recipe.estimator, "epsilon", 1e-3)
        found = np.empty((len(pool), self.features))
        for column in range(self.features):  # one at a time, to need no more memory than a step
            z = normal(loop.seed, step, column, values.numel(), values.device, stream=Stream.FEATURES)
            plus, minus = session.probe(pool, z[None]).examples(torch.tensor([[epsilon], [-epsilon]]))
            found[:, column] = ((plus - minus) / (2 * epsilon)).cpu().numpy()
        tokens = 2 * self.features * sum(map(count_tokens, pool))
        return Chosen([pool[place] for place in facility_location(np.nan_to_num(found), loop.batch_size)], tokens)


def facility_location(features: np.ndarray, count: int) -> list[int]:
    """``count`` rows of ``features`` (n, m), chosen greedily so that every row is close to a chosen one (l1)."""
    import numpy as np

    distances = np.zeros((len(features), len(features)))
    for column in features.T:
        distances += np.abs(column[:, None] - column)
    nearest, chosen = np.full(len(features), distances.max()), list[int]()
    for _ in range(count):
        gains = np.maximum(nearest[:, None] - distances, 0).sum(axis=0)
        gains[chosen] = -1.0
        chosen.append(int(gains.argmax()))
        nearest = np.minimum(nearest, distances[chosen[-1]])
    return chosen
