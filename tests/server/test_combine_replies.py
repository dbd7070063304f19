"""Each module is the mean over those who trained it, weighted by samples and role (SCIENCE 5.1, 8.8)."""

from __future__ import annotations

import numpy as np
import pytest

from cardionets_core.config.study import Study
from cardionets_core.exchange.messages import PackedModule, Reply, RoundName
from cardionets_core.tasks import make_task
from server.checkpoints import CheckpointStore
from server.next_model import combine_replies, digest_of, first_model
from server.round_store import RoundStore
from strategies import make_strategy

ALIGN = make_task("align", {})
NAME = RoundName(study_digest="0" * 64, phase=0, round=1, attempt=1)


@pytest.fixture
def start(tmp_path):
    """The model that the sites start from, and an empty store of their replies."""
    phase = {"task": "align", "rounds": 1, "local_steps": 1, "optimiser": {"lr": 1e-3}}
    study = Study.model_validate({"name": "s", "phases": [phase]})
    (tmp_path / "work").mkdir()
    files, layouts = first_model(study, [ALIGN], work=tmp_path / "work")
    checkpoint = CheckpointStore(tmp_path / "checkpoints", study_digest=study.digest).write(
        phase=0, round_number=0, layouts=layouts, files=files, history=[], previous=None
    )
    return checkpoint, RoundStore(tmp_path / "round")


def reply(site: str, checkpoint, **modules: tuple[float, int]) -> Reply:
    """A site that sends modules full of one number, each with its count of samples."""
    packed = {
        name: PackedModule(
            layout=checkpoint.layouts[name],
            values=np.full(checkpoint.layouts[name].size, value, dtype=np.float32),
        )
        for name, (value, _) in modules.items()
    }
    return Reply(
        site=site, name=NAME, modules=packed, samples={n: count for n, (_, count) in modules.items()}
    )


def combine(tmp_path, checkpoint, store) -> dict[str, np.ndarray]:
    """The values of what is new, by module."""
    files = combine_replies(
        ALIGN, store, strategy=make_strategy("fedavg", {}), checkpoint=checkpoint, work=tmp_path / "work"
    )
    return {name: np.fromfile(path, dtype="<f4") for name, path in files.items()}


def test_weights_are_those_of_each_module(tmp_path, start):
    checkpoint, store = start
    everything = dict.fromkeys(ALIGN.trains, (1.0, 30))
    store.accept(reply("paired", checkpoint, **everything))
    store.accept(reply("also", checkpoint, ecg_encoder=(5.0, 10), ecg_projection=(5.0, 10)))
    # An ECG-only site: a quarter of its 40 samples counts, and only for the encoder.
    store.accept(reply("ecg", checkpoint, ecg_encoder=(-3.0, 40)), weight=ALIGN.roles[1].weight)
    found = combine(tmp_path, checkpoint, store)
    expected = {
        "ecg_encoder": (30 * 1.0 + 10 * 5.0 + 10 * -3.0) / 50,
        "ecg_projection": (30 * 1.0 + 10 * 5.0) / 40,
        "cmr_projection": 1.0,
    }
    assert ALIGN.roles[1].weight == 0.25
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_array_equal(found[name], np.float32(value))


def test_absent_is_neither_zero_nor_the_old_value(tmp_path, start):
    checkpoint, store = start
    store.accept(reply("a", checkpoint, ecg_encoder=(8.0, 10), ecg_projection=(8.0, 10)))
    store.accept(reply("b", checkpoint, ecg_encoder=(4.0, 10)))
    found = combine(tmp_path, checkpoint, store)
    assert (found["ecg_encoder"] == 6.0).all()
    assert (found["ecg_projection"] == 8.0).all(), "as a zero it would be 4, as the old value about 4 too"
    sent = RoundStore(tmp_path / "other")
    sent.accept(reply("a", checkpoint, ecg_projection=(8.0, 10)))
    sent.accept(reply("b", checkpoint, ecg_projection=(0.0, 10)))
    assert (combine(tmp_path, checkpoint, sent)["ecg_projection"] == 4.0).all()


def test_what_nobody_trained_keeps_its_bytes(tmp_path, start):
    checkpoint, store = start
    assert combine(tmp_path, checkpoint, store) == {}
    store.accept(reply("ecg", checkpoint, ecg_encoder=(2.0, 7)), weight=0.25)
    files = combine_replies(
        ALIGN, store, strategy=make_strategy("fedavg", {}), checkpoint=checkpoint, work=tmp_path / "work"
    )
    assert set(files) == {"ecg_encoder"}
    kept = {name: checkpoint.path(name) for name in checkpoint.digests}
    assert digest_of(checkpoint, kept) == checkpoint.model_digest
    assert digest_of(checkpoint, {**kept, **files}) != checkpoint.model_digest


def test_a_site_counts_for_at_least_one_sample(tmp_path, start):
    checkpoint, store = start
    store.accept(reply("few", checkpoint, ecg_encoder=(1.0, 1)), weight=0.25)
    store.accept(reply("more", checkpoint, ecg_encoder=(4.0, 2)))
    assert (combine(tmp_path, checkpoint, store)["ecg_encoder"] == 3.0).all()
