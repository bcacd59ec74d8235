"""Runs on disk: the folder, the journal, and what is rebuilt from them. Reading a run does not need torch.

A run is a recipe and a list of scalars: the random directions are a pure function of seed, step and direction number,
so the recorded projected gradients and rates are enough to rebuild the tuned values after every step. Gradients from
backpropagation do not follow from scalars, so they are recorded too, as far as the recipe leaves space for them; a
replay computes the others again, which needs the training data.

The run folder (version 5)
--------------------------
``recipe.toml``       the recipe of the run, including all defaults
``run.json``          version, name, created (ISO 8601, UTC), versions of program and libraries, model fingerprint, mask
                      hash, generator, data hash, counts (also of training examples), rows per pass, device, ``inputs``
                      (hashes of splits, template, tokenizer and configuration, see `sparsezo_gui.engine.provenance`)
                      and ``recipe`` (the values that ``recipe.toml`` MUST keep; where model, data and mask file are,
                      ``device``, ``trust_remote_code`` and all of ``[run]`` may change); ``prepared``, the version of
                      how rows become examples (see `sparsezo_gui.engine.provenance`); see `facts.Facts`. It makes the
                      folder a run, so it MUST be written last, and MUST NOT change after the first step
``mask.safetensors``  the mask (see `sparsezo_gui.engine.spaces.mask`); a branch uses that of its tree
``journal.bin``       every step (see `journal`)
``gradients.bin``     exact gradients of the steps, if its estimator has any, a cache (see `gradients`); a branch reads
                      those of the steps before it from its parents
``frames/``           checkpoints, a cache (see `checkpoints`)
``events.jsonl``      one JSON object per line for each event other than a step: evaluations with their best and
                      worst examples, the base model's losses, the noise of the loss, the perplexity on general text,
                      notices, returns, rate changes, ends; a reader MUST skip lines that it cannot read, and MUST NOT
                      rate a run by an evaluation that has ``changed`` (the ``inputs`` that were different then) or is
                      ``partial`` (on the first examples only). Evaluations of step 0 may come after those of later
                      steps
``answers.json``      what the base model answered to all examples, a list by split; a cache, to tell which changed
``labels.json``       what the user calls the run, and its tags
``notes.md``          the user's notes
``branches/NAME/``    a run that continues from a step of this one: itself a run folder, whose ``run.json`` has under
                      ``branched`` the step, how many ``records`` this run's journal had then, the ``hash`` (SHA-256) of
                      their bytes, and the ``factor`` on the rate. A reader MUST refuse a branch whose parent's records
                      have another hash. It MUST have the same model, bits and mask
``lock``              locked (flock, or the system's equivalent) by the process that writes the run. The system
                      unlocks it whenever that process ends, so an existing file alone locks nothing and is never
                      stale. Only the process that holds the lock may remove it
``lock.pid``          used instead on disks without locks: exists while a process, which it names, writes the run

A run folder is created in place by the process with its lock (``train``), or under another name and then renamed (see
`drafts`). In the first case ``lock`` and ``recipe.toml`` come first, and ``run.json`` only before the first step: until
then the folder is a *start* (see `preparing`), which is listed, and prepared again when it is resumed. It MUST have no
other files than these and ``mask.safetensors``. Only its owner can access the folder.

Version 4 had no ``gradients.bin``: its exact gradients are not rounded, and are computed again for a replay. Runs
without ``inputs`` or ``recipe`` are older than these; for a branch with other data than its parent, the first
start records the ``inputs``. Version 3 had no ``prepared``, which is then 1, and no ``chat_template`` in the recipe's
``[data]``, which is then false. Version 2 had no ``hash`` in ``branched``: such a branch opens, with a notice that its
starting point cannot be checked. Version 1 had no branches, frames and notes, and a journal of version 1. All versions
can be read and resumed.
"""
