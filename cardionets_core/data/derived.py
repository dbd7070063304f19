"""Where arrays derived from a site's records lie, and when they must go (beside step 4 of the walk).

Training keeps features and latents of whole cohorts between rounds. They are personal data like the cache
itself; when somebody withdraws, the cohort's digest changes and every file that was made from the cohort
before is removed by the next `prepare`.
"""

from __future__ import annotations

from pathlib import Path

from safetensors import SafetensorError, safe_open

from cardionets_core.config.site import SiteConfig

DERIVED_SUFFIX = ".derived"


def derived_folder(config: SiteConfig) -> Path:
    """Where a site's derived arrays lie."""
    return config.folders.cache / "derived"


def forget_derived(config: SiteConfig, *, but_of: str = "") -> int:
    """Remove the derived arrays of every cohort but one; those that cannot be read go too.

    Args:
        config: of the site.
        but_of: digest of the cohort whose arrays stay.

    Returns:
        How many files were removed.
    """
    removed = 0
    for path in sorted(derived_folder(config).glob(f"*{DERIVED_SUFFIX}")) + sorted(
        derived_folder(config).glob(".*.part")
    ):
        if path.suffix == ".part" or not but_of or _cohort_of(path) != but_of:
            path.unlink(missing_ok=True)
            removed += 1
    return removed


def _cohort_of(path: Path) -> str | None:
    try:
        with safe_open(path, framework="numpy") as handle:
            return (handle.metadata() or {}).get("cohort")
    except (SafetensorError, OSError):
        return None
