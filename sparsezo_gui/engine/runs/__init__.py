"""Runs on disk: the folder, the journal, and what is rebuilt from them. Reading one needs no torch.

A run is a recipe and a list of scalars: the directions are a pure function of (seed, step, probe), so the recorded
slopes and rates are enough to rebuild every tuned value after every step. (What an estimator found by back-propagation
is not recorded: a replay takes such steps again, which needs the training data.)

The run folder (version 4)
--------------------------
``recipe.toml``       the recipe as it runs, every default written out
``run.json``          version, name, created (ISO 8601, UTC), versions of program and libraries, model fingerprint, mask
                      hash, generator, data hash, counts (also of training examples), rows at once, device, ``inputs``
                      (hashes of splits, template, tokenizer and configuration, see `sparsezo_gui.engine.provenance`)
                      and ``recipe`` (the values that ``recipe.toml`` MUST keep; where model, data and mask file
                      lie, ``device``, ``trust_remote_code`` and all of ``[run]`` may change); ``prepared``, the version
                      of how rows become examples (see `sparsezo_gui.engine.provenance`); see `folder.Facts`. It
                      is what makes the folder a run, so it MUST be written last, and not be changed after the first
                      step
``mask.safetensors``  the mask (see `sparsezo_gui.engine.sparse.mask`); a branch has none of its own
``journal.bin``       every step (see `journal`)
``frames/``           key frames, a cache (see `frames`)
``events.jsonl``      one JSON object a line for every event that is not a step: evaluations with their best and worst
                      examples, the base model's losses, notices, returns, changes of the rate, ends; a reader MUST
                      pass over a line that it cannot read, and MUST NOT judge a run by an evaluation that has
                      ``changed`` (the ``inputs`` that were others then)
``notes.md``          what the user wrote about the run
``branches/NAME/``    a run that goes on from a step of this one: a run folder itself, whose ``run.json`` tells under
                      ``branched`` the step, how many ``records`` this run's journal had then, the ``hash`` (SHA-256) of
                      their bytes, and the ``factor`` on the rate. A reader MUST refuse a branch whose parent's records
                      have another hash. It MUST have the same model, bits and mask
``lock``              held (flock, or the system's like of it) by the process that writes the run. The system frees it
                      when that process ends in any way, so a lock file that lies about locks nothing and is never
                      stale. It MUST NOT be removed but by its holder
``lock.pid``          in its place where the disk has no locks: there while a process writes the run, which it names

A run folder is made in place by who holds its lock (``train``), or beside it and renamed (see `drafts`). It and its
files are for their owner alone.

Runs without ``inputs`` or ``recipe`` are older than these, and are read and gone on with; of a branch with other data
than its parent, the first start tells the ``inputs``. Version 3 had no ``prepared``, which is then 1, and no
``chat_template`` in the recipe's ``[data]``, which is then false. Version 2 had no ``hash`` in ``branched``: such a
branch is opened, with a notice that its beginning cannot be checked. Version 1 had no branches, frames and notes, and
its journal was of version 1. All are read and gone on with as they are.
"""
