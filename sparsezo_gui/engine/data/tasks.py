"""Tasks: how a row becomes an example. One TOML file each in ``resources/tasks``; the file name is the task's name.

Keys: ``title``; ``kind`` (choice, completion, chat, text or preference); ``metric``, by which the best step is chosen
(see `sparsezo_gui.recipe.metrics`); ``paper``; ``prompt``, a Jinja template over the parts below and the columns of the
row; ``answers``, a list of ``{ text, labels }``: the text of a candidate (also a template) and the values of a label
column that mean it; or, if each row has its own list of candidates, ``items`` and ``item``: the part with the list, and
the text of one candidate; ``none``, the answer of a row with an empty list of answers; ``stop``, text that ends an
answer; ``chat_template``, whether prompts go through the chat template of a model that has one; ``explode``, nested
lists of which each element becomes a row; and the table ``[columns]``: for each part the names its column may have,
with dots for nested ones. The part ``answer`` is the label or the text to learn; a preference has ``chosen`` and
``rejected`` instead. The parts ``system``, ``history`` and ``tools`` are optional; they belong to conversations.
"""

from __future__ import annotations

import functools
import tomllib

from sparsezo_gui import resources
from sparsezo_gui.answers import Task
from sparsezo_gui.errors import UserError, did_you_mean


@functools.cache
def tasks() -> dict[str, Task]:
    """All tasks by name."""
    files = sorted((resources.ROOT / "tasks").glob("*.toml"))
    return {file.stem: Task(name=file.stem, **tomllib.loads(file.read_text(encoding="utf-8"))) for file in files}


def task(name: str) -> Task:
    """The task of that name. Raises `UserError` that suggests the nearest one."""
    if name not in tasks():
        raise UserError(f"[data] task: there is no task '{name}'. {did_you_mean(name, tasks())}")
    return tasks()[name]
