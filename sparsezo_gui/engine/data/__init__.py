"""The way of the data: source → rows → examples → token rows.

A recipe's ``[data]`` table names a source: a bundled name, a file, a folder or a data set on the Hub. `readers` turn
files into rows one at a time (`lines`, `delimited`, `objects`, `parquet`) and say file, row and line for whatever is
wrong in them. `sources` finds the three splits, cuts the missing ones from the training rows, and keeps no more rows
than the recipe asks for, most of them in a `store` on the disk where they are many.

A task (`tasks`; one TOML file each in ``resources/tasks``) says how a row becomes an example: `columns` finds which
column plays which part, `template` renders the prompt, `chat` writes conversations with the model's own template, and
`examples` puts them together: pieces of text, of which some are trained on, and candidates to choose from.

`encode` tokenises an example into rows for the model: unpadded, with the scored positions marked, and one row for all
candidates where they differ in a single token. What is cut to keep to the longest length is counted, so that it can
be shown before the start. `prepare` runs the whole way with progress, `preview` for one page of the window.

Before a run, all that is wrong is told at once: `faults` collects the rows that cannot become examples, `findings`
counts what was noticed about those that can (labels in several spellings, see `labels`; prompts that are the same; rows
in two splits; what is beyond the `limits` of the model), and `seen` shows an example as the model sees it. A run,
`sparsezo preview` and the Data page say the same, since they ask the same.

`ask` puts a question to a tuned model the way its examples went, cut off where the answer would begin.

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
