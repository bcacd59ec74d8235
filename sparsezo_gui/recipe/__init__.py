"""What a run is: the recipe, its variants, and the events and commands that pass while it runs.

Nothing here imports torch or Qt, so the window, the command line and the tests can use it at once.

The recipe file
---------------
A recipe is a TOML file (UTF-8, also with a byte order mark). It MUST hold ``version = 1`` (absent means 1) and MAY hold
these tables; a key that is left out takes its default (a ``learning_rate`` what suits the rules, see
`sparsezo_gui.recipe.rates`), a key that is unknown, or that the table's rule does not have, is an error:

``[model]``      id revision bits block device compute trust_remote_code
``[data]``       source task template chat_template columns answers merge_labels leave_out_gaps train validation test
                 max_tokens
``[mask]``       rule, then the fields of that rule (density text sequences …)
``[estimator]``  rule, then its fields (epsilon directions …)
``[update]``     rule, then its fields (learning_rate schedule …)
``[objective]``  rule, then its fields: what is made small (likelihood, accuracy, f1, exact-match, preference)
``[selection]``  rule, then its fields: which examples a step measures (shuffled, coreset)
``[privacy]``    rule, then its fields: what the model may tell of its training examples (none, gaussian)
``[loop]``       steps batch_size seed evaluate_every patience guard
``[run]``        name folder frames pause_on

The program writes every key. So a ``[model]`` with ``id``, ``revision``, ``bits`` and ``device`` but no ``block`` was
written before that key existed and means ``block = 64``, and a ``[data]`` with all its keys but ``chat_template`` means
``chat_template = false``: a run resumes with the weights and examples that it began with.

``rule`` is a word from `sparsezo_gui.recipe.registry`. A relative path is meant from the folder of the recipe file.
``trust_remote_code`` says that the model needs Python code of its own; it grants nothing, since the user alone lets
that run (see `sparsezo_gui.engine.models.consent`). A file of a later version is refused; a file of an earlier one is
brought up by the functions in `sparsezo_gui.recipe.toml.MIGRATIONS`, one per version.
"""

from sparsezo_gui.recipe.recipe import Recipe
from sparsezo_gui.recipe.toml import differences, dump, load, loads, portable, values, with_settings

__all__ = ["Recipe", "differences", "dump", "load", "loads", "portable", "values", "with_settings"]
