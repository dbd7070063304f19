"""What a preset's encoders take, as the data path says it: where models and data meet."""

from __future__ import annotations

from cardionets_core.data.windows import InputShape
from cardionets_core.models import input_shape


def shape_of(preset: str) -> InputShape:
    """The input sizes of a preset.

    Raises:
        UnknownNameError: there is no such preset.
    """
    return InputShape(**input_shape(preset)._asdict())
