"""Losses: tensors in, a scalar or one value a row out."""

from cardionets_core.losses.contrastive import bank_info_nce, info_nce
from cardionets_core.losses.reconstruction import masked_correlation, masked_squared_error

__all__ = ["bank_info_nce", "info_nce", "masked_correlation", "masked_squared_error"]
