"""Sources: how a hospital's folders become a list of recordings. One file an adapter, found by its kind."""

from cardionets_core.data.sources.base import Source
from cardionets_core.data.sources.local_site import LocalSiteSource
from cardionets_core.data.sources.mimic_iv_ecg import MimicIvEcgSource
from cardionets_core.data.sources.registry import SOURCES, open_source
from cardionets_core.data.sources.uk_biobank import UkBiobankFolders

__all__ = ["SOURCES", "LocalSiteSource", "MimicIvEcgSource", "Source", "UkBiobankFolders", "open_source"]
