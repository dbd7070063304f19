"""Numbers of leads, as SCP-ECG gives them and DICOM and ISO/IEEE 11073 took them over.

Table 4 of EN 1064 (SCP-ECG); in DICOM the code values ``5.6.3-9-N`` of the scheme ``SCPECG`` and ``2:N`` of
the scheme ``MDC`` (context group 3001).
"""

from __future__ import annotations

_LEAD_OF_NUMBER = {
    1: "I", 2: "II", 3: "V1", 4: "V2", 5: "V3", 6: "V4", 7: "V5", 8: "V6", 9: "V7", 10: "V2R", 11: "V3R",
    12: "V4R", 13: "V5R", 14: "V6R", 15: "V7R", 16: "X", 17: "Y", 18: "Z",
    61: "III", 62: "aVR", 63: "aVL", 64: "aVF", 65: "-aVR", 66: "V8", 67: "V9", 68: "V8R", 69: "V9R",
}  # fmt: skip


def lead_of_number(number: int) -> str:
    """Name of a lead; the twelve as in ``LEADS``, any that is not of the table as ``lead-N``."""
    return _LEAD_OF_NUMBER.get(number, f"lead-{number}")
