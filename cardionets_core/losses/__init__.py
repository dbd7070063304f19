"""Losses: tensors in, a scalar or one value a row out."""

from cardionets_core.losses.contrastive import bank_info_nce, info_nce
from cardionets_core.losses.cosine import cosine_distillation, masked_smooth_l1
from cardionets_core.losses.dcco import (
    Moments,
    batch_moments,
    cross_correlation,
    dcco_loss,
    pool_moments,
    share_moments,
)
from cardionets_core.losses.diffusion import (
    DiffusionProcess,
    cosine_process,
    diffusion_loss,
    draw_diffusion,
)
from cardionets_core.losses.moon import moon
from cardionets_core.losses.reconstruction import masked_correlation, masked_squared_error
from cardionets_core.losses.sigmoid import sigmoid_loss
from cardionets_core.losses.supervised import disease_loss, phenotype_loss, subtype_loss
from cardionets_core.losses.tokenizer import (
    adaptive_weight,
    discriminator_hinge,
    generator_hinge,
    tokenizer_loss,
)
from cardionets_core.losses.weighted_info_nce import (
    bank_weighted_info_nce,
    distance_weights,
    weighted_info_nce,
)

__all__ = [
    "DiffusionProcess",
    "Moments",
    "adaptive_weight",
    "bank_info_nce",
    "bank_weighted_info_nce",
    "batch_moments",
    "cosine_distillation",
    "cosine_process",
    "cross_correlation",
    "dcco_loss",
    "diffusion_loss",
    "discriminator_hinge",
    "disease_loss",
    "distance_weights",
    "draw_diffusion",
    "generator_hinge",
    "info_nce",
    "masked_correlation",
    "masked_smooth_l1",
    "masked_squared_error",
    "moon",
    "phenotype_loss",
    "pool_moments",
    "share_moments",
    "sigmoid_loss",
    "subtype_loss",
    "tokenizer_loss",
    "weighted_info_nce",
]
