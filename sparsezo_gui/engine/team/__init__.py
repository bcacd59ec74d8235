"""Several workers, started by ``torchrun``: one leads (rank 0), the others help.

The leader runs the whole program, as if it were alone. Wherever it would make passes, it tells the helpers which, makes
its own part, and receives what theirs gave: one number per candidate answer and point. After a step it tells them the
recorded values, from which each takes the step itself, as a replay does. Nothing else is exchanged in a zeroth-order
step. Exact gradients of the tuned values are added up from worker to worker, in the order of the passes, and go out
again rounded to 16 bits, as the run records them.

So a helper needs the model, and no data, no journal and no settings: all of them come from the leader.
"""
