"""Fed-Heart-Disease: the rows of the protocol, our strategies against plain arithmetic, published numbers."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from cardionets_core.errors import FolderMissingError, SourceInvalidError
from cardionets_core.models import MODULES
from cardionets_core.tasks import TASKS
from simulation.benchmarks import fed_heart_disease as bench
from simulation.benchmarks.heart_runs import federated_run
from simulation.benchmarks.heart_table import CENTERS, Center, read_centers
from simulation.benchmarks.heart_task import BATCH, batch_rounds, initial_weights

ROUNDS, STEPS = 2, 100  # so many that every center shows all its rows


@pytest.fixture(scope="module")
def tables(shared_data: Path) -> Path:
    folder = shared_data / "fed_heart_disease"
    if not folder.is_dir():
        pytest.skip("the tables of Fed-Heart-Disease are not in the shared data")
    return folder


@pytest.fixture(scope="module")
def centers(tables: Path) -> list[Center]:
    return read_centers(tables)


def test_rows_and_features_are_the_protocols(centers: list[Center]) -> None:
    counts = [(int((~each.is_test_R).sum()), int(each.is_test_R.sum())) for each in centers]
    assert counts == [(199, 104), (172, 89), (30, 16), (85, 45)]
    assert [each.name for each in centers] == list(CENTERS)
    trains = [each.features_RF[~each.is_test_R] for each in centers]
    assert all(rows.shape[1] == 13 and rows.dtype == np.float32 for rows in trains)
    for rows in trains:
        moved = rows.std(axis=0, ddof=1) > 0
        np.testing.assert_allclose(rows.mean(axis=0), 0, atol=1e-5)
        np.testing.assert_allclose(rows.std(axis=0, ddof=1)[moved], 1, atol=1e-5)
    together = np.concatenate([each.pooled_RF[~each.is_test_R] for each in centers])
    np.testing.assert_allclose(together.mean(axis=0), 0, atol=1e-5)
    np.testing.assert_allclose(together.std(axis=0, ddof=1), 1, atol=1e-5)
    # Each center that can keeps its classes in proportion.
    for each in centers[:2]:
        assert abs(each.labels_R[each.is_test_R].mean() - each.labels_R[~each.is_test_R].mean()) < 0.01


def test_batches_go_through_all_rows_and_keep_their_place_from_round_to_round() -> None:
    rows = [np.arange(100, 110), np.arange(7)]
    orders = batch_rounds(rows, rounds=3, steps=4, seed=5)
    for places, order in zip(rows, orders, strict=True):
        flat = [batch for steps in order for batch in steps]
        assert len(flat) == 12
        per_epoch = -(-len(places) // BATCH)
        for start in range(0, 12 - per_epoch + 1, per_epoch):
            epoch = np.concatenate(flat[start : start + per_epoch])
            assert sorted(epoch) == list(places)
    before = torch.get_rng_state()
    again = batch_rounds(rows, rounds=3, steps=4, seed=5)
    assert torch.equal(before, torch.get_rng_state())
    first = [[batch.tolist() for batch in steps] for steps in again[0]]
    assert first == [[b.tolist() for b in s] for s in batch_rounds(rows, rounds=3, steps=4, seed=5)[0]]
    assert first != [[b.tolist() for b in s] for s in batch_rounds(rows, rounds=3, steps=4, seed=6)[0]]


def reference(centers: list[Center], name: str, seed: int) -> np.ndarray:
    """Federated training of a logistic regression in plain numpy, as the papers write it."""
    start = initial_weights(seed)
    w = np.append(start.weight.detach().numpy().astype(np.float64), start.bias.detach().numpy())
    trains = [np.flatnonzero(~each.is_test_R) for each in centers]
    orders = [list(order) for order in batch_rounds(trains, rounds=ROUNDS, steps=STEPS, seed=seed)]
    n = np.array([len(rows) for rows in trains]) / sum(map(len, trains))
    rate, options = bench.FEDERATED[name]
    m, v, c, own = np.zeros(14), np.zeros(14), np.zeros(14), np.zeros((4, 14))
    for number in range(ROUNDS):
        change, moved = np.zeros((4, 14)), np.zeros((4, 14))
        for k, center in enumerate(centers):
            x = w.copy()
            for rows in orders[k][number]:
                seen = np.hstack([center.features_RF[rows], np.ones((len(rows), 1))])
                error = 1 / (1 + np.exp(-seen @ x)) - center.labels_R[rows]
                gradient = seen.T @ error / len(rows)
                if name == "fedprox":
                    gradient += options["mu"] * (x - w)
                x -= rate * (gradient + (c - own[k] if name == "scaffold" else 0))
            change[k] = x - w
            moved[k] = (w - x) / (STEPS * rate) - c
        d = n @ change
        if name == "scaffold":
            own, c = own + moved, c + n @ moved
        if name in ("fedavg", "fedprox", "scaffold"):
            w = w + d
            continue
        m = 0.9 * m + 0.1 * d
        v = {
            "fedadam": 0.999 * v + 0.001 * d**2,
            "fedyogi": v - 0.001 * d**2 * np.sign(v - d**2),
            "fedadagrad": v + d**2,
        }[name]
        w = w + options["rate"] * m / (np.sqrt(v) + options["tau"])
    return w


@pytest.mark.parametrize("name", bench.FEDERATED)
def test_a_strategy_through_server_and_client_is_the_papers_arithmetic(
    centers: list[Center], name: str
) -> None:
    rate, options = bench.FEDERATED[name]
    found = federated_run(
        centers, strategy=name, rate=rate, options=options, seed=42, rounds=ROUNDS, steps=STEPS
    )
    wanted = reference(centers, name, 42)
    # Weights travel and are kept as float32; the reference never leaves float64.
    np.testing.assert_allclose(found["final"], wanted, rtol=0, atol=3e-6)
    assert np.abs(wanted - found["initial"]).max() > 1e-3
    assert set(found["accuracy_by_site"]) == set(CENTERS)
    assert found["accuracy_mean"] == pytest.approx(np.mean(list(found["accuracy_by_site"].values())))
    for center in centers:
        seen = center.features_RF[center.is_test_R] @ np.array(found["final"][:13]) + found["final"][13]
        share = float(((seen > 0) == (center.labels_R[center.is_test_R] > 0.5)).mean())
        assert found["accuracy_by_site"][center.name] == pytest.approx(share)


def test_nothing_of_the_benchmark_stays_in_the_product(centers: list[Center]) -> None:
    from client import round as client_round
    from client.site import open_site

    assert "heart_disease" not in TASKS and "heart_classifier" not in MODULES
    assert client_round.open_site is open_site


def test_tables_that_are_none_are_refused(tmp_path: Path, capsys) -> None:
    with pytest.raises(FolderMissingError, match="cleveland"):
        read_centers(tmp_path)
    for name in CENTERS:
        (tmp_path / f"processed.{name}.data").write_text("1,2,3\n")
    with pytest.raises(SourceInvalidError, match="3 columns"):
        read_centers(tmp_path)
    (tmp_path / "processed.cleveland.data").write_text(",".join(["one"] * 14) + "\n")
    with pytest.raises(SourceInvalidError, match="more than numbers"):
        read_centers(tmp_path)
    with pytest.raises(SystemExit) as ended:
        bench.main(["--data", str(tmp_path / "nowhere")])
    assert ended.value.code == FolderMissingError("").exit_code
    assert "processed.cleveland.data" in capsys.readouterr().err


def test_the_forms_of_the_result(tables: Path, capsys, monkeypatch) -> None:
    monkeypatch.setattr(bench, "ROUNDS", 1)
    monkeypatch.setattr(bench, "STEPS", 60)
    command = ["--data", str(tables), "--seeds", "42", "--strategies", "fedavg"]
    bench.main([*command, "--format", "json"])
    content = json.loads(capsys.readouterr().out)
    (run,) = content["runs"]
    assert content["schema_version"] == 1 and run["seed"] == 42
    assert len(run["initial"]) == len(run["final"]) == 14 and run["initial"] != run["final"]
    start = initial_weights(42)
    assert run["initial"] == [*start.weight.detach().numpy()[0].tolist(), start.bias.item()]
    bench.main([*command, "--format", "lines"])
    (line,) = map(json.loads, capsys.readouterr().out.splitlines())
    ratio = line["accuracy_pooled"] / line["published_pooled"]
    assert line["ratio_to_published_pooled"] == pytest.approx(ratio, abs=2e-4)
    bench.main(command)
    table = capsys.readouterr().out
    assert "fedavg" in table and "0.748" in table and "*" in table  # one round is not the protocol


@pytest.mark.slow
@pytest.mark.parametrize("name", ["fedavg", "fedadagrad"])
def test_the_published_accuracies_are_found_again(centers: list[Center], name: str) -> None:
    rate, options = bench.FEDERATED[name]
    runs = [
        federated_run(centers, strategy=name, rate=rate, options=options, seed=seed, rounds=15, steps=100)
        for seed in bench.SEEDS
    ]
    (row,) = bench.results_of(runs)
    assert abs(row["accuracy_pooled"] - row["published_pooled"]) < 0.004
    assert abs(row["accuracy_mean"] - row["published_mean"]) < 0.004
