"""The types of a recipe's parts.

Their base classes are in the engine, which a recipe never imports: a type checker sees them, a running program sees
`Variant`. So the fields of a recipe are typed, and reading one loads no engine.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sparsezo_gui.engine.masks.rule import MaskRule
    from sparsezo_gui.engine.objectives import Objective
    from sparsezo_gui.engine.privacy import Privacy
    from sparsezo_gui.engine.selection import Selection
    from sparsezo_gui.engine.spaces.space import Space
    from sparsezo_gui.engine.zo.estimators import Estimator
    from sparsezo_gui.engine.zo.updates import Update
else:
    from sparsezo_gui.recipe.variants import Variant

    MaskRule = Estimator = Update = Objective = Selection = Privacy = Variant
    Space = object

__all__ = ["Estimator", "MaskRule", "Objective", "Privacy", "Selection", "Space", "Update"]
