"""What stands against a release: each condition alone refuses, by its code, and nothing is left behind."""

from __future__ import annotations

import json

import pytest

HEADS = ("ecg_encoder", "phenotype_head", "phenotype_standardiser", "screening_head", "screening_prior")
WHOLE = (*HEADS, "ecg_projection", "cmr_generator", "diffusion_head", "cmr_tokenizer", "fusion_head")
TASKS = ("ecg_mae", "standardise", "phenotype", "prevalence", "screening")
DRAWS = (*TASKS, "generate", "memorisation")
PASSED = {"passes": 1.0, "conclusive": 1.0, "training_share": 0.5, "n_patients": 40.0}
KEY = "ecdsa-sha2-nistp384 " + "A" * 184
PRIVATE = {"mechanism": "dp_sgd", "epsilon": 4.0}


@pytest.fixture
def asked(run, tmp_path):
    """Asks for a release without making one; gives exit code, objections and the whole answer."""

    def ask(folder, *options):
        done = run("cardionets-server", "release", folder, "--out", tmp_path / "out", "--dry-run", *options,
                   "--format", "json")  # fmt: skip
        content = json.loads(done.stdout)
        assert not (tmp_path / "out").exists()
        return done.returncode, content.get("objections", [content.get("error")]), content

    return ask


def refused(answer, code, exit_code, words):
    found, objections, _ = answer
    assert found == exit_code
    assert [each["code"] for each in objections] == [code]
    assert words in objections[0]["what"] and objections[0]["remedy"]


# -- the memorisation test -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("found", "words"),
    [
        ({**PASSED, "passes": 0.0}, "did not pass"),
        ({**PASSED, "passes": 0.0, "conclusive": 0.0}, "too few cases"),
        ({**PASSED, "conclusive": 0.0}, "too few cases"),
        ({"n_patients": 4.0}, "too few cases"),
        ({}, "never tested"),
    ],
)
def test_a_generator_that_did_not_pass_is_refused_and_the_rest_may_go(
    write_run, make_study, tmp_path, asked, run, found, words
):
    folder = write_run(
        tmp_path / "run", names=WHOLE, study=make_study(DRAWS), measured={"memorisation": found}
    )
    refused(asked(folder), "memorisation-not-passed", 5, words)
    done = run("cardionets-server", "release", folder, "--out", tmp_path / "out")
    assert done.returncode == 5 and "--without-generator" in done.stderr
    assert not (tmp_path / "out").exists()
    code, objections, content = asked(folder, "--without-generator")
    assert (code, objections) == (0, [])
    assert content["left_out"] == ["cmr_generator", "cmr_tokenizer", "diffusion_head", "fusion_head"]
    assert not {"cmr_generator", "cmr_tokenizer", "diffusion_head"} & set(content["modules"])


def test_a_generator_that_passed_is_released(write_run, make_study, tmp_path, asked):
    study = make_study(DRAWS)
    folder = write_run(tmp_path / "run", names=WHOLE, study=study, measured={"memorisation": PASSED})
    code, objections, content = asked(folder)
    assert (code, objections) == (0, []) and "cmr_generator" in content["modules"]


def test_a_test_of_an_earlier_generator_does_not_count(write_run, make_study, tmp_path, asked):
    study = make_study((*TASKS, "memorisation", "generate"))
    folder = write_run(tmp_path / "run", names=WHOLE, study=study, measured={"memorisation": PASSED})
    refused(asked(folder), "memorisation-not-passed", 5, "trained on afterwards")


def test_a_test_that_drew_otherwise_does_not_count(write_run, make_study, tmp_path, asked):
    study = make_study(DRAWS)
    phases = [each.model_dump(mode="json") for each in study.phases]
    phases[-2]["options"] = {"temperature": 0.1}
    folder = write_run(
        tmp_path / "run", names=WHOLE, study=make_study(phases=phases), measured={"memorisation": PASSED}
    )
    refused(asked(folder), "memorisation-not-passed", 5, "another temperature")


# -- differential privacy ------------------------------------------------------------------------------------


def private_run(write_run, study, folder, **changes):
    return write_run(folder, study=study, measured={}, **{"loss": None, "names": HEADS, **changes})


def test_a_private_run_that_told_nothing_is_released(write_run, make_study, tmp_path, asked):
    study = make_study(("ecg_mae", "prevalence", "screening"), privacy=PRIVATE)
    assert asked(private_run(write_run, study, tmp_path / "run"))[:2] == (0, [])


@pytest.mark.parametrize(
    ("tasks", "privacy", "changes", "words"),
    [
        (("ecg_mae",), {**PRIVATE, "deterministic": True}, {}, "public seed"),
        (("ecg_mae",), PRIVATE, {"loss": 0.5}, "without noise"),
        (("ecg_mae", "prevalence", "standardise"), PRIVATE, {}, "a phase is not covered"),
    ],
)
def test_privacy_that_was_not_kept_is_refused(
    write_run, make_study, tmp_path, asked, tasks, privacy, changes, words
):
    study = make_study(tasks, privacy=privacy)
    refused(asked(private_run(write_run, study, tmp_path / "run", **changes)), "privacy-unmet", 5, words)


