"""The data pipeline: source → rows → examples → token rows.

A recipe's ``[data]`` table names a source: a bundled name, a file, a folder or a data set on the Hub. `sources` finds
its files by split, `hub_data` loads data sets from the Hub, and `readers` turn files (formats: `sparsezo_gui.formats`)
into rows one at a time (`lines`, `delimited`, `objects`, `parquet`, `text`) and report errors with file, row and line.
`splits` selects the rows of each split: it splits missing ones off the training rows, and keeps no more rows than the
recipe asks for; when there are many, most of them go into a `spill` on disk. `keys` hash rows, for their order and for
the names by which a recipe leaves some out; of equal rows and of equal examples (`duplicates`) one stays on request.

A task (`tasks`; one TOML file each in ``resources/tasks``) says how a row becomes an example: `columns` finds which
column plays which part, `template` renders the prompt, `candidates` finds the answers to choose from, and `examples`
puts them together: pieces of text, some of them trained on, and candidates. `conversations` reads the conversation
formats into messages, `dialogues` makes conversations from prompts and answers, and `chat` renders them with the
model's chat template.

`tokenise` splits text into tokens, and `encode` makes rows for the model from them: unpadded, with the scored positions
marked, and one row for all candidates if they differ in a single token. Truncated tokens are counted, to be shown
before the start. `prepare` runs the complete pipeline, `preview` for one page of the window; both yield progress (see
`background`).

Before a run, all problems are reported together: `faults` collects the rows that cannot become examples, `findings`
makes notices about those that can (labels with several spellings, see `labels`; repeated prompts; rows in two splits;
anything beyond the `limits` of the model), and `rendering` shows an example as the model sees it. A run,
`sparsezo preview` and the Data page use the same code and so report the same.

`prompts` encodes a prompt for a tuned model as its examples were, up to where the answer would start.

Nothing here imports torch; `datasets`, `transformers` and `huggingface_hub` are imported on first use, since building
any recipe imports this package.
"""

from sparsezo_gui.answers import DataPreview, Task
from sparsezo_gui.engine.data.encode import Encoded, Row, encode, encode_text_blocks
from sparsezo_gui.engine.data.examples import Example
from sparsezo_gui.engine.data.prepare import Passage, Split, TaskData, answered, load_task, passages, text_blocks
from sparsezo_gui.engine.data.preview import preview, previewing
from sparsezo_gui.engine.data.splits import Rows, load_rows
from sparsezo_gui.engine.data.tasks import task, tasks

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
    "answered",
    "encode",
    "encode_text_blocks",
    "load_rows",
    "load_task",
    "passages",
    "preview",
    "previewing",
    "task",
    "tasks",
    "text_blocks",
]
