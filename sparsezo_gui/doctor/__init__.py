"""Whether this computer has what the program needs. Imports neither torch nor Qt, so it works where they do not.

`facts` looks at the computer; `checks` says what is wrong with the facts, and how to fix it.
"""

from sparsezo_gui.doctor.checks import CHECKS, examine
from sparsezo_gui.doctor.facts import Facts, Folder, look

__all__ = ["CHECKS", "Facts", "Folder", "examine", "look"]
