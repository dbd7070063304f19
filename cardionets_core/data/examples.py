"""Recordings that were refused, read once more for the site's own report (beside the walk).

Comes in: a site's document whose cache is up to date. Goes out: a few records for each reason, as the reader
gives them. They are for the eyes of the site's staff: nothing here is cached, and nothing leaves the site.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from cardionets_core.config.site import SiteConfig
from cardionets_core.data.cache import refused_keys
from cardionets_core.data.listing import recording_keys
from cardionets_core.data.pseudonym import load_key
from cardionets_core.data.records import Read, Recording
from cardionets_core.data.sources import Source, open_source


@dataclass(frozen=True, slots=True, kw_only=True)
class RefusedExample:
    """One recording that was refused.

    Attributes:
        kind: ``ecg`` or ``cine``.
        reason: of ``REFUSAL_REASONS``.
        record: what the reader gives; None where it is the reader that refuses.
    """

    kind: Literal["ecg", "cine"]
    reason: str
    record: Read | None


def refused_examples(config: SiteConfig, *, per_reason: int = 2) -> Iterator[RefusedExample]:
    """Read again some of the recordings that the published table says are refused.

    Args:
        config: of the site; people who are no longer listed are not read, whatever the cache says.
        per_reason: most recordings for a reason.

    Raises:
        CacheStaleError, CacheForeignError: there is no cache, or it is torn or another site's.
        FolderMissingError, SourceInvalidError: the source cannot list its files.
    """
    refused = refused_keys(config)
    source = open_source(config)
    recordings = recording_keys(source.recordings(), key=load_key(config.folders.secret))
    shown: Counter[str] = Counter()
    for key, reason in refused:
        if key in recordings and shown[reason] < per_reason:
            shown[reason] += 1
            recording = recordings[key]
            yield RefusedExample(kind=recording.kind, reason=reason, record=_read(source, recording))


def _read(source: Source, recording: Recording) -> Read | None:
    try:
        return source.read(recording)
    except Exception:  # it was refused, or failed in a way that is counted already: there is no picture of it
        return None
