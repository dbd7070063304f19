"""The simulated cine: the drawn masks give back the latent heart, and the picture shows the masks."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.ndimage import binary_dilation, binary_fill_holes, label
from scipy.stats import spearmanr

from simulation.anatomy import mass_g
from simulation.cine import LA, LV, MYO, RA, RV, draw_cine
from simulation.hearts import Heart, draw_heart
from simulation.machines import Scanner
from simulation.phenotypes import measure, with_gaps

MIX = {"cad": 0.12, "cm": 0.25, "hf": 0.15, "ph": 0.15, "pc": 0.03}
SCANNERS = (
    Scanner(frames=20),
    Scanner(spacing_mm=1.5, pixels=128, frames=22),
    Scanner(spacing_mm=2.1, pixels=96, frames=24),
)


@pytest.fixture(scope="module")
def drawn() -> list[tuple[Heart, object, dict[int, float]]]:
    found = []
    for index in range(60):
        rng = np.random.default_rng([3, index])
        heart = draw_heart(rng, prevalence=MIX)
        cine = draw_cine(heart, SCANNERS[index % 3], rng)
        found.append((heart, cine, measure(cine, heart_rate_bpm=heart.heart_rate_bpm)))
    return found


def test_volumes_of_the_masks_are_those_of_the_heart(drawn):
    for heart, _, values in drawn:
        assert values[24100] == pytest.approx(heart.lv_end_diastolic_ml, rel=0.08)
        assert values[24103] / 100 == pytest.approx(heart.ejection_fraction, abs=0.03)
        assert values[24105] == pytest.approx(mass_g(heart), rel=0.10)
        assert values[24106] == pytest.approx(heart.rv_end_diastolic_ml, rel=0.08)
        assert values[24109] / 100 == pytest.approx(heart.rv_ejection_fraction, abs=0.04)
        assert values[24110] == pytest.approx(heart.la_max_ml, rel=0.08)
        assert values[24114] == pytest.approx(heart.ra_max_ml, rel=0.08)
        assert values[24140] == pytest.approx(heart.wall_thickness_mm, rel=0.10)


def test_phenotypes_follow_the_latent_heart(drawn):
    latents = {
        24100: lambda heart: heart.lv_end_diastolic_ml,
        24103: lambda heart: heart.ejection_fraction,
        24109: lambda heart: heart.rv_ejection_fraction,
        24113: lambda heart: heart.la_emptying_fraction,
        24140: lambda heart: heart.wall_thickness_mm,
        24181: lambda heart: -heart.ejection_fraction,
    }
    for field, latent in latents.items():
        correlation = spearmanr(
            [values[field] for *_, values in drawn], [latent(heart) for heart, *_ in drawn]
        )
        assert correlation.statistic > 0.95, field


def test_derived_fields_follow_from_the_others(drawn):
    for heart, _, values in drawn:
        assert values[24102] == pytest.approx(values[24100] - values[24101])
        assert values[24104] == pytest.approx(values[24102] * heart.heart_rate_bpm / 1000)
        assert values[24111] < values[24110]
        assert -35 < values[24181] < 0
        assert set(values) <= set(range(24100, 24182))


def test_each_label_is_one_piece_and_muscle_encloses_the_ventricle(drawn):
    for _, cine, _ in drawn[:12]:
        for frame in cine.masks[::6]:
            assert set(np.unique(frame)) == {0, LV, MYO, RV, LA, RA}
            for value in (LV, MYO, LA, RA):
                assert label(frame == value, np.ones((3, 3)))[1] == 1, value
            # From the apex to the valve's plane only muscle touches the cavity.
            rim = binary_dilation(frame == LV) & (frame != LV)
            along = np.add.outer(
                cine.axis_yx[0] * np.arange(len(frame)), cine.axis_yx[1] * np.arange(len(frame))
            )
            base = along[frame == LV].min()
            assert (frame[rim & (along > base + 1.5)] == MYO).all()
            assert (frame == LV).sum() > 100
            assert (binary_fill_holes(frame == LV) == (frame == LV)).all()


def test_the_ventricle_empties_while_the_atria_fill_and_the_plane_descends(drawn):
    for heart, cine, _ in drawn[:12]:
        lv, la = ((cine.masks == value).sum(axis=(1, 2)) for value in (LV, LA))
        smallest = int(lv.argmin())
        assert lv.argmax() in (0, len(lv) - 1)
        assert 0.2 * len(lv) < smallest < 0.62 * len(lv), heart.heart_rate_bpm
        assert la[smallest] > 0.97 * la.max()


def test_the_heart_lies_inside_the_image(drawn):
    for _, cine, _ in drawn:
        inside = cine.masks > 0
        assert inside[:, 2:-2, 2:-2].sum() == inside.sum()


def test_blood_is_bright_muscle_grey_and_lung_dark(drawn):
    for _, cine, _ in drawn[:12]:
        pixels = cine.stack.pixels
        assert pixels.shape == cine.masks.shape
        assert pixels.dtype == np.float32
        assert (pixels == np.rint(pixels)).all()
        assert pixels.min() >= 0
        assert pixels.max() <= 4095
        blood, muscle = pixels[cine.masks == LV].mean(), pixels[cine.masks == MYO].mean()
        assert blood > 1.7 * muscle
        assert np.percentile(pixels, 5) < 0.5 * muscle


def test_frames_and_time_are_the_scanners():
    heart = draw_heart(np.random.default_rng(1), prevalence={})
    stack = draw_cine(heart, Scanner(frames=30, spacing_mm=1.5, pixels=120), np.random.default_rng(2)).stack
    assert stack.pixels.shape == (30, 120, 120)
    assert stack.spacing_mm == (1.5, 1.5)
    assert stack.frame_ms == pytest.approx(60_000 / heart.heart_rate_bpm / 30, abs=1e-3)


def test_some_values_are_missing():
    full = dict.fromkeys(range(24100, 24182), 1.0)
    kept = [len(with_gaps(full, np.random.default_rng(seed))) for seed in range(50)]
    assert 0.94 < np.mean(kept) / 82 < 0.995
