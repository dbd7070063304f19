"""Evaluation: metrics and their intervals from sums that may be added over sites."""

from cardionets_core.evaluation.bootstrap import bootstrap_sums, percentile_interval, replicate_weights
from cardionets_core.evaluation.regression import (
    mean_absolute_error,
    measured_columns,
    pearson,
    r_squared,
    regression_sums,
    root_mean_square_error,
)
from cardionets_core.evaluation.sums import add_sums

__all__ = [
    "add_sums",
    "bootstrap_sums",
    "mean_absolute_error",
    "measured_columns",
    "pearson",
    "percentile_interval",
    "r_squared",
    "regression_sums",
    "replicate_weights",
    "root_mean_square_error",
]
