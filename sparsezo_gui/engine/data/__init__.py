"""The way of the data: source → rows → examples → token rows.

A recipe's ``[data]`` table names a source: a bundled name, a file, a folder or a data set on the Hub. `readers` turn
files into rows one at a time (`lines`, `delimited`, `objects`, `parquet`) and say file, row and line for whatever is
wrong in them. `sources` finds the three splits, cuts the missing ones from the training rows, and keeps no more rows
than the recipe asks for, most of them in a `store` on the disk where they are many.

A task (`tasks`; one TOML file each in ``resources/tasks``) says how a row becomes an example: `columns` finds which
column plays which part, `template` renders the prompt, and `examples` puts them together: pieces of text, of which some
are trained on, and candidates to choose from. `conversations` reads the formats of conversations into messages,
`dialogues` makes conversations of prompts and answers, and `chat` renders them with the model's chat template.

`encode` tokenises an example into rows for the model: unpadded, with the scored positions marked, and one row for all
candidates where they differ in a single token. What is cut to keep to the longest length is counted, so that it can
be shown before the start. `prepare` runs the whole way with progress, `preview` for one page of the window.

Before a run, all problems are reported at once: `faults` collects the rows that cannot become examples, `findings`
makes notices about those that can (labels in several spellings, see `labels`; repeated prompts; rows in two splits;
what is beyond the `limits` of the model), and `rendering` shows an example as the model sees it. A run,
`sparsezo preview` and the Data page report the same, since they use the same code.

`ask` encodes a prompt for a tuned model as its examples were, cut off where the answer would begin.

Nothing here imports torch, and `datasets` and `transformers` are imported when they are first needed.
"""

from sparsezo_gui.engine.data.encode import Encoded, Row, encode, encode_text_blocks
from sparsezo_gui.engine.data.examples import Example
from sparsezo_gui.engine.data.prepare import Passage, Split, TaskData, load_task, passages, text_blocks
from sparsezo_gui.engine.data.preview import DataPreview, preview, previewing
from sparsezo_gui.engine.data.sources import Rows, finish, load_rows
from sparsezo_gui.engine.data.tasks import Task, task, tasks

__all__ = [
    "DataPreview",
    "Encoded",
    "Example",
    "Passage",
    "Row",
    "Rows",
    "Split",
    "Task",
    "TaskData",
    "encode",
    "encode_text_blocks",
    "finish",
    "load_rows",
    "load_task",
    "passages",
    "preview",
    "previewing",
    "task",
    "tasks",
    "text_blocks",
]
