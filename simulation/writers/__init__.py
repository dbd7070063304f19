"""Writers of the real on-disk layouts, by the name that a scenario gives."""

from simulation.writers import local_site, mimic_iv_ecg, uk_biobank
from simulation.writers.layout import Layout, Rows

LAYOUTS: dict[str, Layout] = {
    "uk_biobank": uk_biobank.LAYOUT,
    "mimic_iv_ecg": mimic_iv_ecg.LAYOUT,
    "local_wfdb": local_site.LAYOUT,
    "local_csv": local_site.LAYOUT,
}

__all__ = ["LAYOUTS", "Layout", "Rows"]
