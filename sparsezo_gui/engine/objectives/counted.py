"""Evaluation metrics as the loss, which zeroth-order steps can minimise without a gradient."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, ClassVar, Literal

from sparsezo_gui.engine.objectives import Objective
from sparsezo_gui.recipe.variants import setting

if TYPE_CHECKING:
    from torch import Tensor

    from sparsezo_gui.engine.data.encode import Encoded
    from sparsezo_gui.engine.frozen import FrozenModel
    from sparsezo_gui.engine.layers.patch import Owners
    from sparsezo_gui.engine.objective import Measured

MIX = "Weight of the likelihood in the loss. A pure count (0) changes in few steps; the others have no effect."


class Counted(Objective):
    """Base: (1 − mix)·(1 − score) + mix·likelihood of each example, with equal weights (own choice: MeZO uses the pure
    score with larger batches and more steps)."""

    counts: ClassVar[bool] = True
    mix: float = setting(0.1, MIX, ge=0, le=1, sane=(0.05, 0.5), title="Likelihood weight")

    def mixed(self, scores: Tensor, measured: Measured | None) -> Measured:
        """Losses from ``scores`` (points, examples) in 0 … 1 and, unless ``mix`` is 0, the ``measured`` likelihoods."""
        import torch

        from sparsezo_gui.engine.objective import Measured

        losses = 1.0 - scores
        if measured is not None:
            losses = (1 - self.mix) * losses + self.mix * (measured.sums / measured.weights)
        weights = torch.ones(scores.shape[1], dtype=torch.float64)
        return Measured(losses, weights, measured.scores if measured else ())


class Accuracy(Counted):
    """Accuracy of the choices (loss 1 if the likeliest candidate is wrong), mixed with the likelihood.

    As in MeZO (arXiv 2305.17333), which optimises accuracy without its gradient. If several candidates are correct, any
    of them counts, as in an evaluation.
    """

    title: ClassVar[str] = "Accuracy"
    paper: ClassVar[str] = "MeZO, arXiv 2305.17333"
    kinds: ClassVar[tuple[str, ...]] = ("choice",)
    needs: ClassVar[str] = "answers to choose from"
    rule: Literal["accuracy"] = "accuracy"

    def losses_of(self, measured: Measured, examples: Sequence[Encoded], base: Tensor | None = None) -> Measured:
        """See `Objective.losses_of`."""
        import torch

        right = [
            torch.isin(scores.argmax(dim=1), torch.tensor([example.label, *example.accepted]))
            for scores, example in zip(measured.scores, examples, strict=True)
        ]
        return self.mixed(torch.stack(right, dim=1).double(), measured)


class Written(Counted):
    """Base of scores of greedily generated answers, under each perturbation; a step costs as much as generating them.

    As in MeZO (arXiv 2305.17333), which optimises the F1 of SQuAD. An answer is scored as in an evaluation, whose loss
    remains the likelihood.
    """

    paper: ClassVar[str] = "MeZO, arXiv 2305.17333"
    kinds: ClassVar[tuple[str, ...]] = ("completion", "chat")
    needs: ClassVar[str] = "answers to compare with"

    @abstractmethod
    def score(self) -> Callable[[str, Sequence[str]], float]:
        """Score of an answer against its references, 0 … 1."""

    def measure(
        self, model: FrozenModel, examples: Sequence[Encoded], points: int = 1, owners: Owners | None = None,
        base: Tensor | None = None,
    ) -> Measured:  # fmt: skip
        """See `Objective.measure`."""
        import torch

        from sparsezo_gui.engine.generate import answers
        from sparsezo_gui.engine.objective import measure

        score, scores = self.score(), torch.zeros(points, len(examples), dtype=torch.float64)
        for index, written in answers(model, examples, points):
            scores[:, index] = torch.tensor([score(text, examples[index].references) for text in written])
        return self.mixed(scores, measure(model, examples, points) if self.mix else None)


class F1(Written):
    """Word overlap (F1) of generated answers with the expected ones, mixed with the likelihood."""

    title: ClassVar[str] = "F1 of generated answers"
    rule: Literal["f1"] = "f1"

    def score(self) -> Callable[[str, Sequence[str]], float]:
        """See `Written.score`."""
        from sparsezo_gui.engine import metrics

        return metrics.f1


class ExactMatch(Written):
    """Share of generated answers that equal an expected one, mixed with the likelihood."""

    title: ClassVar[str] = "Exact match of generated answers"
    rule: Literal["exact-match"] = "exact-match"

    def score(self) -> Callable[[str, Sequence[str]], float]:
        """See `Written.score`."""
        from sparsezo_gui.engine import metrics

        return metrics.exact_match
