"""CONTRIBUTING's recipe "Add a reader": one module and one registry line make a format a site can declare."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest

from cardionets_core.config.site import SiteConfig
from cardionets_core.data.prepare import prepare
from cardionets_core.data.readers.registry import READERS, recognise
from cardionets_core.data.records import LEADS
from cardionets_core.errors import RecordRefused

RECIPE = Path(__file__).parent / "recipes" / "cart_text.py"


@pytest.fixture
def cart(monkeypatch):
    """The recipe's module, with its one line in the registry."""
    spec = importlib.util.spec_from_file_location("cart_text", RECIPE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setitem(READERS, module.READER.name, module.READER)
    return module


def write_cart(path: Path, *, seed: int) -> np.ndarray:
    """An export in uV whose limb leads obey Einthoven; gives the signal in mV."""
    rng = np.random.default_rng(seed)
    t = np.arange(5000) / 500
    beat = np.exp(-0.5 * (((t % 0.8) - 0.4) / 0.02) ** 2)
    one, two, *chest = rng.normal(0.8, 0.2, 8)[:, None] * beat + 0.01 * rng.normal(size=(8, len(t)))
    rows = np.stack([one, two, two - one, -(one + two) / 2, one - two / 2, two - one / 2, *chest])
    head = ["CARTTEXT", "rate=500", "unit=uV", "leads=" + ",".join(LEADS)]
    lines = [",".join(f"{1000 * value:.2f}" for value in sample) for sample in rows.T]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join([*head, *lines, "END"]) + "\n")
    return rows


def test_the_recipe_is_as_short_as_it_says():
    assert len(RECIPE.read_text().splitlines()) <= 60


@pytest.mark.parametrize("form", ["cart_text", "auto"])
def test_a_site_that_declares_the_new_format_is_prepared(cart, tmp_path, form):
    written = {}
    for patient in range(6):
        path = tmp_path / "ecg" / f"p{patient}" / "1.cart"
        written[patient] = write_cart(path, seed=patient)
        assert recognise(path).name == "cart_text"
        np.testing.assert_allclose(cart.read_cart_text(path).signal_mv, written[patient], atol=1e-5)
    (tmp_path / "ecg" / "p0" / "2.cart").write_text("CARTTEXT\nrate=500\nunit=uV\nleads=I\n1\n")
    config = SiteConfig(
        site="here",
        source={
            "kind": "local_site",
            "ecg": {"format": form, "folder": tmp_path / "ecg", "pattern": "{patient}/{visit}.cart"},
        },
        policy={"phases": ["ecg_mae"]},
        folders={
            "cache": tmp_path / "cache",
            "state": tmp_path / "state",
            "secret": tmp_path / "secret" / "key",
        },
    )
    cohort = prepare(config)
    assert cohort.patients(np.arange(len(cohort.row_patient))) == 6
    assert cohort.refusals == {"ecg-truncated": 1}


def test_its_refusals_are_typed(cart, tmp_path):
    path = tmp_path / "x.cart"
    write_cart(path, seed=1)
    content = path.read_bytes()
    for stop in range(0, len(content), 997):
        path.write_bytes(content[:stop])
        with pytest.raises(RecordRefused):
            cart.read_cart_text(path)
