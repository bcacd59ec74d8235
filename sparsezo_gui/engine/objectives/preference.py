"""Preference pairs: the chosen answer should become likelier than the rejected one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar, Literal

from sparsezo_gui.engine.objectives import Objective
from sparsezo_gui.recipe.variants import setting

if TYPE_CHECKING:
    from torch import Tensor

    from sparsezo_gui.engine.data.encode import Encoded
    from sparsezo_gui.engine.objective import Measured


class Preference(Objective):
    """DPO loss: raises the likelihood of the chosen answer over the rejected one, relative to the base model.

    The DPO loss (arXiv 2305.18290): −log σ(β·(m − m₀)), where the margin m is log p(chosen) −
    log p(rejected), each summed over the answer's tokens, and m₀ that of the frozen base model. Own choice: this
    replaces the zeroth-order preference optimisation of arXiv 2503.03460, which generates new answers and scores them
    with a reward model; here the pairs are given. m₀ is measured once per example, without a second model.
    """

    title: ClassVar[str] = "Preference pairs"
    paper: ClassVar[str] = "DPO, arXiv 2305.18290"
    kinds: ClassVar[tuple[str, ...]] = ("preference",)
    needs: ClassVar[str] = "pairs of a chosen and a rejected answer"
    rule: Literal["preference"] = "preference"
    beta: float = setting(
        0.1, "Strength β of the preference; lower lets the model move further from the base model.", gt=0, le=10,
        sane=(0.05, 0.5),
    )  # fmt: skip

    def reference(self, measured: Measured, examples: Sequence[Encoded]) -> Tensor:
        """See `Objective.reference`."""
        return _margins(measured, examples)

    def losses_of(self, measured: Measured, examples: Sequence[Encoded], base: Tensor | None = None) -> Measured:
        """See `Objective.losses_of`."""
        import torch

        from sparsezo_gui.engine.objective import Measured

        losses = torch.nn.functional.softplus(-self.beta * self._gains(measured, examples, base))
        return Measured(losses, measured.weights, measured.scores)

    def metrics(self, measured: Measured, examples: Sequence[Encoded], base: Tensor | None = None) -> dict[str, float]:
        """Share of pairs whose margin grew (an unchanged one counts half), share whose chosen answer is likelier, and
        the mean growth of the margin."""
        gains = self._gains(measured, examples, base)[0]
        grew = (gains > 0).double() + (gains == 0) / 2
        preferred = _margins(measured, examples)[0] > 0
        found = {"accuracy": grew, "preferred": preferred.double(), "margin": gains}
        return {name: values.mean().item() for name, values in found.items()}

    def _gains(self, measured: Measured, examples: Sequence[Encoded], base: Tensor | None) -> Tensor:
        margins = _margins(measured, examples)
        return margins - (margins if base is None else base)  # untuned, there is no gain


def _margins(measured: Measured, examples: Sequence[Encoded]) -> Tensor:
    """log p(chosen) − log p(rejected), fp64 (points, examples)."""
    import torch

    found = []
    for means, example in zip(measured.scores, examples, strict=True):
        owners = torch.tensor([choice for row in example.rows for choice in row.choices])
        sums = means * torch.bincount(owners, minlength=2)
        found.append(sums[:, example.label] - sums[:, 1 - example.label])
    return torch.stack(found, dim=1)
