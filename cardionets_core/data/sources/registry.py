"""Kind of a source, as ``site.yaml`` names it, to its adapter."""

from __future__ import annotations

from collections.abc import Callable

from cardionets_core.config.site import SiteConfig
from cardionets_core.data.sources.base import Source
from cardionets_core.data.sources.local_site import LocalSiteSource
from cardionets_core.data.sources.mimic_iv_ecg import MimicIvEcgSource
from cardionets_core.data.sources.uk_biobank import UkBiobankFolders
from cardionets_core.errors import UnknownNameError

SOURCES: dict[str, Callable[..., Source]] = {
    "uk_biobank": UkBiobankFolders,
    "mimic_iv_ecg": MimicIvEcgSource,
    "local_site": LocalSiteSource,
}


def open_source(config: SiteConfig) -> Source:
    """The adapter of a site; opens no file yet.

    Raises:
        UnknownNameError: no adapter has this kind.
    """
    kind = config.source.kind
    if kind not in SOURCES:
        raise UnknownNameError(
            f"no source is called {kind!r}; there are {sorted(SOURCES)}", where="source.kind"
        )
    return SOURCES[kind](config.source, views=config.prepare.views)
