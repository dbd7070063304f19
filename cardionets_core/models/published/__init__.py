"""Published checkpoints that can be read into our modules: family to translator, origin and licence."""

from cardionets_core.models.published.family import Family
from cardionets_core.models.published.mae_vit import translate_mae_vit
from cardionets_core.models.published.mar import translate_mar
from cardionets_core.models.published.st_mem import translate_st_mem
from cardionets_core.models.published.translation import Translation

__all__ = ["PUBLISHED", "Family", "Translation"]

PUBLISHED: dict[str, Family] = {
    "st-mem": Family(
        translate=translate_st_mem,
        origin="ST-MEM, arXiv 2402.09450, github.com/bakqui/ST-MEM",
        code_licence="MIT",
    ),
    "mae-vit": Family(
        translate=translate_mae_vit,
        origin="masked autoencoder, arXiv 2111.06377, github.com/facebookresearch/mae, or a ViT of timm",
        code_licence="CC-BY-NC 4.0 (facebookresearch/mae)",
    ),
    "mar": Family(
        translate=translate_mar,
        origin="MAR, arXiv 2406.11838, github.com/LTH14/mar, or its form for cines by ECG",
        code_licence="MIT (LTH14/mar)",
    ),
}
