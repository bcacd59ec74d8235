"""What may be learned about a single training example from the model that comes out.

What the guarantee of a private run covers, and what it does not
----------------------------------------------------------------
(ε, δ) bounds how much the tuned values after any step, and all noised scalars that led there, can tell about whether
one training example was among the data (differential privacy; two sets of data are neighbours when one has one example
more). So it covers an exported model. It rests on three things: an example enters a step only by its own clipped
scalars, so by `clip` at most; noise is added to their sum; and each example is in a batch by a coin of its own (Poisson
sampling). Coins and noise come from the operating system and are kept nowhere, so that two runs of one recipe differ,
and a recipe and its seed do not undo the noise. A replay needs neither: the journal has the noised scalars.

It does not cover:

- the run folder: its ``run.json`` has a hash of the training data, its journal the times of the steps;
- validation and test examples: evaluations tell their metrics, and some of the examples, as they are; ending early and
  exporting the best step are choices by these examples, not by the training data;
- a saved mask that was found on them;
- trying several recipes on the same data, of which each spends its own; the number of training examples, which is
  taken as public; what is told by ``sparsezo evaluate --split train``;
- what numbers of finite precision tell: the last bits of an example's loss depend on those beside it in a pass.

Steps that a run went back over count, as do those of the runs that it branched off from.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from sparsezo_gui.recipe.variants import Variant

if TYPE_CHECKING:
    from sparsezo_gui.engine.data.encode import Encoded
    from sparsezo_gui.engine.selection import Chosen
    from sparsezo_gui.engine.session import Session
    from sparsezo_gui.engine.zo.estimators import Estimate, Estimator, Probe
    from sparsezo_gui.recipe.recipe import DataTable


class Privacy(Variant):
    """Base of ways to keep training examples private."""

    private: ClassVar[bool] = True
    """Whether it keeps them so. What a step would tell of its batch is then told nowhere."""

    def refusal(self, data: DataTable) -> str:
        """What of ``data`` tells of its examples, in a sentence with what helps; empty where nothing does."""
        return ""

    def check(self) -> None:
        """Raises `UserError` where something that it needs is missing here."""

    def choose(self, session: Session, examples: Sequence[Encoded]) -> Chosen:
        """The batch of the next step."""
        return session.recipe.selection.choose(session, examples)

    def measure(self, estimator: Estimator, probe: Probe, state: Any, batch_size: int) -> Estimate:
        """Runs the forward passes of the next step."""
        return estimator.measure(probe, state)
