"""Differential privacy: what the trained model can reveal about a single training example.

What the guarantee of a private run covers, and what it does not
----------------------------------------------------------------
(ε, δ) bounds how much the tuned values after any step, and all noised scalars up to it, can reveal about whether one
training example was in the data (differential privacy; two data sets are neighbours if one has one more example). So it
covers an exported model. It rests on three things: an example enters a step only through its own clipped scalars, so by
at most `clip`; noise is added to their sum; and each example is sampled into a batch independently (Poisson sampling).
Sampling and noise use the operating system's randomness and are never stored, so two runs of a recipe differ, and a
recipe and its seed cannot undo the noise. A replay needs neither: the journal has the noised scalars.

It does not cover:

- the run folder: its ``run.json`` has a hash of the training data, its journal the times of the steps;
- validation and test examples: evaluations record their metrics, and some of the examples, unprotected; early stopping
  and exporting the best step depend on these examples, not on the training data;
- a saved mask that was found on the training examples;
- trying several recipes on the same data, each of which spends its own budget; the number of training examples, which
  is assumed public; the output of ``sparsezo evaluate --split train``;
- floating-point effects: the last bits of an example's loss depend on the other examples in its forward pass.

Steps that were rolled back count, and so do those of the runs it branched from.
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
    """Base of privacy mechanisms."""

    private: ClassVar[bool] = True
    """Whether it protects training examples. What a step would reveal of its batch is then not recorded."""

    def refusal(self, data: DataTable) -> str:
        """What in ``data`` would reveal its examples, in a sentence with the fix; empty if nothing does."""
        return ""

    def check(self) -> None:
        """Raises `UserError` if a required package is missing."""

    def choose(self, session: Session, examples: Sequence[Encoded]) -> Chosen:
        """The batch of the next step."""
        return session.recipe.selection.choose(session, examples)

    def estimate(self, estimator: Estimator, probe: Probe, state: Any, batch_size: int) -> Estimate:
        """Runs the forward passes of the next step."""
        return estimator.estimate(probe, state)
