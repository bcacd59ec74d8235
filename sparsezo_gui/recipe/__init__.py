"""What a run is: the recipe, its variants, and the events and commands of a run in progress.

Nothing here imports torch or Qt, so it loads fast in the window, the command line and the tests.

The recipe file
---------------
A recipe is a TOML file (UTF-8, a byte order mark is allowed). Its ``version`` MUST be 1, which is also the default, and
it MAY contain these tables. A missing key takes its default (``learning_rate``: the value that suits the rules, see
`sparsezo_gui.recipe.rates`). A key that is unknown, or that the table's rule does not have, is an error:

``[model]``      id revision bits block device compute trust_remote_code
``[data]``       source task template chat_template columns answers merge_labels leave_out_gaps duplicates leave_out
                 train validation test split_seed max_tokens
``[mask]``       rule, then the fields of that rule (density text sequences …)
``[estimator]``  rule, then its fields (epsilon directions …)
``[update]``     rule, then its fields (learning_rate schedule …)
``[objective]``  rule, then its fields: the loss to minimise (likelihood, accuracy, f1, exact-match, preference)
``[selection]``  rule, then its fields: which examples a step uses (shuffled, coreset)
``[privacy]``    rule, then its fields: how much the model may reveal about its training examples (none, gaussian)
``[loop]``       steps batch_size seed pass_rows evaluate_every patience guard
``[run]``        name folder checkpoints gradients pause_on

The program always writes every key. So a ``[model]`` with ``id``, ``revision``, ``bits`` and ``device`` but no
``block`` is older than that key and means ``block = 64``, and a ``[data]`` with all its keys except ``chat_template``
means ``chat_template = false``: a run resumes with the weights and examples it started with.

Old names of keys stay valid (`sparsezo_gui.recipe.versions.ALIASES`): ``frames`` means ``checkpoints``.

``rule`` is a name from `sparsezo_gui.recipe.registry`. Relative paths start from the folder of the recipe file.
``trust_remote_code`` says that the model needs its own Python code; it does not allow that code to run, only the user
can (see `sparsezo_gui.engine.pretrained.consent`). A file of a later version is refused; a file of an earlier one is
migrated by the functions in `sparsezo_gui.recipe.versions.MIGRATIONS`, one per version.
"""

from sparsezo_gui.recipe.identity import differences, values
from sparsezo_gui.recipe.paths import portable
from sparsezo_gui.recipe.recipe import Recipe
from sparsezo_gui.recipe.settings import with_settings
from sparsezo_gui.recipe.tables import build, changed, in_words
from sparsezo_gui.recipe.toml import dump, load, loads

__all__ = [
    "Recipe", "build", "changed", "differences", "dump", "in_words",
    "load", "loads", "portable", "values", "with_settings",
]  # fmt: skip
