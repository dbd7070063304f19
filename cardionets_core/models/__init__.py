"""Models: named modules that take tensors and give tensors. No data, no devices of their own, no training."""

from cardionets_core.models.presets import (
    DISEASES,
    PHENOTYPES,
    PRESETS,
    SUBTYPES,
    InputSize,
    Preset,
    get_preset,
    input_shape,
)
from cardionets_core.models.registry import MODULES, build_module

__all__ = [
    "DISEASES",
    "MODULES",
    "PHENOTYPES",
    "PRESETS",
    "SUBTYPES",
    "InputSize",
    "Preset",
    "build_module",
    "get_preset",
    "input_shape",
]
