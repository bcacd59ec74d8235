"""What the engine answers, as plain values for the window and the command line. Imports neither torch nor Qt.

The engine makes these and the window shows them, so neither has to import the other.
"""

from sparsezo_gui.answers.crash import Crash
from sparsezo_gui.answers.data import Candidate, DataPreview, Pieces, Task
from sparsezo_gui.answers.doctor import Finding
from sparsezo_gui.answers.memory import METHODS, TIGHT, MemoryEstimate, Part
from sparsezo_gui.answers.method import Cost, MaskReport, Overlap, RateReport, Rung, Tally, short_rate
from sparsezo_gui.answers.models import Cache, Downloaded, Found, ModelCode, ModelSummary, Pushed
from sparsezo_gui.answers.plan import Pace, Plan, WayFigures
from sparsezo_gui.answers.runs import Content, Exported, History, Received, Removable, RunSummary, Shareable, Shared

__all__ = [
    "METHODS",
    "TIGHT",
    "Cache",
    "Candidate",
    "Content",
    "Cost",
    "Crash",
    "DataPreview",
    "Downloaded",
    "Exported",
    "Finding",
    "Found",
    "History",
    "MaskReport",
    "MemoryEstimate",
    "ModelCode",
    "ModelSummary",
    "Overlap",
    "Pace",
    "Part",
    "Pieces",
    "Plan",
    "Pushed",
    "RateReport",
    "Received",
    "Removable",
    "RunSummary",
    "Rung",
    "Shareable",
    "Shared",
    "Tally",
    "Task",
    "WayFigures",
    "short_rate",
]
