"""Evaluation: metrics and their intervals from sums that may be added over sites."""

from cardionets_core.evaluation.attribution import (
    Attribution,
    integrated_gradients,
    lead_time_map,
    similarity_map,
)
from cardionets_core.evaluation.bootstrap import bootstrap_sums, percentile_interval, replicate_weights
from cardionets_core.evaluation.calibration import (
    LogisticFit,
    apply_platt,
    brier_score,
    calibration_sums,
    calibration_terms,
    expected_calibration_error,
    fit_logistic,
)
from cardionets_core.evaluation.comparison import (
    PairedDifference,
    holm,
    paired_difference,
    steiger_test,
    williams_test,
    wilson_interval,
)
from cardionets_core.evaluation.delong import (
    AurocDifference,
    DeLong,
    auroc_difference,
    auroc_interval,
    delong,
)
from cardionets_core.evaluation.frechet import feature_moments, frechet_distance
from cardionets_core.evaluation.histogram_replicates import (
    bootstrap_histograms,
    coarse_histograms,
    replicate_interval,
)
from cardionets_core.evaluation.histograms import (
    auprc,
    auprc_bounds,
    auroc,
    auroc_bound,
    score_histograms,
)
from cardionets_core.evaluation.images import (
    IMAGE_DEFINITION,
    case_psnr,
    case_ssim,
    image_metrics,
    image_sums,
)
from cardionets_core.evaluation.memorisation import (
    Latents,
    MemorisationVerdict,
    judge_memorisation,
    memorisation_sums,
)
from cardionets_core.evaluation.meta_analysis import RandomEffects, from_logit, logit_auroc, random_effects
from cardionets_core.evaluation.operating_points import (
    Confusion,
    confusion_at,
    nearest_edge,
    predictive_values,
    rates,
    threshold_at_sensitivity,
    threshold_at_specificity,
    threshold_of_youden,
)
from cardionets_core.evaluation.regression import (
    mean_absolute_error,
    measured_columns,
    pearson,
    r_squared,
    regression_sums,
    root_mean_square_error,
)
from cardionets_core.evaluation.retrieval import retrieval_metrics, retrieval_sums
from cardionets_core.evaluation.site_holdout import SiteRow, left_out_rows, site_rows
from cardionets_core.evaluation.subgroups import (
    AGE_GROUPS,
    SEX_GROUPS,
    age_groups,
    group_sums,
    sex_groups,
)
from cardionets_core.evaluation.sums import add_sums

__all__ = [
    "AGE_GROUPS",
    "IMAGE_DEFINITION",
    "SEX_GROUPS",
    "Attribution",
    "AurocDifference",
    "Confusion",
    "DeLong",
    "Latents",
    "LogisticFit",
    "MemorisationVerdict",
    "PairedDifference",
    "RandomEffects",
    "SiteRow",
    "add_sums",
    "age_groups",
    "apply_platt",
    "auprc",
    "auprc_bounds",
    "auroc",
    "auroc_bound",
    "auroc_difference",
    "auroc_interval",
    "bootstrap_histograms",
    "bootstrap_sums",
    "brier_score",
    "calibration_sums",
    "calibration_terms",
    "case_psnr",
    "case_ssim",
    "coarse_histograms",
    "confusion_at",
    "delong",
    "expected_calibration_error",
    "feature_moments",
    "fit_logistic",
    "frechet_distance",
    "from_logit",
    "group_sums",
    "holm",
    "image_metrics",
    "image_sums",
    "integrated_gradients",
    "judge_memorisation",
    "lead_time_map",
    "left_out_rows",
    "logit_auroc",
    "mean_absolute_error",
    "measured_columns",
    "memorisation_sums",
    "nearest_edge",
    "paired_difference",
    "pearson",
    "percentile_interval",
    "predictive_values",
    "r_squared",
    "random_effects",
    "rates",
    "regression_sums",
    "replicate_interval",
    "replicate_weights",
    "retrieval_metrics",
    "retrieval_sums",
    "root_mean_square_error",
    "score_histograms",
    "sex_groups",
    "similarity_map",
    "site_rows",
    "steiger_test",
    "threshold_at_sensitivity",
    "threshold_at_specificity",
    "threshold_of_youden",
    "williams_test",
    "wilson_interval",
]
