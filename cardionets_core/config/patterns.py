"""How names, addresses and digests in documents are written, and what to tell who wrote them otherwise.

Comes in: nothing. Goes out: regular expressions, and words for each of them. It checks nothing itself.
"""

from __future__ import annotations

ADDRESS = r"^(\[[0-9A-Fa-f:]+\]|[A-Za-z0-9.-]+):\d{1,5}$"
SITE_NAME = r"^[a-z0-9][a-z0-9-]{0,62}$"
STUDY_NAME = r"^[a-z0-9][a-z0-9_-]{0,62}$"
SHA256 = r"^[0-9a-f]{64}$"
PRESET_NAME = r"^[^+]*$"

WORDS = {
    ADDRESS: "give HOST:PORT, such as hub.example.org:9092",
    SITE_NAME: "give a name of lower-case letters, digits and hyphens, 63 at most, such as heart-study",
    STUDY_NAME: "give a name of lower-case letters, digits, hyphens and underscores, 63 at most",
    PRESET_NAME: "give the sizes alone, such as nano; the method has keys of its own: generation, parts",
    SHA256: "give a SHA-256: 64 of the digits 0 to 9 and a to f",
}
"""Told in the place of the regular expression."""
