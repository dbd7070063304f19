"""Training: local steps, schedules by global progress, seeds, modules as named tensors."""

from cardionets_core.training.local import LocalResult, check_phase, round_statistics, train_locally
from cardionets_core.training.numerics import Numerics
from cardionets_core.training.schedule import learning_rate
from cardionets_core.training.seeds import derive_seed
from cardionets_core.training.tensors import export_tensors, load_tensors

__all__ = [
    "LocalResult",
    "Numerics",
    "check_phase",
    "derive_seed",
    "export_tensors",
    "learning_rate",
    "load_tensors",
    "round_statistics",
    "train_locally",
]
