"""The cine's way to 50 x 96 x 96 bytes: geometry, time, intensity, refusals."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from cardionets_core.data.cine import SPACING_MM, prepare_cine, resample_time, window_weights
from cardionets_core.data.cine_phases import pool_mm2, smooth_cycle, with_phases
from cardionets_core.data.cine_plane import DILATION_MM
from cardionets_core.data.records import CineStack, View
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


def square_heart(
    *, rows: int, columns: int, at: tuple[int, int], side: int = 40, masked: bool = True
) -> CineStack:
    """A stack of three slices at the native spacing with a mask, whose every pixel tells its own place."""
    places = np.random.default_rng(0).uniform(100, 1000, (rows, columns)).astype(np.float32)
    pixels = np.repeat(places[None, None], 20, axis=0).repeat(3, axis=1)
    pixels[:, 1, at[0] - 5 : at[0] + 5, at[1] - 5 : at[1] + 5] += np.arange(20, dtype=np.float32)[
        :, None, None
    ]
    mask = np.zeros(pixels.shape, np.uint8)
    mask[:, 1, at[0] - side // 2 : at[0] + side // 2, at[1] - side // 2 : at[1] + side // 2] = 1
    return CineStack(pixels=pixels, spacing_mm=(SPACING_MM, SPACING_MM), slice_spacing_mm=10.0, view="sax",
                     mask=mask if masked else None)  # fmt: skip


@pytest.mark.parametrize("at, start", [
    ((70, 90), (30, 50)),  # off the centre of the image, the window inside it
    ((20, 30), (0, 0)),  # near the upper left corner: the window is moved inside
    ((100, 150), (40, 80)),  # near the lower right one
])  # fmt: skip
@pytest.mark.parametrize("masked", [True, False])
def test_the_middle_of_a_kept_short_axis_is_its_own_window(
    at: tuple[int, int], start: tuple[int, int], masked: bool
) -> None:
    stack = square_heart(rows=120, columns=160, at=at, masked=masked)
    kept = prepare_cine(stack).pixels[0].astype(float)
    plane = np.pad(stack.pixels[0, 1], 8, constant_values=np.nan)
    around = plane[start[0] : start[0] + 96, start[1] : start[1] + 96]
    low, high = np.percentile(
        stack.pixels[:, 1, start[0] : start[0] + 80, start[1] : start[1] + 80], (0.5, 99.5)
    )
    # The middle alone sets the scale; the rim shows the image, and nothing where there is none.
    scaled = np.clip((around - low) * 255 / (high - low), 0, 255)
    np.testing.assert_allclose(kept, np.nan_to_num(scaled), atol=0.8)
    assert (kept[:8].any(), kept[-8:].any()) == (start[0] > 0, start[0] < 40)


def test_a_short_axis_in_a_small_image_is_padded_around_its_window() -> None:
    kept = prepare_cine(square_heart(rows=60, columns=86, at=(30, 43))).pixels
    inside = np.zeros((96, 96), bool)
    inside[18:78, 5:91] = True
    assert not kept[:, ~inside].any() and (kept[:, inside] > 0).mean() > 0.98
    # A window of 80 of the 86 columns: 3 more on either side are seen in the rim.
    assert kept[:, 18:78, 88:91].mean() > 80 and kept[:, 18:78, 5:8].mean() > 80


@pytest.mark.parametrize("view, pixels", [("sax", 80), ("4ch", 96)])
def test_a_heart_larger_than_its_views_window_is_shrunk_into_it(view: View, pixels: int) -> None:
    stack = replace(square_heart(rows=160, columns=160, at=(80, 80), side=110), view=view)
    bright = stack.pixels * 0 + 10 + 90 * (stack.mask == 1)
    bright[:, 1, 75:85, 75:85] += np.arange(20, dtype=np.float32)[:, None, None]
    done = prepare_cine(replace(stack, pixels=bright))
    margin = 2 * round(DILATION_MM / SPACING_MM)
    assert done.facts["scale"] == pytest.approx((110 + margin) / pixels)
    tall = np.flatnonzero((done.pixels[0] > 100).any(axis=1))
    assert len(tall) == pytest.approx(110 * pixels / (110 + margin), abs=1.5)
    assert tall.mean() == pytest.approx(47.5, abs=0.6)


def test_a_short_axis_without_contrast_in_its_window_is_refused() -> None:
    stack = square_heart(rows=160, columns=160, at=(80, 80))
    flat = np.full_like(stack.pixels, 7.0)
    flat[:, :, :39] = 90.0  # only the rim shows any
    with pytest.raises(RecordRefused) as caught:
        prepare_cine(replace(stack, pixels=flat))
    assert caught.value.reason == "cine-flat"
    assert prepare_cine(replace(stack, pixels=flat, view="4ch")).pixels.max() == 255
