"""The model in MLflow's registry loads without pickle and predicts what ``predict`` does."""

from __future__ import annotations

import json
import warnings

import numpy as np
import pytest

from cardionets_core.data.phenotypes import PHENOTYPES
from cardionets_core.data.readers.base import ReadOptions
from cardionets_core.data.readers.wfdb_ecg import READER
from cardionets_core.data.records import DISEASES, SUBTYPES
from cardionets_core.errors import DataError
from cardionets_core.prediction.arrays import predict_arrays
from cardionets_core.training.model_folder import read_model_folder
from client.predict.prediction import Asked, predict_one
from client.predict.reading import hear, named_recordings


@pytest.fixture(scope="module")
def recordings(write_ecg, tmp_path_factory):
    """Three ECG files, and what a reader gives of them as one array."""
    folder = tmp_path_factory.mktemp("ecgs")
    paths = [write_ecg(folder, f"r{seed}", seed=seed) for seed in (1, 2, 3)]

    return paths, np.stack([READER.read(path, ReadOptions()).signal_mv for path in paths])


def predicted(predictor, paths):
    """By the way of files: values of the phenotypes, diseases and subtypes, by name."""
    found = [predict_one(predictor, each, Asked()) for each in hear(named_recordings(paths))]
    return [
        (
            {each.phenotype.field: each.value for each in one.phenotypes},
            {each.disease: each.probability for each in one.screened.diseases},
            dict(one.screened.subtypes),
        )
        for one in found
    ]


def assert_same(found, expected):
    """Bit for bit: the way from the array is the way from the file."""
    for b, (phenotypes, diseases, subtypes) in enumerate(expected):
        assert len(phenotypes) == 2 and len(diseases) == 4 and len(subtypes) == 3
        for k, phenotype in enumerate(PHENOTYPES):
            np.testing.assert_equal(found["phenotypes"][b, k], phenotypes.get(phenotype.field, np.nan))
        for d, name in enumerate(DISEASES):
            np.testing.assert_equal(found["diseases"][b, d], diseases.get(name, np.nan))
        for c, name in enumerate(SUBTYPES):
            np.testing.assert_equal(found["subtypes"][b, c], subtypes[name])


def arrays(found):
    return {"phenotypes": found.phenotypes_BK, "diseases": found.diseases_BD, "subtypes": found.subtypes_BC}


def test_an_array_is_predicted_as_its_file_is(predictor, recordings):
    paths, ecg_BLT = recordings
    found = predict_arrays(predictor, ecg_BLT, fs_hz=500)
    assert found.refused == ("", "", "")
    assert_same(arrays(found), predicted(predictor, paths))


def test_a_refused_ecg_does_not_cost_the_others(predictor, recordings):
    _, ecg_BLT = recordings
    spoilt = ecg_BLT.copy()
    spoilt[1] = 0.0
    found = predict_arrays(predictor, spoilt, fs_hz=500)
    assert found.refused == ("", "ecg-flat", "") and np.isnan(found.phenotypes_BK[1]).all()
    whole = predict_arrays(predictor, ecg_BLT, fs_hz=500)
    np.testing.assert_equal(found.diseases_BD[[0, 2]], whole.diseases_BD[[0, 2]])


def test_no_ecg_is_an_empty_answer_and_another_shape_is_refused(predictor):
    found = predict_arrays(predictor, np.zeros((0, 12, 5000), np.float32), fs_hz=500)
    assert found.phenotypes_BK.shape == (0, 82) and found.refused == ()
    for wrong in (np.zeros((12, 5000)), np.zeros((1, 11, 5000)), np.full((1, 12, 5000), "a")):
        with pytest.raises(DataError, match="not numbers"):
            predict_arrays(predictor, wrong, fs_hz=500)
    with pytest.raises(DataError, match="nan Hz"):
        predict_arrays(predictor, np.zeros((1, 12, 5000)), fs_hz=float("nan"))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_the_registered_model_predicts_what_predict_predicts(
    run, whole, study, predictor, recordings, tmp_path, monkeypatch
):
    from server.tracking.model import ALIAS, register
    from server.tracking.store import Store, quiet_mlflow

    monkeypatch.chdir(tmp_path)
    paths, ecg_BLT = recordings
    digest = read_model_folder(whole).model_digest
    content = {"study": study.model_dump(mode="json"), "study_digest": study.digest}
    content |= {"model_digest": digest, "status": "completed"}
    address = f"sqlite:///{tmp_path / 'm.db'}"
    with quiet_mlflow():
        store = Store(address=address, experiment="e", artefacts=(tmp_path / "a").as_uri())
        run_id = store.run("key", name="n", tags={})
        made = [register(store, run=run_id, folder=whole, content=content, card="# Card") for _ in range(2)]
    assert made == [{"name": "heads", "version": "1"}] * 2, "the same model is registered once"
    assert not list((tmp_path / "a").rglob("*.pkl")), "nothing is pickled"

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import mlflow

        mlflow.set_tracking_uri(address)
        loaded = mlflow.pyfunc.load_model(f"models:/heads@{ALIAS}")
        found = loaded.predict(ecg_BLT, params={"fs_hz": 500.0})
        by_default = loaded.predict(ecg_BLT)
        with pytest.raises(mlflow.exceptions.MlflowException, match="Shape"):
            loaded.predict(ecg_BLT[:, :11])
    assert_same(found, predicted(predictor, paths))
    np.testing.assert_equal(by_default["phenotypes"], found["phenotypes"])
    schema = loaded.metadata.signature
    assert schema.inputs.inputs[0].shape == (-1, 12, -1)
    assert [spec.name for spec in schema.outputs.inputs] == list(found)
    for name, values in found.items():
        spec = next(each for each in schema.outputs.inputs if each.name == name)
        assert values.shape[1:] == spec.shape[1:]
    assert loaded.metadata.metadata["model_digest"] == digest

    ended = run("cardionets-client", "predict", *paths, "--model", whole, "--format", "json")
    printed = json.loads(ended.stdout)["recordings"]
    for b, one in enumerate(printed):
        for each in one["phenotypes"]:
            k = next(k for k, phenotype in enumerate(PHENOTYPES) if phenotype.field == each["field"])
            assert found["phenotypes"][b, k] == pytest.approx(each["value"], rel=1e-5)
