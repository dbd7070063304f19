"""Pictures of a run, one a module; the numbers of each lie beside it as ``.npz``."""
