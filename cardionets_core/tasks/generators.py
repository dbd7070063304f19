"""What the two kinds of generator are made of, by their names in ``Parts`` (step 6 of the walk).

Comes in: the parts of a study. Goes out: names of modules. How each kind is trained stands in ``generate``
and ``latent_diffusion``, how it is conditioned in ``cases``, how it draws in ``drawing``.
"""

from __future__ import annotations

from dataclasses import dataclass

from cardionets_core.config.generation import Parts


@dataclass(frozen=True, slots=True, kw_only=True)
class GeneratorKind:
    """Modules of one kind of generator.

    Attributes:
        trained: that its phase trains.
        conditioned_by: frozen modules that make its condition of an ECG.
        takes_tokens: its condition is the ECG's tokens, and not one embedding.
    """

    trained: tuple[str, ...]
    conditioned_by: tuple[str, ...]
    takes_tokens: bool

    @property
    def drawers(self) -> tuple[str, ...]:
        """Modules that make a cine of a condition."""
        return (*self.trained, "cmr_tokenizer")


GENERATORS: dict[str, GeneratorKind] = {
    "mar": GeneratorKind(
        trained=("cmr_generator", "diffusion_head"),
        conditioned_by=("ecg_encoder", "ecg_projection"),
        takes_tokens=False,
    ),
    "diffusion": GeneratorKind(
        trained=("cmr_generator",), conditioned_by=("ecg_encoder",), takes_tokens=True
    ),
}


def generator_kind(parts: Parts) -> GeneratorKind:
    """The kind of generator that a study's parts name."""
    return GENERATORS[parts.cmr_generator]
