"""Tasks of the library reasoning-gym as sources of problems, and their own scorers.

`source` reads what names a task, `knobs` what can be set of it, `drawing` draws its problems with
the `solutions` that a model is trained on, `scoring` judges responses. Nothing in this folder
imports JAX, because problems are drawn and scored in worker processes.
"""
