"""Exact gradients where they are possible and fit, otherwise forward passes."""

from __future__ import annotations

from typing import ClassVar, Literal

from sparsezo_gui.engine.zo.estimators.two_sided import TwoSided


class Auto(TwoSided):
    """Chosen at the start of the run: exact gradients if they are possible and fit, otherwise forward passes.

    Forward passes are needed for losses that count, for private runs and for computing in int8. Otherwise exact
    gradients are used, in all blocks, or in the last half or quarter of them: in the largest part that fits in 85 % of
    the free memory, by formula. Mask and update follow if they have their default rules; central differences then go
    along a gradient subspace, but not in private runs. A run says what was chosen, and its recipe has the concrete
    rules. The settings here are those of the central differences.
    """

    title: ClassVar[str] = "Automatic"
    paper: ClassVar[str] = ""
    rule: Literal["auto"] = "auto"  # type: ignore[assignment]
