"""People of a small site, for the tests of the supervised tasks."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

from cardionets_core.data.cohort import Cohort


class WaveEncoder(torch.nn.Module):
    """A quick encoder to 64 numbers that sees the slow wave: the autocorrelation of the window at 64 lags."""

    def __init__(self) -> None:
        super().__init__()
        self.gain = torch.nn.Parameter(torch.ones(1))

    def forward(self, ecg_BLT: torch.Tensor) -> torch.Tensor:
        power = torch.fft.rfft(ecg_BLT).abs().square()
        return self.gain * torch.fft.irfft(power)[..., 1:65].mean(dim=1) / ecg_BLT.shape[-1]


@pytest.fixture
def wave_encoder() -> torch.nn.Module:
    """An encoder that may stand for the nano one."""
    return WaveEncoder()


@pytest.fixture
def single_thread():
    """Bytes repeat with a fixed number of threads, and small models run faster on one."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def make_people() -> Callable[..., Cohort]:
    """Makes a cohort: two recordings a person, people in the three splits in turn, one latent a person.

    The latent is the share of a slow wave in a noisy ECG. Phenotypes are linear in it; each disease is the
    more likely the higher it is. Column 7 has no value, every second row lacks column 9 and disease ``hf``.
    """

    def make(people: int, *, site: str, seed: int) -> Cohort:
        rng = np.random.default_rng(seed)
        rows = 2 * people
        patient = np.arange(rows) // 2
        latent = rng.normal(size=people)[patient]
        samples = rng.choice([750, 751, 900, 1300], size=rows)
        wave = [np.exp(z) * np.sin(np.arange(n) / 12.0) for n, z in zip(samples, latent, strict=True)]
        ecg = [rng.normal(size=(12, len(w))) + w for w in wave]
        phenotypes = (latent[:, None] * 5.0 + rng.normal(size=(rows, 82)) + 60.0).astype(np.float32)
        phenotypes[:, 7] = np.nan
        phenotypes[::2, 9] = np.nan
        diseases = np.full((rows, 8), np.nan, dtype=np.float32)
        diseases[:, :5] = latent[:, None] + rng.normal(size=(people, 5))[patient] > 0.3
        diseases[::2, 2] = np.nan
        ill = np.flatnonzero(diseases[:, 1] == 1)
        diseases[ill, 5:] = np.eye(3)[patient[ill] // 3 % 3]
        return Cohort(
            site=site,
            digest=f"{site}/{seed}/{people}",
            ecg_counts=np.concatenate([(200 * e).astype(np.int16).ravel() for e in ecg]),
            ecg_offsets=np.concatenate([[0], np.cumsum(samples)[:-1]]),
            ecg_samples=samples,
            cines=np.zeros((0, 50, 96, 96), dtype=np.uint8),
            row_patient=patient,
            row_split=(patient % 3).astype(np.int8),
            row_ecg=np.arange(rows),
            row_cine=np.full(rows, -1),
            phenotypes=phenotypes,
            diseases=diseases,
            row_sex=(patient // 3 % 2).astype(np.int8),
            row_age_years=(50.0 + 10 * (patient % 2)).astype(np.float32),
        )

    return make
