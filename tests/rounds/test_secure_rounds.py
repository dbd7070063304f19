"""Studies under secure aggregation on an in-process grid: the sums, drop-outs, and what the server sees."""

from __future__ import annotations

import functools
import json
import shutil

import numpy as np
import pytest

from cardionets_core.config.site import read_site
from cardionets_core.config.study import Study
from cardionets_core.data.prepare import prepare
from cardionets_core.errors import ConfigError, QuorumNotMetError
from cardionets_core.exchange.npy import from_npy
from cardionets_core.privacy.ledger import Ledger
from cardionets_core.tasks import make_task
from cardionets_core.training.secure_round import Question, form_of, mean_error
from client.app import make_app
from client.spending import LEDGER
from server.app import run_study
from server.plan import plan_of
from simulation.flower import hospital_of_partition
from simulation.local_grid import LocalGrid
from simulation.rosters import with_roster

STEPS = {"local_steps": 2, "batch_size": 4, "optimiser": {"lr": 1e-3}}


def plain_study(**changes) -> Study:
    content = {
        "name": "secure",
        "seed": 4,
        "sites": {"minimum": 2, "deadline_s": 60, "attempts": 2},
        "phases": [
            {"task": "ecg_mae", "rounds": 2, **STEPS},
            {"task": "prevalence", "rounds": 1},
            {"task": "screening", "rounds": 2, "options": {"bootstrap_replicates": 20}, **STEPS},
        ],
    }
    return Study.model_validate({**content, **changes})


def secured(study: Study, paths, **changes) -> Study:
    content = study.model_dump(mode="json")
    content["secure_aggregation"] = {"threshold": 2, "largest_samples": 100, **changes}
    return with_roster(Study.model_validate(content), paths)


def run_rounds(study, paths, folder, grid=None):
    locate = functools.partial(hospital_of_partition, tuple(paths))
    made = grid or LocalGrid([make_app(locate) for _ in paths])
    return run_study(made, study, folder=folder, track=False)


def model_of(folder) -> dict[str, np.ndarray]:
    from safetensors.numpy import load_file

    return {
        f"{path.stem}.{name}": value
        for path in sorted((folder / "model").glob("*.safetensors"))
        for name, value in load_file(path).items()
    }


def forget(paths) -> None:
    """All but the sites' keys."""
    for path in paths:
        for part in (path.parent / "state").iterdir():
            if part.is_dir():
                shutil.rmtree(part)


@pytest.fixture
def both(generation, hospitals, tmp_path):
    """The same study plain and in secret, in either generation."""
    paths = list(hospitals.values())
    # At paired sites also a tower, of the earlier generation two of them.
    tower = {"task": "cmr_mae", "rounds": 1, **STEPS, "batch_size": 8}
    phases = [tower, *plain_study().model_dump(mode="json")["phases"]]
    study = plain_study(generation=generation, phases=phases)
    plain = run_rounds(study, paths, tmp_path / "plain")
    forget(paths)
    secret = run_rounds(secured(study, paths), paths, tmp_path / "secret")
    return plain, secret, tmp_path


def test_one_round_s_mean_is_the_plain_one_to_the_documented_error(hospitals, tmp_path):
    paths = list(hospitals.values())
    plain = plain_study(phases=[{"task": "ecg_mae", "rounds": 1, **STEPS}])
    study = secured(plain, paths)
    first = run_rounds(plain, paths, tmp_path / "plain")
    forget(paths)
    run_rounds(with_roster(study, paths), paths, tmp_path / "secret")
    samples = sum(row["samples"]["ecg_encoder"] for row in first["rounds"][0]["sites"])
    sizes = {"ecg_encoder": 10, "ecg_decoder": 10}
    question = Question(task=make_task("ecg_mae", {}), part="train")
    error = mean_error(form_of(study, question, sizes), parties=3, samples=samples, largest_samples=100)
    a, b = model_of(tmp_path / "plain"), model_of(tmp_path / "secret")
    assert a.keys() == b.keys() and 0.0 < error < 1e-7
    apart = [np.abs(a[name].astype(np.float64) - b[name]).max() for name in a]
    # float32 rounds weights near 1 by up to 6e-8 on both sides.
    assert 0.0 < max(apart) <= error + 2 * 6e-8


def test_a_whole_study_ends_where_plain_rounds_end(both):
    _, secret, folder = both
    assert secret["status"] == "completed"
    a, b = model_of(folder / "plain"), model_of(folder / "secret")
    assert a.keys() == b.keys()
    # Later steps carry the rounding on: Adam turns on the sign of the smallest gradients.
    assert all(np.allclose(b[name], value, atol=1e-4) for name, value in a.items())


