"""Drawn cines say that they are synthetic, in every frame and every file; equal seeds draw equal cines."""

from __future__ import annotations

import gzip
import io
import json

import nibabel
import numpy as np
import pytest
import torch
from PIL import Image

from cardionets_core.config.study import Study
from cardionets_core.data.synthetic_mark import LEAST_PX, ORIGIN, mark_cine
from cardionets_core.prediction.predictor import open_predictor
from cardionets_core.tasks.drawing import draw_cines, drawing_settings
from cardionets_core.training.model_folder import read_model_folder
from client.predict.cine import SyntheticCine, cine_files, draw_cine

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def drawn(predictor):
    counts = np.random.default_rng(1).normal(0, 300, (12, 2500)).astype(np.int16)
    return counts, draw_cine(predictor, predictor.condition(counts), seed=5)


def test_the_cine_is_that_of_the_projected_mean_feature(drawn, predictor):
    counts, cine = drawn
    with torch.no_grad():
        condition = predictor.modules["ecg_projection"](predictor.feature(counts))
    expected = draw_cines(
        predictor.modules, condition, settings=drawing_settings(predictor.preset), seeds=[5], device=CPU
    )[0].numpy()
    middle = slice(cine.pixels.shape[1] // 4, -cine.pixels.shape[1] // 4)
    grey = mark_cine(expected).pixels
    assert np.array_equal(cine.pixels, grey)
    assert cine.pixels[:, middle, middle].std() > 0
    own = predictor.condition(counts)
    assert np.array_equal(draw_cine(predictor, own, seed=5).pixels, cine.pixels)
    assert not np.array_equal(draw_cine(predictor, own, seed=6).pixels, cine.pixels)


def test_it_is_drawn_as_the_study_drew_what_it_measured(make_model, study, drawn):
    counts, usual = drawn
    raw = json.loads(study.to_json())
    raw["phases"].append({**raw["phases"][0], "task": "generate", "options": {"temperature": 0.2}})
    cooler = open_predictor(read_model_folder(make_model(study=Study.model_validate(raw))), device=CPU)
    with torch.no_grad():
        condition = cooler.modules["ecg_projection"](cooler.feature(counts))
    settings = drawing_settings(cooler.preset, temperature=0.2)
    expected = draw_cines(cooler.modules, condition, settings=settings, seeds=[5], device=CPU)[0].numpy()
    found = draw_cine(cooler, cooler.condition(counts), seed=5).pixels
    assert np.array_equal(found, mark_cine(expected).pixels)
    assert not np.array_equal(found, usual.pixels)


@pytest.mark.parametrize("pixels", [32, 64, 96])
def test_every_frame_bears_the_same_legible_words(pixels):
    rng = np.random.default_rng(2)
    noise, blank = (
        mark_cine(c) for c in (rng.uniform(-1, 1, (3, pixels, pixels)), np.full((3, pixels, pixels), 1.0))
    )
    side = noise.pixels.shape[1]
    assert side == pixels * noise.enlarged >= LEAST_PX and side < LEAST_PX + pixels
    bands = [slice(0, int(0.08 * side)), slice(side - int(0.08 * side), side)]
    for band in bands:
        # Words, not pictures: the same in each frame whatever was drawn, on black, in strokes of full white.
        assert np.array_equal(noise.pixels[0, band], blank.pixels[2, band])
        assert (noise.pixels[0, band] == 0).mean() > 0.5 and noise.pixels[0, band].max() == 255
    inked = np.flatnonzero((blank.pixels[0, bands[1]] > 128).any(axis=0))
    assert 0.5 * side < np.ptp(inked) < 0.96 * side  # the longer line fills the edge, and is not cut
    assert len(ORIGIN) > 20 and np.ptp(np.flatnonzero((blank.pixels[0, bands[0]] > 128).any(axis=1))) >= 9
    assert (blank.pixels[0, side // 2] == 255).all()


def test_the_nifti_says_so_in_its_header_and_keeps_the_field_of_view(drawn, predictor, tmp_path):
    _, cine = drawn
    path = tmp_path / "a.nii.gz"
    path.write_bytes(cine_files(cine)["nii.gz"])
    image = nibabel.load(path)
    header = image.header
    assert image.shape == (256, 256, 1, predictor.preset.cine_frames)
    assert bytes(header["descrip"].item()).startswith(b"SYNTHETIC - CardioNets - not an acquisition")
    assert header.get_intent()[2] == "SYNTHETIC" and bytes(header["aux_file"].item()) == b"SYNTHETIC"
    assert header.get_xyzt_units() == ("mm", "unknown") and float(header["pixdim"][4]) == 1.0
    assert 256 * float(header["pixdim"][1]) == pytest.approx(96 * 1.8269, rel=1e-5)
    (extension,) = header.extensions
    assert (
        cine.model_digest.encode() in bytes(extension.get_content()) and b"seed 5" in extension.get_content()
    )
    # First axis X, second Y: the words of the pixels are there too.
    assert np.array_equal(np.asarray(image.dataobj)[:, :, 0, 0].T, cine.pixels[0])


def test_the_files_hold_every_frame_and_repeat_byte_for_byte(drawn):
    _, cine = drawn
    files = cine_files(cine)
    assert files == cine_files(cine)
    assert gzip.decompress(files["nii.gz"])[:4] == (348).to_bytes(4, "little")
    gif = Image.open(io.BytesIO(files["gif"]))
    assert gif.n_frames == len(cine.pixels) and gif.size == (256, 256) and b"SYNTHETIC" in gif.info["comment"]
    for place in (0, gif.n_frames - 1):
        gif.seek(place)
        band = np.asarray(gif.convert("L"))[:20]
        assert np.abs(band.astype(int) - cine.pixels[place][:20]).max() <= 2
    sheet = Image.open(io.BytesIO(files["png"]))
    assert sheet.text["Description"].startswith("SYNTHETIC")
    assert np.array_equal(np.asarray(sheet)[:256, :256], cine.pixels[0])


def test_a_sheet_of_many_frames_shows_ten_of_them():
    pixels = np.repeat(np.arange(50, dtype=np.uint8), 64).reshape(50, 8, 8)
    cine = SyntheticCine(pixels=pixels, spacing_mm=1.0, seed=0, model_digest="")
    sheet = np.asarray(Image.open(io.BytesIO(cine_files(cine)["png"])))
    assert sheet.shape == (16, 40) and sheet[::8, ::8].ravel().tolist() == list(range(0, 50, 5))
