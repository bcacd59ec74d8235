"""No privacy of the training examples."""

from __future__ import annotations

from typing import ClassVar, Literal

from sparsezo_gui.engine.privacy import Privacy


class NoPrivacy(Privacy):
    """No protection: the tuned model may reveal its training examples."""

    title: ClassVar[str] = "None"
    private: ClassVar[bool] = False
    rule: Literal["none"] = "none"
