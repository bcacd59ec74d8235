"""The likelihood of the correct answers."""

from __future__ import annotations

from typing import ClassVar, Literal

from sparsezo_gui.engine.objectives import Objective


class Likelihood(Objective):
    """Cross-entropy over the candidates of a choice; otherwise the mean negative log-likelihood of the trained tokens.

    MeZO (arXiv 2305.17333) appendix E: classification trains on the mean log-probability of each candidate's tokens,
    everything else on the tokens of the answer, or of the text if there is no prompt.
    """

    title: ClassVar[str] = "Likelihood"
    paper: ClassVar[str] = "MeZO, arXiv 2305.17333"
    rule: Literal["likelihood"] = "likelihood"
