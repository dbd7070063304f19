"""Models: named modules that take tensors and give tensors. No data, no devices of their own, no training."""

from cardionets_core.models.presets import PRESETS, InputSize, Preset, get_preset, input_shape
from cardionets_core.models.registry import MODULES, build_module

__all__ = ["MODULES", "PRESETS", "InputSize", "Preset", "build_module", "get_preset", "input_shape"]
