"""Which generation of the method a study takes, part by part, by names alone.

The method was published twice (SCIENCE section 1). Every part of a model that differs between the two has a
name for each; a generation is one choice of all of them. Comes in: names. Goes out: a ``Parts``, and the one
name by which a preset with these parts is known everywhere: ``nano``, ``nano+cardiacnets``, ``nano+swin``.
It knows no sizes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from cardionets_core.config.faults import did_you_mean
from cardionets_core.errors import UnknownNameError

CHOICES: dict[str, tuple[str, ...]] = {
    "ecg_encoder": ("st-mem", "vit", "vit-film"),
    "cmr_encoder": ("vit", "swin"),
    "cmr_generator": ("mar", "diffusion"),
}
"""Part to its names: that of the later generation, which is the default, that of the earlier one, and further
ones that no generation takes by itself."""
GENERATIONS: tuple[str, str] = ("cardionets", "cardiacnets")
"""The later generation, which is the default, and the earlier one: the places in ``CHOICES``."""
JOINT = "+"


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """One choice for every part that differs between the generations.

    Attributes:
        ecg_encoder: ``st-mem``; or ``vit``, an image transformer over 500 Hz; or ``vit-film``, the same with
            age and sex, whose results are those of ECG and demographics together.
        cmr_encoder: ``vit``, or ``swin``: two towers, one for the 4-chamber view, one for the short axis.
        cmr_generator: ``mar``, or ``diffusion``: latent diffusion.
    """

    ecg_encoder: str = CHOICES["ecg_encoder"][0]
    cmr_encoder: str = CHOICES["cmr_encoder"][0]
    cmr_generator: str = CHOICES["cmr_generator"][0]

    @property
    def earlier(self) -> tuple[str, ...]:
        """The parts that are of the earlier generation."""
        return tuple(part for part, names in CHOICES.items() if getattr(self, part) != names[0])

    @property
    def ecg_is_image(self) -> bool:
        """Whether the ECG is taken as an image, at 500 Hz."""
        return self.ecg_encoder in ("vit", "vit-film")

    @property
    def takes_covariates(self) -> bool:
        """Whether the ECG's encoder also takes age and sex."""
        return self.ecg_encoder == "vit-film"

    @property
    def two_views(self) -> bool:
        """Whether there is a tower for each of two views."""
        return self.cmr_encoder == "swin"


LATER = Parts()
"""All parts of the later generation."""


def parts_of(generation: str, chosen: Mapping[str, str]) -> Parts:
    """The parts of a generation, some of them chosen otherwise.

    Args:
        generation: one of ``GENERATIONS``.
        chosen: part to name.

    Raises:
        UnknownNameError: no such generation, part or name.
    """
    if generation not in GENERATIONS:
        raise _unknown("generation", generation, GENERATIONS, where="study: generation")
    place = GENERATIONS.index(generation)
    for part, name in chosen.items():
        if part not in CHOICES:
            raise _unknown("part", part, CHOICES, where="study: parts")
        if name not in CHOICES[part]:
            raise _unknown(part, name, CHOICES[part], where=f"study: parts: {part}")
    return Parts(**{**{part: names[place] for part, names in CHOICES.items()}, **chosen})


def models_name(preset: str, parts: Parts) -> str:
    """The name of a preset with these parts; one choice of parts has one name."""
    chosen = [getattr(parts, part) for part in parts.earlier]
    if parts == parts_of(GENERATIONS[1], {}):
        chosen = [GENERATIONS[1]]
    return JOINT.join([preset, *chosen])


def split_name(name: str) -> tuple[str, Parts]:
    """Preset and parts of a name; the inverse of ``models_name``, in any order of the parts.

    Raises:
        UnknownNameError: a word behind the preset names no generation and no part of the earlier one.
    """
    preset, *words = name.split(JOINT)
    chosen: dict[str, str] = {}
    for word in words:
        found = {part: word for part, names in CHOICES.items() if word in names[1:]}
        if word == GENERATIONS[1]:
            found = {part: names[1] for part, names in CHOICES.items()}
        if not found:
            known = (GENERATIONS[1], *(name for names in CHOICES.values() for name in names[1:]))
            raise _unknown("part of the earlier generation", word, known, where=f"preset {name}")
        chosen |= found
    return preset, Parts(**chosen)


def _unknown(
    what: str, name: str, known: Mapping[str, object] | tuple[str, ...], *, where: str
) -> UnknownNameError:
    return UnknownNameError(
        f"there is no {what} {name!r}{did_you_mean(name, known)}",
        where=where,
        remedy=f"use one of: {', '.join(known)}",
    )
