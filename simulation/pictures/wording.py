"""Names of diseases and metrics as pictures and tables say them."""

from __future__ import annotations

DISEASE_WORDS = {
    "cad": "coronary artery disease",
    "cm": "cardiomyopathy",
    "hf": "heart failure",
    "pc": "pericardial disease",
    "ph": "pulmonary hypertension",
}
METRIC_WORDS = {"r2_mean": "mean R² over phenotypes", "auroc_mean": "mean AUROC over diseases"}
