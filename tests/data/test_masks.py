"""Segmentations: label maps, enclosure, volumes, phases; and the plane and window that follow from them."""

from __future__ import annotations

import numpy as np
import pytest

from cardionets_core.data.cine import FRAMES, PIXELS, SPACING_MM, prepare_cine
from cardionets_core.data.cine_plane import DILATION_MM, choose_slice, heart_box, place_window
from cardionets_core.data.masks import (
    LABEL_MAPS,
    LV,
    MYO,
    RV,
    ejection_fraction,
    house_labels,
    phases_of_mask,
    ventricle_volumes,
)
from cardionets_core.data.records import CineStack
from cardionets_core.errors import RecordRefused


def heart(
    rows: int = 60, columns: int = 50, *, at: tuple[int, int] = (30, 20), radius: int = 8
) -> np.ndarray:
    """[Y, X]: a ring of muscle around the left ventricle, the right one beside it."""
    distance = np.hypot(np.arange(rows)[:, None] - at[0], np.arange(columns) - at[1])
    aside = np.hypot(np.arange(rows)[:, None] - at[0], np.arange(columns) - at[1] - radius - 4)
    mask = np.zeros((rows, columns), np.uint8)
    mask[aside < radius] = RV
    mask[distance < radius + 3] = MYO
    mask[distance < radius] = LV
    return mask


def test_label_maps_meet_in_the_house() -> None:
    truth = heart()
    for name, labels in LABEL_MAPS.items():
        written = np.zeros_like(truth)
        for label, meaning in labels.items():
            written[truth == meaning] = label
        np.testing.assert_array_equal(house_labels(written, label_map=name), truth)
        other = "ukb" if name == "acdc" else "acdc"
        with pytest.raises(RecordRefused) as caught:
            house_labels(written, label_map=other)
        assert caught.value.reason == "cine-mask"
    with_atria = truth.copy()
    with_atria[:3] = 5
    np.testing.assert_array_equal(house_labels(with_atria, label_map="ukb"), truth)
    assert not house_labels(np.zeros((2, 4, 4)), label_map="ukb").any()


def test_volumes_are_voxels_times_their_size() -> None:
    mask = np.stack([heart(), heart(radius=5)])
    found = ventricle_volumes(mask, spacing_mm=(2.0, 1.5), slice_spacing_mm=10.0)
    assert found.lv_ml == pytest.approx((mask == LV).sum() * 0.03)
    assert found.rv_ml == pytest.approx((mask == RV).sum() * 0.03)
    assert found.muscle_g == pytest.approx((mask == MYO).sum() * 0.03 * 1.05)
    assert ejection_fraction(120.0, 48.0) == pytest.approx(60.0)
    assert np.isnan(ejection_fraction(0.0, 0.0))


def test_phases_are_the_largest_and_smallest_segmented_frame() -> None:
    frames = np.zeros((6, 2, 60, 50), np.uint8)
    for frame, radius in ((1, 9), (3, 5), (4, 7)):
        frames[frame] = heart(radius=radius)
    assert phases_of_mask(frames) == (1, 3)
    assert phases_of_mask(frames[:2]) is None and phases_of_mask(frames[[1, 1]]) is None


def test_the_box_is_that_of_the_dilated_heart_and_crumbs_do_not_count() -> None:
    mask = np.zeros((3, 60, 50), np.uint8)
    mask[0], mask[2] = heart(), heart(radius=6)
    rows, columns = np.flatnonzero(mask[0].any(axis=1)), np.flatnonzero(mask[0].any(axis=0))
    mask[0, 2, 48] = RV  # a crumb
    reach = round(DILATION_MM / 1.25)
    box = heart_box(mask, spacing_mm=(1.25, 1.25))
    assert box == (rows[0] - reach, rows[-1] + 1 + reach, columns[0] - reach, columns[-1] + 1 + reach)
    assert heart_box(mask[1:2], spacing_mm=(1.0, 1.0)) is None


def test_the_slice_is_that_with_most_right_ventricle_at_end_systole() -> None:
    pixels = np.random.default_rng(0).random((20, 4, 60, 50), np.float32)
    mask = np.zeros((20, 4, 60, 50), np.uint8)
    mask[0, 3], mask[7, 1], mask[7, 2] = heart(radius=9), heart(radius=6), heart(radius=4)
    stack = CineStack(pixels=pixels, spacing_mm=(2.5, 2.5), mask=mask, es_frame=7, ed_frame=0)
    assert choose_slice(stack) == 1
    assert choose_slice(CineStack(pixels=pixels, spacing_mm=(2.5, 2.5), mask=mask, es_frame=5)) == 3
    assert choose_slice(CineStack(pixels=pixels, spacing_mm=(2.5, 2.5), mask=mask * 0)) == 2
    assert choose_slice(CineStack(pixels=pixels, spacing_mm=(2.5, 2.5))) == 2


def test_a_masked_stack_is_prepared_around_its_heart() -> None:
    rows = columns = 160
    mask = np.zeros((25, 3, rows, columns), np.uint8)
    mask[:, 1] = heart(rows, columns, at=(100, 60), radius=12)
    pixels = np.random.default_rng(0).normal(50, 5, mask.shape).astype(np.float32) + 100 * (mask == LV)
    stack = CineStack(pixels=pixels, spacing_mm=(SPACING_MM, SPACING_MM), slice_spacing_mm=8.0, frame_ms=36.0,
                      view="sax", mask=mask, ed_frame=0, es_frame=10, phase_source="given")  # fmt: skip
    done = prepare_cine(stack)
    assert done.pixels.shape == (FRAMES, PIXELS, PIXELS) and done.flags == frozenset()
    assert {name: done.facts[name] for name in ("slices", "slice", "slice_mm", "frame_ms", "scale")} == {
        "slices": 3, "slice": 1, "slice_mm": 8.0, "frame_ms": 36.0, "scale": 1.0,
    }  # fmt: skip
    assert (done.facts["ed_frame_50"], done.facts["es_frame_50"], done.facts["phase_source"]) == (
        0,
        20,
        "given",
    )
    # The box reaches from 15 left of the ventricle's middle to 27 right of it, and 15 up and down.
    bright = np.argwhere(done.pixels.mean(axis=0) > 160)
    assert bright.mean(axis=0) == pytest.approx([47.5, 47.5 - 6.5], abs=1.0)


def test_a_heart_larger_than_the_window_is_shrunk_and_the_factor_told() -> None:
    rows = columns = 200
    mask = np.zeros((20, rows, columns), np.uint8)
    mask[:, 20:180, 60:100] = MYO
    mask[:, 24:176, 64:96] = LV
    rng = np.random.default_rng(0)
    pixels = (rng.normal(50, 5, mask.shape) + 100 * (mask == LV)).astype(np.float32)
    spacing = (1.5, 1.5)
    window = place_window(pixels, mask, spacing_mm=spacing, field_mm=PIXELS * SPACING_MM)
    reach = round(DILATION_MM / 1.5)
    assert window.scale == pytest.approx((160 + 2 * reach) * 1.5 / (PIXELS * SPACING_MM))
    done = prepare_cine(CineStack(pixels=pixels, spacing_mm=spacing, mask=mask))
    assert done.facts["scale"] == pytest.approx(window.scale)
    tall = np.flatnonzero((done.pixels.mean(axis=0) > 128).any(axis=1))
    assert len(tall) == pytest.approx(152 * 1.5 / (SPACING_MM * window.scale), abs=1.5)
