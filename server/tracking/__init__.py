"""The only door to MLflow: a mirror of studies that no study waits for (step 14 of the walk).

What counts lies in the run folder: the checkpoints' history and ``result.json``. From them ``outbox`` brings
a store up to date, and ``tracked.json`` notes what it holds. ``beside`` does that in a process of its own
while a study runs, ``tracker`` is the study's side of it, ``sending`` does it for a folder at any time, and
``cells`` writes what came of a sweep.
"""
