"""What is measured on drawn cines: known areas, a known mean cine, and the gain over it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from cardionets_core.data.cohort import empty_cohort
from cardionets_core.evaluation.images import case_ssim
from cardionets_core.tasks.shapes import shape_of
from simulation.generated import DrawnCases, measure_drawings, members_mean_cine
from simulation.lv_area import LvMeter

NANO = shape_of("nano")


class Bright(nn.Module):
    """A segmenter: the cavity is what is brighter than 0."""

    def forward(self, frame_B1YX: torch.Tensor) -> torch.Tensor:
        return 1e4 * frame_B1YX


METER = LvMeter(network=Bright(), pixel_mm2=2.0, agreement=1.0)


def hearts(sides: list[int]) -> torch.Tensor:
    """Squares of some sides in the first frame, of half the side in the others."""
    cine = torch.full((len(sides), NANO.cine_frames, NANO.cine_pixels, NANO.cine_pixels), -0.8)
    for row, side in enumerate(sides):
        cine[row, 0, :side, :side] = 0.6
        cine[row, 1:, : side // 2, : side // 2] = 0.6
    return cine


def cases_of(site: str, real: list[int], drawn: list[int], volume: list[float]) -> DrawnCases:
    made = {
        "drawn": hearts(drawn),
        "shuffled": hearts(drawn[::-1]),
        "unconditional": hearts([9] * len(drawn)),
    }
    return DrawnCases(site=site, real_RFYX=hearts(real), made=made, lvedv_ml=np.array(volume))


def test_areas_are_those_at_end_diastole_and_follow_the_hearts_of_all_sites():
    first = cases_of("a", [8, 12, 16], [9, 12, 15], [80.0, 144.0, np.nan])
    second = cases_of("b", [10, 20], [11, 19], [100.0, 400.0])
    found = measure_drawings(METER, [first, second], hearts([12]))
    assert found["n"] == 5
    areas = np.array([9, 12, 15, 11, 19]) ** 2.0
    real = np.array([8, 12, 16, 10, 20]) ** 2.0
    assert found["drawn"]["area_mm2"] == pytest.approx(2 * areas.mean())
    assert found["drawn"]["area_r"] == pytest.approx(np.corrcoef(areas, real)[0, 1])
    known = [0, 1, 3, 4]
    volume = np.array([80.0, 144.0, 100.0, 400.0])
    assert found["drawn"]["edv_r"] == pytest.approx(np.corrcoef(areas[known], volume)[0, 1])
    assert found["edv_r_real"] == pytest.approx(np.corrcoef(real[known], volume)[0, 1])
    assert found["shuffled"]["area_r"] < 0
    assert found["unconditional"]["area_r"] is None  # all alike


def test_the_gain_over_the_mean_cine_is_paired():
    real, drawn = [8, 12, 16], [8, 12, 16]
    mean = hearts([12])
    found = measure_drawings(METER, [cases_of("a", real, drawn, [1.0, 2.0, 3.0])], mean)
    of_mean = case_ssim(mean.expand(3, -1, -1, -1), hearts(real)).numpy()
    assert found["drawn"]["ssim"] == pytest.approx(1.0) and of_mean[1] == pytest.approx(1.0)
    assert found["mean_cine"]["ssim"] == pytest.approx(of_mean.mean()) and of_mean.mean() < 0.95
    assert found["mean_cine"]["gain"] == pytest.approx(1.0 - of_mean.mean())
    assert found["mean_cine"]["gain_se"] == pytest.approx(np.std(1 - of_mean, ddof=1) / np.sqrt(3))


def test_the_mean_cine_counts_each_training_cine_once_whatever_its_site():
    rng = np.random.default_rng(1)
    cohorts, kept = [], []
    for site, rows in (("a", 40), ("b", 3)):
        cines = rng.integers(0, 256, (rows, 50, 96, 96)).astype(np.uint8)
        split = np.zeros(rows, dtype=np.int8)
        split[-1] = 2  # a test patient's does not count
        index = np.arange(rows)
        nobody = empty_cohort(site=site, phenotypes=82)
        cohorts.append(
            replace(
                nobody,
                cines=cines,
                row_patient=index,
                row_split=split,
                row_ecg=index - rows - 1,
                row_cine=index,
                phenotypes=np.full((rows, 82), np.nan, dtype=np.float32),
                diseases=np.full((rows, nobody.diseases.shape[1]), np.nan, dtype=np.float32),
            )
        )
        batch = cohorts[-1].batch(index[:-1], keys=frozenset({"cine"}), shape=NANO, window=0)
        kept.append(batch.cine_BFYX.double())
    mean = members_mean_cine(cohorts, NANO)
    assert mean.shape == (1, NANO.cine_frames, NANO.cine_pixels, NANO.cine_pixels)
    torch.testing.assert_close(mean[0], torch.cat(kept).mean(dim=0).float())
    with pytest.raises(ValueError, match="no site"):
        members_mean_cine(cohorts[:0], NANO)
