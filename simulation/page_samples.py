"""Makes the invented hearts of the study page: ``python -m simulation.page_samples``.

Comes in: nothing but a seed that stands here. Goes out: a few hearts with an ECG and a cine each, prepared as
a site prepares its recordings. The command writes the file anew; a test holds it to what is drawn here.
"""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import numpy as np

from cardionets_core.data.cine import prepare_cine
from cardionets_core.data.cohort import ECG_RATE_HZ
from cardionets_core.data.pack import ECG_COUNTS_PER_MV
from cardionets_core.data.quality import check_ecg
from cardionets_core.durable import write_whole
from server.page.samples import FILE, Samples
from simulation.cine import draw_cine
from simulation.electrocardiogram import draw_ecg
from simulation.hearts import Heart, draw_heart
from simulation.machines import Cart, Scanner

SEED = 20
SECONDS = 10.0
FRAMES = 25
KINDS: dict[str, tuple[str, str | None]] = {
    "healthy": ("", None),
    "dilated": ("cm", "dcm"),
    "hypertrophic": ("cm", "hcm"),
    "right heart under pressure": ("ph", None),
}
"""Name of a sample to the disease and subtype of its heart."""
CART = Cart(noise_mv=0.004, muscle_mv=0.008, mains_mv=0.002, wander_mv=0.05, placement_degrees=0.0)
SCANNER = Scanner(spacing_mm=1.83, pixels=112, frames=50, noise=0.015, bias=0.15)


def make_samples() -> Samples:
    """Draw them; equal each time."""
    words, ecgs, cines = [], [], []
    for number, (disease, subtype) in enumerate(KINDS.values()):
        rng = np.random.default_rng([SEED, number])
        heart = _heart(disease, subtype, rng)
        record = draw_ecg(heart, CART, rng, seconds=SECONDS)
        counts = np.rint(check_ecg(record).signal_mv * ECG_COUNTS_PER_MV).astype(np.int16)
        ecgs.append(counts[:, : int(SECONDS * ECG_RATE_HZ)])
        packed = prepare_cine(draw_cine(heart, SCANNER, rng).stack).pixels
        cines.append(packed[:: len(packed) // FRAMES][:FRAMES])
        words.append(
            f"left ventricle {heart.lv_end_diastolic_ml:.0f} ml at its fullest, "
            f"ejects {100 * heart.ejection_fraction:.0f} %"
        )
    return Samples(names=list(KINDS), words=words, ecg_HLT=np.stack(ecgs), cines_HFYX=np.stack(cines))


def packed_samples(samples: Samples) -> bytes:
    """The file; equal samples give equal bytes where zlib is the same."""
    arrays = {
        "names": np.array(samples.names),
        "words": np.array(samples.words),
        "ecg": samples.ecg_HLT,
        "cines": samples.cines_HFYX,
    }
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as file:
        for name, array in arrays.items():
            held = io.BytesIO()
            np.lib.format.write_array(held, np.ascontiguousarray(array), allow_pickle=False)
            entry = zipfile.ZipInfo(f"{name}.npy", date_time=(1980, 1, 1, 0, 0, 0))
            file.writestr(entry, held.getvalue(), zipfile.ZIP_DEFLATED, 9)
    return content.getvalue()


def _heart(disease: str, subtype: str | None, rng: np.random.Generator) -> Heart:
    """The first heart that is drawn with this disease alone."""
    while True:
        heart = draw_heart(rng, prevalence={disease: 0.9} if disease else {})
        if heart.diseases == frozenset({disease} - {""}) and heart.subtype == subtype:
            return heart


def main() -> None:
    """Write the file into the room that shows it."""
    import server.page

    path = Path(server.page.__file__).with_name(FILE)
    content = packed_samples(make_samples())
    write_whole(path, content)
    print(f"{path}: {len(content)} bytes")  # noqa: T201


if __name__ == "__main__":
    main()