def test_pooled_metrics_are_those_of_plain_rounds_and_no_site_s_are_known(both):
    plain, secret, _ = both
    for mine, theirs in zip(secret["rounds"], plain["rounds"], strict=True):
        assert mine["pooled"].keys() == theirs["pooled"].keys()
        for name, value in theirs["pooled"].items():
            assert mine["pooled"][name] == pytest.approx(value, rel=1e-3, abs=1e-3), name
        for row in mine["sites"]:
            assert "metrics" not in row
        assert {r["site"] for r in mine["sites"]} == {r["site"] for r in theirs["sites"]}


STEP_NAMES = ["advertise", "share", "mask", "confirm", "unmask"]


class Around:
    """A site's app with something around it."""

    def __init__(self, path, around) -> None:
        self._app = make_app(lambda context: path)
        self._around = around

    def __call__(self, message, context):
        return self._around(message, context, self._app)


def five(consortium, tmp_path):
    """Five hospitals: the three, and two copies under other names."""
    found = {}
    for name in ("alpha", "beta", "gamma", "delta", "epsilon"):
        source = consortium.paths[{"delta": "alpha", "epsilon": "gamma"}.get(name, name)].parent
        folder = tmp_path / "hospitals" / name
        shutil.copytree(source, folder, copy_function=shutil.copy2)
        shutil.rmtree(folder / "state", ignore_errors=True)
        text = (folder / "site.yaml").read_text().replace(f'site: "{source.name}"', f'site: "{name}"')
        (folder / "site.yaml").write_text(text)
        if name != source.name:
            shutil.rmtree(folder / "cache")
            prepare(read_site(folder / "site.yaml"))
        found[name] = folder / "site.yaml"
    return found


def failing(paths, step, gone):
    """Apps of which some fail from a step on, as a site that died; each is told its step by the order."""

    def app(index, path):
        dead = {"is": False}

        def guard(message, context, call_next):
            asked = message.content.config_records["fields"].get("secure-step", "")
            if index in gone and asked == step:
                dead["is"] = True
            if dead["is"] and asked:
                raise RuntimeError("this site is dead")
            return call_next(message, context)

        return Around(path, guard)

    return [app(index, path) for index, path in enumerate(paths)]


@pytest.mark.parametrize("step", STEP_NAMES)
def test_up_to_n_minus_t_sites_may_drop_out_at_any_step(consortium, tmp_path, step):
    paths = five(consortium, tmp_path)
    plain = plain_study(phases=[{"task": "ecg_mae", "rounds": 1, **STEPS}], sites={"minimum": 3})
    study = secured(plain, paths.values(), threshold=3)
    result = run_rounds(
        study,
        paths.values(),
        tmp_path / "secret",
        grid=LocalGrid(failing(list(paths.values()), step, {1, 3})),
    )
    entry = result["rounds"][0]
    trained = {row["site"] for row in entry["sites"] if row["status"] == "trained"}
    # Whoever has masked before it dropped out is in the sum all the same.
    everybody = {"alpha", "beta", "gamma", "delta", "epsilon"}
    assert trained == (everybody if step in ("confirm", "unmask") else everybody - {"beta", "delta"})
    forget(paths.values())
    apart = [paths[name] for name in sorted(trained)]
    run_rounds(plain, apart, tmp_path / "plain")
    a, b = model_of(tmp_path / "plain"), model_of(tmp_path / "secret")
    assert all(np.allclose(b[name], value, atol=1e-6) for name, value in a.items())


@pytest.mark.parametrize("step", STEP_NAMES)
def test_one_more_drop_out_opens_nothing_and_the_round_goes_on_when_they_are_back(consortium, tmp_path, step):
    paths = five(consortium, tmp_path)
    sites = {"minimum": 3, "attempts": 1}
    plain = plain_study(phases=[{"task": "ecg_mae", "rounds": 1, **STEPS}], sites=sites)
    study = secured(plain, paths.values(), threshold=3)
    grid = LocalGrid(failing(list(paths.values()), step, {0, 1, 3}))
    with pytest.raises(QuorumNotMetError):
        run_rounds(study, paths.values(), tmp_path / "secret", grid=grid)
    assert not (tmp_path / "secret" / "model").exists()
    result = run_rounds(study, paths.values(), tmp_path / "secret")
    assert result["status"] == "completed"
    assert len([row for row in result["rounds"][0]["sites"] if row["status"] == "trained"]) == 5
    forget(paths.values())
    run_rounds(plain, paths.values(), tmp_path / "plain")
    a, b = model_of(tmp_path / "plain"), model_of(tmp_path / "secret")
    assert all(np.allclose(b[name], value, atol=1e-6) for name, value in a.items())


