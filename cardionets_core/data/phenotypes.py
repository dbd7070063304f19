"""The 82 phenotypes of cardiac MRI, in the one order that every array uses.

UK Biobank fields 24100 to 24181 (Bai et al., Nature Medicine 26, 2020; FORMATS section 3). Column i of any
phenotype array is ``PHENOTYPES[i]``. Nothing here reads a file.
"""

from __future__ import annotations

from dataclasses import dataclass

FIRST_FIELD = 24100


@dataclass(frozen=True, slots=True, kw_only=True)
class Phenotype:
    """One column.

    Attributes:
        field: number of the UK Biobank field.
        name: snake_case key that ends in the unit.
        title: as the showcase words it.
        unit: of every value in the column.
    """

    field: int
    name: str
    title: str
    unit: str


_UNIT_KEYS = {"mL": "ml", "%": "percent", "L/min": "l_per_min", "g": "g", "mm2": "mm2", "mm": "mm",
              "10-3 mmHg-1": "per_1000_mmhg"}  # fmt: skip


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
    Phenotype(field=FIRST_FIELD + place, name=_key(title, unit), title=title, unit=unit)
    for place, (title, unit) in enumerate(_titles())
)
FIELDS: tuple[int, ...] = tuple(phenotype.field for phenotype in PHENOTYPES)
