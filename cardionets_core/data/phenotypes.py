"""The 82 phenotypes of cardiac MRI, in the one order that every array uses; their units and bounds.

UK Biobank fields 24100 to 24181 (Bai et al., Nature Medicine 26, 2020; FORMATS section 3). Column i of any
phenotype array is ``PHENOTYPES[i]``. Nothing here reads a file.

The bounds are ours and wide: no heart leaves them, but a litre taken for a millilitre, a fraction taken for a
percentage or a sentinel like -999 does. A value outside is no measurement and counts as missing.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

FIRST_FIELD = 24100


@dataclass(frozen=True, slots=True, kw_only=True)
class Phenotype:
    """One column.

    Attributes:
        field: number of the UK Biobank field.
        name: snake_case key that ends in the unit.
        title: as the showcase words it.
        unit: of every value in the column.
        bounds: smallest and largest value that a heart can have, in the unit.
    """

    field: int
    name: str
    title: str
    unit: str
    bounds: tuple[float, float]


_UNIT_KEYS = {"mL": "ml", "%": "percent", "L/min": "l_per_min", "g": "g", "mm2": "mm2", "mm": "mm",
              "10-3 mmHg-1": "per_1000_mmhg"}  # fmt: skip
_BOUNDS = {"mL": (0.5, 1500.0), "%": (1.0, 100.0), "L/min": (0.3, 60.0), "g": (3.0, 1500.0),
           "mm2": (30.0, 20_000.0), "mm": (1.0, 60.0), "10-3 mmHg-1": (0.0, 100.0)}  # fmt: skip
_STRAIN_BOUNDS = (-100.0, 300.0)
_FACTORS: dict[str, dict[str, float]] = {
    "mL": {"ml": 1.0, "l": 1000.0, "cl": 10.0, "cm3": 1.0, "mm3": 0.001},
    "%": {"%": 1.0, "percent": 1.0, "1": 100.0},
    "L/min": {"l/min": 1.0, "ml/min": 0.001},
    "g": {"g": 1.0, "kg": 1000.0, "mg": 0.001},
    "mm2": {"mm2": 1.0, "cm2": 100.0},
    "mm": {"mm": 1.0, "cm": 10.0, "m": 1000.0},
    "10-3 mmHg-1": {"10-3/mmhg": 1.0, "10-3mmhg-1": 1.0, "1/mmhg": 1000.0, "mmhg-1": 1000.0},
}
_SPELLINGS = str.maketrans({" ": "", "^": "", "²": "2", "³": "3"})


def _chamber(prefix: str, *measures: tuple[str, str]) -> list[tuple[str, str]]:
    return [(f"{prefix} {measure}", unit) for measure, unit in measures]


def _segments(title: str, *, segments: int, layout: str, unit: str) -> list[tuple[str, str]]:
    rows = [(f"{title} {layout} {number}", unit) for number in range(1, segments + 1)]
    return [*rows, (f"{title} global", unit)]


def _titles() -> list[tuple[str, str]]:
    ventricle = (("end diastolic volume", "mL"), ("end systolic volume", "mL"), ("stroke volume", "mL"),
                 ("ejection fraction", "%"))  # fmt: skip
    atrium = (("maximum volume", "mL"), ("minimum volume", "mL"), ("stroke volume", "mL"),
              ("ejection fraction", "%"))  # fmt: skip
    aorta = (("maximum area", "mm2"), ("minimum area", "mm2"), ("distensibility", "10-3 mmHg-1"))
    return [
        *_chamber("LV", *ventricle, ("cardiac output", "L/min"), ("myocardial mass", "g")),
        *_chamber("RV", *ventricle),
        *_chamber("LA", *atrium),
        *_chamber("RA", *atrium),
        *_chamber("Ascending aorta", *aorta),
        *_chamber("Descending aorta", *aorta),
        *_segments("LV mean myocardial wall thickness", segments=16, layout="AHA", unit="mm"),
        *_segments("LV circumferential strain", segments=16, layout="AHA", unit="%"),
        *_segments("LV radial strain", segments=16, layout="AHA", unit="%"),
        *_segments("LV longitudinal strain", segments=6, layout="Segment", unit="%"),
    ]


def _key(title: str, unit: str) -> str:
    return f"{title.lower().replace(' ', '_')}_{_UNIT_KEYS[unit]}"


PHENOTYPES: tuple[Phenotype, ...] = tuple(
    Phenotype(
        field=FIRST_FIELD + place,
        name=_key(title, unit),
        title=title,
        unit=unit,
        bounds=_STRAIN_BOUNDS if "strain" in title else _BOUNDS[unit],
    )
    for place, (title, unit) in enumerate(_titles())
)
FIELDS: tuple[int, ...] = tuple(phenotype.field for phenotype in PHENOTYPES)
LOWEST = np.array([phenotype.bounds[0] for phenotype in PHENOTYPES])
HIGHEST = np.array([phenotype.bounds[1] for phenotype in PHENOTYPES])


def units_of(phenotype: Phenotype) -> tuple[str, ...]:
    """Spellings of the units that can be converted to a phenotype's own; case and ``^`` do not matter."""
    return tuple(_FACTORS[phenotype.unit])


def factor_from(unit: str, phenotype: Phenotype) -> float | None:
    """What a value in ``unit`` is multiplied by to be in the unit of the phenotype; None: another dimension.

    A fraction is written as unit ``1``: it becomes a percentage.
    """
    return _FACTORS[phenotype.unit].get(unit.casefold().translate(_SPELLINGS))