def test_what_leaves_a_site_is_a_masked_vector_and_messages_of_the_protocol(hospitals, tmp_path):
    paths = list(hospitals.values())
    seen = []

    def spied(path):
        def look(message, context, call_next):
            reply = call_next(message, context)
            fields = dict(reply.content.config_records["fields"])
            arrays = {name: from_npy(a.data) for name, a in reply.content.array_records["arrays"].items()}
            seen.append((message.metadata.message_type, fields, arrays))
            return reply

        return Around(path, look)

    plain = plain_study(phases=[plain_study().phases[0].model_dump()])
    result = run_rounds(
        secured(plain, paths), paths, tmp_path / "run", grid=LocalGrid([spied(path) for path in paths])
    )
    assert result["status"] == "completed"
    kinds = {kind for kind, _, _ in seen}
    assert kinds == {"query.census", "query.secure", "train", "evaluate"}
    for kind, fields, arrays in seen:
        assert not any(name.startswith(("samples/", "value/", "layout/")) for name in fields), fields
        if kind in ("train", "evaluate"):
            assert list(arrays) == ["masked"] and arrays["masked"].dtype == np.uint64
            # As good as random: every byte value comes about as often.
            counts = np.bincount(arrays["masked"].view(np.uint8), minlength=256)
            expected = counts.sum() / 256
            assert ((counts - expected) ** 2 / expected).sum() < 256 + 6 * (2 * 256) ** 0.5
        else:
            assert not arrays
    journal = (paths[0].parent / "state" / "journal.jsonl").read_text().splitlines()
    lines = [json.loads(line.partition(" ")[2]) for line in journal]
    assert {line.get("secure", "") for line in lines} == {"", *STEP_NAMES}


def test_a_site_answers_no_plain_order_of_such_a_study(hospitals, tmp_path):
    paths = list(hospitals.values())
    study = secured(plain_study(phases=[plain_study().phases[0].model_dump()]), paths)

    def stripped(path):
        def strip(message, context, call_next):
            fields = message.content.config_records["fields"]
            if message.metadata.message_type == "train":
                for name in ("secure-step", "secure-part", "secure-message"):
                    del fields[name]
            return call_next(message, context)

        return Around(path, strip)

    with pytest.raises(QuorumNotMetError):
        run_rounds(study, paths, tmp_path / "run", grid=LocalGrid([stripped(path) for path in paths]))
    assert "nothing leaves but a masked vector" in (paths[0].parent / "client.log").read_text()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"aggregation": {"strategy": "median"}}, "median"),
        ({"aggregation": {"strategy": "krum", "options": {"attackers": 0}}}, "krum"),
        ({"aggregation": {"strategy": "trimmed_mean", "options": {"trim": 0.1}}}, "trimmed_mean"),
        ({"aggregation": {"strategy": "scaffold"}}, "scaffold"),
        ({"aggregation": {"strategy": "ditto"}}, "ditto"),
        ({"aggregation": {"strategy": "fednova"}}, "fednova"),
        ({"aggregation": {"strategy": "qfedavg"}}, "qfedavg"),
        ({"exchange": {"precision": "bf16"}}, "bf16"),
        ({"reply_bounds": {"maximum_update_norm": 1.0}}, "norm"),
        ({"sites": {"minimum": 1}}, "minimum"),
    ],
)
def test_what_needs_single_updates_is_refused_by_name(hospitals, changes, said):
    optimiser = {"name": "sgd", "lr": 1e-3}
    phases = [{"task": "ecg_mae", "rounds": 1, "local_steps": 1, "optimiser": optimiser}]
    study = secured(plain_study(phases=phases, **changes), hospitals.values())
    with pytest.raises(ConfigError) as caught:
        plan_of(study)
    assert said in str(caught.value) and caught.value.remedy


@pytest.mark.parametrize(
    "strategy", ["fedavg", "fedprox", "fedbn", "fedavgm", "fedadagrad", "fedadam", "fedyogi"]
)
def test_strategies_of_the_mean_serve(hospitals, strategy):
    phases = [{"task": "ecg_mae", "rounds": 1, **STEPS}]
    aggregation = {"strategy": strategy}
    plan_of(secured(plain_study(phases=phases, aggregation=aggregation), hospitals.values()))


class Killed(LocalGrid):
    """A server that dies as it sends for the n-th time."""

    left = 0

    def push_messages(self, messages):
        if self.left == 0:
            raise RuntimeError("killed")
        self.left -= 1
        return super().push_messages(messages)


