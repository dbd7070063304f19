"""From a hospital's disk to tensors (steps 2 to 5 of the walk).

Readers open one file each; sources list and pair what a hospital has; ``prepare`` packs it into a cache;
``cache`` opens that again; a cohort gives batches. Import from the modules: this package re-exports nothing,
so that worker processes start without torch.
"""