def test_metrics_of_a_private_run_are_refused(write_run, make_study, tmp_path, asked):
    study = make_study(("ecg_mae",), privacy=PRIVATE)
    folder = write_run(
        tmp_path / "run", names=HEADS, study=study, measured={"ecg_mae": {"r2_mean": 0.1}}, loss=None
    )
    refused(asked(folder), "privacy-unmet", 5, "without noise")


def budget_of(path, study, **changes):
    content = {"site": "a", "limit": {"epsilon": 10.0, "delta": 1e-5}, "noise_was_secret": True,
               "studies": [{"study": study.digest, "epsilon": 3.5},
                           {"study": "0" * 64, "epsilon": 9.0}]}  # fmt: skip
    path.write_text(json.dumps({**content, **changes}))
    return path


def test_a_sites_budget_is_held_against_the_studys_epsilon(write_run, make_study, tmp_path, asked):
    study = make_study(("ecg_mae",), privacy=PRIVATE)
    folder = private_run(write_run, study, tmp_path / "run")
    assert asked(folder, "--budget", budget_of(tmp_path / "good.json", study))[:2] == (0, [])
    much = budget_of(tmp_path / "much.json", study, studies=[{"study": study.digest, "epsilon": 4.2}])
    refused(asked(folder, "--budget", much), "privacy-unmet", 5, "a spent epsilon 4.200; the study allows 4")
    public = budget_of(tmp_path / "public.json", study, noise_was_secret=False)
    refused(asked(folder, "--budget", public), "privacy-unmet", 5, "was not secret")
    loose = budget_of(tmp_path / "loose.json", study, limit={"epsilon": 9.0, "delta": 1e-3})
    refused(asked(folder, "--budget", loose), "usage", 2, "at delta")
    (tmp_path / "none.json").write_text("[]")
    refused(asked(folder, "--budget", tmp_path / "none.json"), "usage", 2, "no budget")


# -- secure aggregation --------------------------------------------------------------------------------------


def secure_study(make_study):
    roster = dict.fromkeys(("a", "b", "c"), KEY)
    return make_study(("ecg_mae",), secure_aggregation={"threshold": 2, "roster": roster})


def sums_of(study, *, sites="a,b", parts=("train", "test")):
    def lines(entry):
        facts = {"study": study.digest, "phase": entry["phase"], "round": entry["round"], "attempt": 1}
        return [{**facts, "part": part, "sites": sites} for part in parts]

    return lines


def test_rounds_that_were_masked_are_released(write_run, make_study, tmp_path, asked):
    study = secure_study(make_study)
    measured = {"ecg_mae": {"r2_mean": 0.1}}
    folder = write_run(tmp_path / "run", names=HEADS, study=study, measured=measured, sums=sums_of(study))
    assert asked(folder)[:2] == (0, [])


@pytest.mark.parametrize(
    "changes",
    [{"sites": "a"}, {"sites": "a,stranger"}, {"parts": ("test",)}, {"parts": ("train",)}],
)
def test_a_round_without_a_sum_over_enough_sites_is_refused(write_run, make_study, tmp_path, asked, changes):
    study = secure_study(make_study)
    measured = {"ecg_mae": {"r2_mean": 0.1}}
    folder = write_run(tmp_path / "run", names=HEADS, study=study, measured=measured,
                       sums=sums_of(study, **changes))  # fmt: skip
    refused(asked(folder), "privacy-unmet", 5, "unmasked")


def test_a_journal_that_is_absent_torn_or_of_another_study_shows_nothing(
    write_run, make_study, tmp_path, asked
):
    study = secure_study(make_study)
    absent = write_run(tmp_path / "absent", names=HEADS, study=study, measured={})
    refused(asked(absent), "privacy-unmet", 5, "no journal")
    torn = write_run(tmp_path / "torn", names=HEADS, study=study, measured={}, sums=sums_of(study))
    path = torn / "journal.jsonl"
    path.write_bytes(path.read_bytes().replace(b'"a,b"', b'"a,c"', 1))
    refused(asked(torn), "privacy-unmet", 5, "does not continue the chain")
    other = write_run(tmp_path / "other", names=HEADS, study=study, measured={}, sums=sums_of(make_study()))
    refused(asked(other), "privacy-unmet", 5, "unmasked")


