"""Latents are made once from a frozen tokenizer, and never taken from another (SCIENCE 5.4(1))."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from cardionets_core.data.cohort import Cohort
from cardionets_core.errors import CacheForeignError
from cardionets_core.models.cmr_tokenizer import CmrTokenizer
from cardionets_core.tasks import SiteView
from cardionets_core.tasks.kept import Kept
from cardionets_core.tasks.latents import real_latents, training_latents
from cardionets_core.tasks.shapes import shape_of

CPU = torch.device("cpu")


def make_tokenizer(seed: int) -> dict[str, torch.nn.Module]:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        tokenizer = CmrTokenizer(
            channels=4, multipliers=(1, 1, 1), blocks=1, latent=4, groups=2, heads=1, time_halvings=1
        )
    return {"cmr_tokenizer": tokenizer.eval()}


def make_view(folder=None) -> SiteView:
    """Six rows; rows 0 and 1 show one cine, row 3 is held out, row 5 has no cine."""
    none = np.zeros(0, dtype=np.int64)
    cohort = Cohort(
        site="a",
        digest="a",
        ecg_counts=none.astype(np.int16),
        ecg_offsets=none,
        ecg_samples=none,
        cines=np.random.default_rng(0).integers(0, 256, (5, 50, 96, 96)).astype(np.uint8),
        row_patient=np.arange(6),
        row_split=np.array([0, 0, 0, 2, 0, 0], dtype=np.int8),
        row_ecg=np.full(6, -1),
        row_cine=np.array([4, 4, 0, 1, 2, -1]),
        phenotypes=np.full((6, 82), np.nan, dtype=np.float32),
        diseases=np.full((6, 8), np.nan, dtype=np.float32),
    )
    return SiteView(
        cohort=cohort, shape=shape_of("nano"), device=CPU, kept=Kept(folder, cohort=cohort.digest)
    )


def test_each_training_cine_is_encoded_once_and_found_by_row():
    modules, site = make_tokenizer(0), make_view()
    table = training_latents(modules, site)
    assert table.posterior_N.mean_BZTHW.shape == (3, 4, 4, 8, 8)
    found = table.take(torch.tensor([2, 1, 0, 4]))
    for row, mean, log_variance in zip((2, 1, 0, 4), found.mean_BZTHW, found.log_variance_BZTHW, strict=True):
        cine = site.cohort.batch(np.array([row]), keys=frozenset({"cine"}), shape=site.shape).cine_BFYX
        with torch.no_grad():
            own = modules["cmr_tokenizer"].encode(cine)
        assert torch.allclose(mean, own.mean_BZTHW[0], atol=1e-5)
        assert torch.allclose(log_variance, own.log_variance_BZTHW[0], atol=1e-5)
    assert torch.equal(found.mean_BZTHW[1], found.mean_BZTHW[2])


@pytest.mark.parametrize("row", [3, 5])
def test_a_row_without_a_training_cine_has_no_latent(row):
    with pytest.raises(IndexError, match="no latent"):
        training_latents(make_tokenizer(0), make_view()).take(torch.tensor([0, row]))


def test_half_precision_is_close_and_lies_in_a_file_of_its_own(tmp_path):
    modules, site = make_tokenizer(0), make_view(tmp_path)
    full = training_latents(modules, site).posterior_N.mean_BZTHW
    half = training_latents(modules, site, half=True)
    assert (full.dtype, half.posterior_N.mean_BZTHW.dtype) == (torch.float32, torch.float16)
    assert half.take(torch.tensor([0])).mean_BZTHW.dtype == torch.float32
    assert torch.allclose(half.posterior_N.mean_BZTHW.float(), full, rtol=1e-3, atol=1e-6)
    assert len(list(tmp_path.glob("latents-*"))) == 2


def test_a_second_round_reads_the_file_and_does_not_encode(tmp_path):
    modules = make_tokenizer(0)
    first = training_latents(modules, make_view(tmp_path)).posterior_N
    modules["cmr_tokenizer"].encode = None  # would fail if it were called
    second = training_latents(modules, make_view(tmp_path)).posterior_N
    assert torch.equal(first.mean_BZTHW, second.mean_BZTHW)


def test_latents_of_another_tokenizer_are_refused(tmp_path):
    ours, theirs = make_tokenizer(0), make_tokenizer(1)
    training_latents(ours, make_view(tmp_path))
    (first,) = tmp_path.glob("latents-*")
    training_latents(theirs, make_view(tmp_path))
    (second,) = set(tmp_path.glob("latents-*")) - {first}
    first.rename(second)
    with pytest.raises(CacheForeignError, match="other modules"):
        training_latents(theirs, make_view(tmp_path))
    training_latents(ours, make_view(tmp_path))


def test_real_latents_are_normalised_over_the_whole_sample():
    latents = real_latents(make_tokenizer(0), make_view(), np.array([0, 3]))
    assert torch.allclose(latents.flatten(1).mean(dim=1), torch.zeros(2), atol=1e-5)
    assert torch.allclose(latents.flatten(1).var(dim=1, unbiased=False), torch.ones(2), atol=1e-3)
