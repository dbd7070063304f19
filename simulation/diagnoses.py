"""ICD-10 codes for a heart's diseases, as a hospital's coders would leave them.

Comes in: a ``Heart`` and a generator. Goes out: codes with the dot (``I42.0``). The code ranges are those of
SCIENCE section 9.
"""

from __future__ import annotations

import numpy as np

from simulation.hearts import Heart

_CODES: dict[str, tuple[str, ...]] = {
    "cad": ("I25.1", "I20.9", "I21.4", "I25.2"),
    "hf": ("I50.0", "I50.1", "I50.9"),
    "pc": ("I30.9", "I31.3", "I31.9"),
    "ph": ("I27.0", "I27.2"),
    "dcm": ("I42.0",),
    "hcm": ("I42.1", "I42.2"),
    "rcm": ("I42.5",),
}
_OTHERS = ("E78.5", "M54.5", "K21.9", "J45.9", "N39.0", "E11.9", "Z00.0", "G43.9")


def codes_of(heart: Heart, rng: np.random.Generator) -> tuple[str, ...]:
    """Codes of one person, sorted, without the order telling anything.

    A few people with no heart disease have hypertension (I10), so that an ``I`` code alone says nothing.
    """
    names = sorted(heart.diseases - {"cm"}) + ([heart.subtype] if heart.subtype else [])
    codes = {str(rng.choice(_CODES[name])) for name in names}
    codes |= {str(code) for code in rng.choice(_OTHERS, size=int(rng.integers(0, 3)), replace=False)}
    if rng.random() < 0.12:
        codes.add("I10")
    return tuple(sorted(codes))
