"""No privacy of the training examples."""

from __future__ import annotations

from typing import ClassVar, Literal

from sparsezo_gui.engine.privacy import Privacy


class NoPrivacy(Privacy):
    """Nothing is hidden: the tuned model may tell of the examples that it learned from."""

    title: ClassVar[str] = "None"
    private: ClassVar[bool] = False
    rule: Literal["none"] = "none"
