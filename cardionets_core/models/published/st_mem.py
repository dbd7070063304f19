"""ST-MEM checkpoints as our ``ecg_encoder`` (arXiv 2402.09450).

Two forms are published: the encoder alone, and the whole masked autoencoder, in which the encoder's names
stand behind ``encoder.`` and the patch embedding is listed a second time. Leads are in the order I II III aVR
aVL aVF V1 to V6, as here.
"""

from __future__ import annotations

from cardionets_core.models.presets import LEADS, get_preset
from cardionets_core.models.published.translation import (
    Named,
    Recipe,
    Source,
    Translation,
    module_shapes,
    require_part,
    translate,
    unwrap,
)

MODULE = "ecg_encoder"
WHOLE = "encoder."
DECODER = "belongs to the decoder of the pretraining"
SPARE = {"head.": "the head of the publisher's task"}
SPARE_WHOLE = {
    "to_patch_embedding.": "the same tensor as under encoder.",
    "to_decoder_embedding.": DECODER,
    "mask_embedding": DECODER,
    "decoder_": DECODER,
    "encoder.head.": SPARE["head."],
}
BLOCK = {
    "norm_attention": "attn.norm",
    "attention.qkv": "attn.fn.to_qkv",
    "attention.out": "attn.fn.to_out.0",
    "norm_mlp": "ff.norm",
    "mlp.0": "ff.fn.net.0",
    "mlp.2": "ff.fn.net.3",
}


def translate_st_mem(tensors: Named, *, preset: str, adapt: bool = False) -> Translation:
    """Read an ST-MEM encoder.

    Args:
        tensors: a state dict, of the encoder or of the whole autoencoder.
        preset: its sizes; the heads cannot be told from the shapes and are the preset's.
        adapt: changes nothing here: an ECG encoder fits or is refused.

    Raises:
        CheckpointError: tensors are absent, unknown, of another shape, not floats or not finite.
        UnknownNameError: there is no such preset.
    """
    require_part(preset, "ecg_encoder", name="st-mem")
    named = unwrap(tensors)
    whole = any(key.startswith(WHOLE) for key in named)
    front = WHOLE if whole else ""
    plain = {
        "embed.0": "to_patch_embedding.1",
        "embed.1": "to_patch_embedding.2",
        "embed.2": "to_patch_embedding.3",
        "norm": "norm",
    }
    for index in range(get_preset(preset).ecg_encoder.depth):
        plain |= {f"blocks.{index}.{ours}": f"block{index}.{theirs}" for ours, theirs in BLOCK.items()}
    sources = {
        f"{ours}.{part}": Source(keys=(f"{front}{theirs}.{part}",))
        for ours, theirs in plain.items()
        for part in ("weight", "bias")
    }
    sources["position"] = Source(keys=(f"{front}pos_embedding",), ones=1)
    sources["separator"] = Source(keys=(f"{front}sep_embedding",))
    sources["lead"] = Source(
        keys=tuple(f"{front}lead_embeddings.{lead}" for lead in range(LEADS)), stacked=True
    )
    return translate(
        named,
        Recipe(
            shapes=module_shapes((MODULE,), preset=preset),
            sources={MODULE: sources},
            spare=SPARE_WHOLE if whole else SPARE,
        ),
    )