def killed_and_resumed(study, paths, folder, *, before: int) -> str | None:
    """Digest of a study whose server died before a message and was started again; None if it did not die."""
    forget(paths)
    locate = functools.partial(hospital_of_partition, tuple(paths))
    grid = Killed([make_app(locate) for _ in paths])
    grid.left = before
    try:
        run_rounds(study, paths, folder, grid=grid)
    except RuntimeError:
        return run_rounds(study, paths, folder)["model_digest"]
    return None


def test_a_server_killed_within_a_sum_resumes_to_the_same_model(hospitals, tmp_path):
    paths = list(hospitals.values())
    study = secured(plain_study(phases=[{"task": "ecg_mae", "rounds": 1, **STEPS}]), paths)
    wanted = run_rounds(study, paths, tmp_path / "whole")["model_digest"]
    # After the census: keys, shares, vectors, signatures, shares again.
    for before in (3, 4, 5):
        assert killed_and_resumed(study, paths, tmp_path / f"{before}", before=before) == wanted


@pytest.mark.slow
def test_a_server_killed_before_any_of_its_messages_resumes_to_the_same_model(hospitals, tmp_path):
    paths = list(hospitals.values())
    phases = [{"task": "ecg_mae", "rounds": 1, **STEPS}, {"task": "prevalence", "rounds": 1}]
    study = secured(plain_study(phases=phases), paths)
    wanted = run_rounds(study, paths, tmp_path / "whole")["model_digest"]
    count = 0
    while (found := killed_and_resumed(study, paths, tmp_path / f"{count}", before=count)) is not None:
        assert found == wanted, count
        count += 1
    # A census, five steps, and five for each of two measurements; twice.
    assert count >= 25


def test_sites_that_lose_their_state_between_steps_take_part_in_the_next_attempt(hospitals, tmp_path):
    paths = list(hospitals.values())
    study = secured(plain_study(phases=[{"task": "ecg_mae", "rounds": 1, **STEPS}]), paths, threshold=3)
    study = study.model_copy(update={"sites": study.sites.model_copy(update={"minimum": 3})})
    lost = []

    def forgetful(path):
        def around(message, context, call_next):
            fields = message.content.config_records["fields"]
            if fields.get("secure-step") == "mask" and fields["secure-part"] == "train" and not lost:
                lost.append(path)
                shutil.rmtree(path.parent / "state" / "secure")
            return call_next(message, context)

        return Around(path, around)

    result = run_rounds(study, paths, tmp_path / "run", grid=LocalGrid([forgetful(path) for path in paths]))
    assert result["status"] == "completed" and len(lost) == 1
    entry = result["rounds"][0]
    assert entry["attempt"] == 2 and len([r for r in entry["sites"] if r["status"] == "trained"]) == 3


def test_secrets_of_a_session_lie_in_closed_files_and_go_when_it_is_over(hospitals, tmp_path):
    paths = list(hospitals.values())
    study = secured(plain_study(phases=[{"task": "ecg_mae", "rounds": 4, **STEPS}]), paths)
    run_rounds(study, paths, tmp_path / "run")
    for path in paths:
        kept = sorted((path.parent / "state" / "secure").rglob("*.json"))
        assert kept and {file.stat().st_mode & 0o777 for file in kept} == {0o600}
        assert {file.parents[1].name for file in kept} <= {"00-00003", "00-00004"}
    assert not list((tmp_path / "run" / "rounds").rglob("secure"))


def test_with_differential_privacy_exact_sums_leave_in_secret_and_only_steps_are_charged(hospitals, tmp_path):
    paths = list(hospitals.values())
    phases = [
        {"task": "ecg_mae", "rounds": 2, **STEPS},
        {"task": "standardise", "rounds": 1},
        {"task": "phenotype", "rounds": 1, "options": {"bootstrap_replicates": 20}, **STEPS},
    ]
    privacy = {"mechanism": "dp_sgd", "epsilon": 8.0, "deterministic": True, "accountant": "rdp"}
    study = secured(plain_study(phases=phases, privacy=privacy), paths)
    result = run_rounds(study, paths, tmp_path / "run")
    assert result["status"] == "completed"
    assert "r2_mean" in result["rounds"][-1]["pooled"] and result["rounds"][0]["pooled"]
    for path in paths:
        ledger = Ledger(path.parent / "state" / LEDGER, accountant="rdp")
        assert {entry.charge.task for entry in ledger.entries()} <= {"ecg_mae", "phenotype"}
        assert not ledger.entries() or 7.9 < ledger.spent(delta=1e-5) <= 8.0