def test_several_objections_are_told_together(write_run, make_study, tmp_path, asked, run):
    study = make_study(DRAWS, secure_aggregation={"threshold": 2, "roster": dict.fromkeys("abc", KEY)})
    folder = write_run(tmp_path / "run", names=WHOLE, study=study, measured={})
    code, objections, _ = asked(folder)
    assert code == 5 and [each["code"] for each in objections] == ["memorisation-not-passed", "privacy-unmet"]
    done = run("cardionets-server", "release", folder, "--out", tmp_path / "out")
    assert done.returncode == 5 and "never tested" in done.stderr and "no journal" in done.stderr
    # What --without-generator leaves out is not what stands against the rest.
    assert [each["code"] for each in asked(folder, "--without-generator")[1]] == ["privacy-unmet"]


# -- what is not whole ---------------------------------------------------------------------------------------


def test_a_study_that_has_not_completed_is_refused(write_run, tmp_path, asked, change, run):
    folder = write_run(tmp_path / "run", names=HEADS)
    change(
        folder / "result.json", lambda content: content.update(status="paused", paused={"what": "no site"})
    )
    refused(asked(folder), "study-unfinished", 7, "no site")
    told = run("cardionets-server", "release", folder, "--out", tmp_path / "out", "--dry-run").stdout
    assert told.startswith("there is no model to release") and "the study has not completed" in told
    (folder / "result.json").unlink()
    refused(asked(folder), "study-unfinished", 7, "no result")


def test_a_history_that_lacks_a_round_or_sites_is_refused(write_run, tmp_path, asked, change):
    folder = write_run(tmp_path / "run", names=HEADS, measured={})
    change(folder / "result.json", lambda content: content["rounds"].pop(0))
    refused(asked(folder), "study-unfinished", 7, "stand behind a round")


def tear(name):
    def torn(content):
        content["modules"][name] = "0" * 64

    return torn


def test_parts_that_do_not_fit_together_are_refused(write_run, make_study, tmp_path, asked, change):
    measured = {"phenotype": {"r2_mean": 0.4}}

    def fresh(name):
        return write_run(tmp_path / name, names=HEADS, measured=measured)

    folder = fresh("digest")
    change(folder / "result.json", tear("ecg_encoder"))
    refused(asked(folder), "checkpoint", 7, "not the one that the result names")
    folder = fresh("study")
    (folder / "study.json").write_text(make_study(seed=2).to_json())
    refused(asked(folder), "checkpoint", 7, "study is not the one")
    folder = fresh("metrics")
    change(folder / "result.json", lambda content: content["rounds"][2]["test"]["pooled"].update(r2_mean=0.9))
    refused(asked(folder), "checkpoint", 7, "different measurements")
    folder = fresh("file")
    path = folder / "model" / "ecg_encoder.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"\x01")
    refused(asked(folder), "checkpoint", 7, "digest")
    folder = fresh("json")
    (folder / "result.json").write_text("{")
    refused(asked(folder), "checkpoint", 7, "cannot be read")


def test_weights_that_were_changed_with_their_file_digest_are_found_when_they_are_loaded(
    write_run, tmp_path, run, change
):
    from hashlib import sha256

    folder = write_run(tmp_path / "run", names=HEADS, measured={})
    path = folder / "model" / "ecg_encoder.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"\x01")
    digest = sha256(path.read_bytes()).hexdigest()
    change(folder / "model" / "model.json",
           lambda content: content["modules"]["ecg_encoder"].update(file_sha256=digest))  # fmt: skip
    done = run("cardionets-server", "release", folder, "--out", tmp_path / "out")
    assert done.returncode == 7 and "digest" in done.stderr
    assert sorted(each.name for each in tmp_path.iterdir()) == ["run"]


def test_there_must_be_a_run(tmp_path, asked, run):
    refused(asked(tmp_path), "folder-missing", 4, "neither a workspace nor a run")
    assert run("cardionets-server", "init", tmp_path / "home").returncode == 0
    refused(asked(tmp_path / "home"), "study-unfinished", 7, "no study has run")


# -- what it is for ------------------------------------------------------------------------------------------


DRAWS_ALONE = ("ecg_encoder", "ecg_projection", "cmr_generator", "diffusion_head", "cmr_tokenizer")


@pytest.mark.parametrize(
    ("names", "options"),
    [
        (("ecg_encoder",), ()),
        (("phenotype_head", "phenotype_standardiser"), ()),
        (DRAWS_ALONE, ("--without-generator",)),
    ],
)
def test_a_model_that_says_nothing_of_an_ecg_is_refused_before_anything_is_written(
    write_run, make_study, tmp_path, asked, run, names, options
):
    folder = write_run(tmp_path / "run", names=names, study=make_study(("ecg_mae",)), measured={})
    refused(asked(folder, *options), "checkpoint", 7, "say nothing of an ECG")
    done = run("cardionets-server", "release", folder, "--out", tmp_path / "out", *options)
    assert done.returncode == 7 and "say nothing of an ECG" in done.stderr
    assert not (tmp_path / "out").exists()
