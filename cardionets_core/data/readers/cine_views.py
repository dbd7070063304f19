"""What a series or file is called, read as a view of the heart (step 2 of the walk; FORMATS section 2).

Names differ between hospitals and languages of scanners; they are cut into words and looked up. A name that
speaks of another technique (tagging, flow, mapping, late enhancement) or of burnt-in contours is no cine that
serves, whatever view it also names. Names themselves never leave this module's callers.
"""

from __future__ import annotations

import re
from typing import Literal

NameSays = Literal["4ch", "2ch", "3ch", "sax", "lax-mixed", "excluded", "nothing"]

_EXCLUDED = re.compile(
    r"inline ?vf|\bao\b|aort|\btag|tagging"
    r"|\bflow\b|venc|phase ?contrast|\bpca?\b"
    r"|molli|\bt[12]\b|t[12] ?(map|star|w)|mapping|\bmap\b"
    r"|perf|stress|\blge\b|late ?enh|delayed|psir|\bir\b|\bstir\b|\btirm\b|haste|dark ?blood"
    r"|scout|locali[sz]er|\bloc\b|survey|angio|\bmra\b|whole ?heart|navigator"
    r"|\blvot\b|\brvot\b|\brv\b"
)
_VIEWS: tuple[tuple[NameSays, re.Pattern[str]], ...] = (
    ("4ch", re.compile(r"\b4 ?(ch|kammer|cav|cam|c\b)|four ?ch|vierkammer|\bhla\b|horizontal long")),
    ("2ch", re.compile(r"\b2 ?(ch|kammer|cav|cam|c\b)|two ?ch|zweikammer|\bvla\b|vertical long")),
    ("3ch", re.compile(r"\b3 ?(ch|kammer|cav|cam|c\b)|three ?ch|dreikammer")),
    ("sax", re.compile(r"\bsax|\bsa\b|short ?ax|kurze? ?achs|petit ?axe|eje ?corto")),
)
_LONG_AXIS = re.compile(r"cine segmented lax")


def view_of_name(name: str) -> NameSays:
    """The one view that a name speaks of.

    Args:
        name: a SeriesDescription, or a file's name.

    Returns:
        A view; ``lax-mixed`` for the series in which a few UK Biobank studies hold all three long axes;
        ``excluded`` for what is no plain cine; ``nothing`` where the name tells no view, or more than one.
        An outflow tract alone (``LVOT``) may be the three-chamber or the coronal view and is excluded;
        ``3CH LVOT`` is the three-chamber view.
    """
    words = re.sub(r"[^a-z0-9]+", " ", name.lower()).strip()
    spoken = [view for view, pattern in _VIEWS if pattern.search(words)]
    if _EXCLUDED.search(words if spoken != ["3ch"] else words.replace("lvot", "")):
        return "excluded"
    if len(spoken) == 1:
        return spoken[0]
    if not spoken and _LONG_AXIS.fullmatch(words):
        return "lax-mixed"
    return "nothing"
