"""The cine's way to 50 x 96 x 96 bytes: geometry, time, intensity, refusals."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from cardionets_core.data.cine import SPACING_MM, prepare_cine, resample_time, window_weights
from cardionets_core.data.cine_phases import pool_mm2, smooth_cycle, with_phases
from cardionets_core.data.records import CineStack
from cardionets_core.errors import RecordRefused


def beating(*, frames: int = 50, rows: int = 160, columns: int = 140, spacing_mm: float = SPACING_MM,
            centre_mm: tuple[float, float] = (150.0, 130.0)) -> CineStack:  # fmt: skip
    """A disc whose radius goes from 20 to 30 mm and back; brightness 100 on 10."""
    y = (np.arange(rows)[:, None] + 0.5) * spacing_mm - centre_mm[0]
    x = (np.arange(columns)[None, :] + 0.5) * spacing_mm - centre_mm[1]
    radius = 25 - 5 * np.cos(2 * np.pi * np.arange(frames) / frames)
    inside = np.clip(radius[:, None, None] - np.hypot(y, x), -1, 1) / 2 + 0.5
    return CineStack(pixels=(10 + 90 * inside).astype(np.float32), spacing_mm=(spacing_mm, spacing_mm))


def area_mm2(cine: np.ndarray) -> np.ndarray:
    return (cine / 255.0).sum(axis=(1, 2)) * SPACING_MM**2


def test_native_spacing_and_length_only_crop_and_scale() -> None:
    stack = beating()
    cine = prepare_cine(stack).pixels
    assert cine.shape == (50, 96, 96) and cine.dtype == np.uint8
    weights, inside = window_weights(160, spacing_mm=SPACING_MM, centre=80.0)
    assert inside.all()
    dense = weights.toarray()
    assert set(np.unique(dense).tolist()) <= {0.0, 1.0} and (dense.sum(axis=1) == 1).all()
    low, high = 10.0, 100.0
    rows = slice(*np.flatnonzero(dense.any(axis=0))[[0, -1]])
    assert rows.stop - rows.start == 95
    found = {int(cine[0].min()), int(cine[0].max())}
    assert found == {0, 255} and (low, high) == (stack.pixels.min(), stack.pixels.max())


@pytest.mark.parametrize("spacing_mm", [0.9, 1.4, 2.4])
@pytest.mark.parametrize("frames", [20, 25, 50, 60])
def test_size_of_a_heart_does_not_depend_on_spacing_or_frame_count(spacing_mm: float, frames: int) -> None:
    size = round(290 / spacing_mm)
    stack = beating(frames=frames, rows=size, columns=size, spacing_mm=spacing_mm)
    expected = area_mm2(prepare_cine(beating()).pixels)
    np.testing.assert_allclose(area_mm2(prepare_cine(stack).pixels), expected, rtol=0.03)


def test_the_window_follows_what_moves() -> None:
    for centre in ((110.0, 100.0), (170.0, 150.0)):
        cine = prepare_cine(beating(centre_mm=centre)).pixels.astype(float)
        moving = cine.std(axis=0)
        place = [float((moving.sum(axis=1 - axis) * np.arange(96)).sum() / moving.sum()) for axis in (0, 1)]
        assert place == pytest.approx([47.5, 47.5], abs=1.0)


def test_the_window_stays_inside_and_small_images_are_padded() -> None:
    assert window_weights(200, spacing_mm=SPACING_MM, centre=0.0)[0].toarray()[0, 0] == 1
    assert window_weights(200, spacing_mm=SPACING_MM, centre=199.0)[0].toarray()[95, 199] == 1
    weights, inside = window_weights(60, spacing_mm=SPACING_MM, centre=10.0)
    assert inside.sum() == 60 and inside[18] and not inside[17] and weights.toarray()[18, 0] == 1
    small = beating(rows=60, columns=60, centre_mm=(55.0, 55.0))
    cine = prepare_cine(small).pixels
    assert (cine[:, :18] == 0).all() and (cine[:, :, 78:] == 0).all() and cine[:, 18:78, 18:78].max() == 255


def test_shrinking_averages_instead_of_skipping() -> None:
    weights, _ = window_weights(1000, spacing_mm=SPACING_MM / 4, centre=500.0)
    dense = weights.toarray()
    np.testing.assert_allclose(dense.sum(axis=1), 1, rtol=1e-5)
    alternating = np.tile([1.0, -1.0], 500)
    assert np.abs(dense @ alternating).max() < 0.1


def test_time_is_cyclic() -> None:
    window = np.arange(25, dtype=np.float32)[:, None, None]
    resampled = resample_time(window)[:, 0, 0]
    np.testing.assert_allclose(resampled[::2], np.arange(25))
    assert resampled[1] == 0.5 and resampled[49] == 12.0  # between the last frame (24) and the first (0)


@pytest.mark.parametrize(("stack", "reason"), [
    (beating(frames=19), "cine-frames"),
    (beating(frames=61), "cine-frames"),
    (CineStack(pixels=beating().pixels, spacing_mm=(0.0, 1.8)), "cine-spacing"),
    (CineStack(pixels=beating().pixels, spacing_mm=(float("nan"), 1.8)), "cine-spacing"),
    (CineStack(pixels=beating().pixels[:, :9], spacing_mm=(1.8, 1.8)), "cine-spacing"),
    (CineStack(pixels=np.full((50, 90, 90), np.nan, np.float32), spacing_mm=(1.8, 1.8)), "cine-unreadable"),
    (CineStack(pixels=np.full((50, 90, 90), 7.0, np.float32), spacing_mm=(1.8, 1.8)), "cine-flat"),
    (CineStack(pixels=np.zeros((50, 90, 90), np.float32), spacing_mm=(1.8, 1.8)), "cine-flat"),
])  # fmt: skip
def test_refusals(stack: CineStack, reason: str) -> None:
    with pytest.raises(RecordRefused) as caught:
        prepare_cine(stack)
    assert caught.value.reason == reason


def test_a_stack_gives_its_middle_slice_and_facts_of_the_file() -> None:
    one = beating(frames=25)
    other = np.roll(one.pixels, 7, axis=2)
    slices = np.stack([other, one.pixels, other[::-1]], axis=1)
    stack = replace(one, pixels=slices, slice_spacing_mm=8.0, frame_ms=40.0, flags=frozenset({"slice-gap"}))
    done = prepare_cine(stack)
    np.testing.assert_array_equal(done.pixels, prepare_cine(one).pixels)
    assert done.flags == {"slice-gap", "centre-by-motion"}
    told = {"frames": 25, "slices": 3, "slice": 1, "slice_mm": 8.0, "frame_ms": 40.0, "scale": 1.0}
    assert {name: done.facts[name] for name in told} == told
    assert (done.facts["row_mm"], done.facts["column_mm"]) == one.spacing_mm
    assert "frame_ms" not in prepare_cine(one).facts and "slice" not in prepare_cine(one).facts


@pytest.mark.parametrize(("frames", "start"), [(20, 0), (25, 3), (50, 44), (60, 31)])
def test_phases_are_found_wherever_the_cycle_begins(frames: int, start: int) -> None:
    turn = np.roll(beating(frames=frames).pixels, start, axis=0)
    stack = with_phases(CineStack(pixels=turn, spacing_mm=(SPACING_MM, SPACING_MM)))
    assert stack.ed_frame is not None and stack.phase_source == "heuristic"
    assert stack.es_frame == start
    # The disc is largest half a cycle later; ED is the last frame before it shrinks by a tenth of its change.
    area = pool_mm2(turn, spacing_mm=(SPACING_MM, SPACING_MM))
    assert smooth_cycle(area).argmax() == pytest.approx((start + frames // 2) % frames, abs=1)
    late = (stack.ed_frame - start - frames // 2) % frames
    assert 0 <= late <= 0.12 * frames
    facts = prepare_cine(stack).facts
    assert facts["es_frame_50"] == round(start * 50 / frames) % 50 and facts["phase_source"] == "heuristic"


def test_the_pool_is_the_area_of_bright_blood() -> None:
    stack = beating(frames=20, spacing_mm=1.2, rows=200, columns=200, centre_mm=(120.0, 120.0))
    radius = 25 - 5 * np.cos(2 * np.pi * np.arange(20) / 20)
    found = pool_mm2(stack.pixels, spacing_mm=stack.spacing_mm)
    np.testing.assert_allclose(found, np.pi * radius**2, rtol=0.02)
    np.testing.assert_allclose(smooth_cycle(found).mean(), found.mean())


def test_given_phases_stay_and_stills_have_none() -> None:
    stack = beating()
    given = replace(stack, ed_frame=7, es_frame=3, phase_source="given")
    assert with_phases(given) is given
    facts = prepare_cine(given).facts
    assert (facts["ed_frame"], facts["es_frame"], facts["phase_source"]) == (7, 3, "given")
    still = CineStack(pixels=np.repeat(stack.pixels[:1], 20, axis=0), spacing_mm=stack.spacing_mm)
    assert with_phases(still).ed_frame is None
    assert with_phases(CineStack(pixels=stack.pixels[:2], spacing_mm=stack.spacing_mm)).ed_frame is None
