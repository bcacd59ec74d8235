"""Runs on disk: the folder, the journal, and what is rebuilt from them. Reading one needs no torch.

A run is a recipe and a list of scalars: the directions are a pure function of (seed, step, probe), so the recorded
slopes and rates are enough to rebuild every tuned value after every step.

The run folder (version 1)
--------------------------
``recipe.toml``       the recipe as it runs, every default written out
``run.json``          version, name, created (ISO 8601, UTC), versions of program and libraries, model fingerprint, mask
                      hash, data hash, counts, rows at once, device; written once, when the run starts
``mask.safetensors``  the mask (see `sparsezo_gui.engine.sparse.mask`)
``journal.bin``       every step (see `sparsezo_gui.engine.runs.journal`)
``events.jsonl``      one JSON object a line for every event that is not a step: evaluations, notices, the end
``lock``              held (flock) by the process that writes the run; the system frees it when that process ends
"""
