"""What IT is told of a study's privacy before it says yes: in words, and true of that very study and site."""

import pytest
import yaml

from cardionets_core.audit import journal
from cardionets_core.config.site import read_site
from cardionets_core.config.study import Study
from cardionets_core.privacy.accountant import Mechanism
from cardionets_core.privacy.ledger import Ledger
from cardionets_core.privacy.ledger_lines import Charge
from cardionets_core.trust.keys import make_key, public_openssh
from client.approvals import ApprovalStore
from client.approvals.lines import study_lines
from client.approvals.study_facts import study_facts

PHASE = {"task": "ecg_mae", "rounds": 1, "local_epochs": 1, "optimiser": {"lr": 1e-3}}


def told(tmp_path, *, policy=None, **changes):
    """The lines as one text without line breaks."""
    config = None
    if policy is not None:
        document = {"site": "alpha", "policy": {"phases": ["ecg_mae"], **policy},
                    "source": {"kind": "local_site", "ecg": {"folder": "ecg", "format": "wfdb"}}}  # fmt: skip
        (tmp_path / "site.yaml").write_text(yaml.safe_dump(document))
        config = read_site(tmp_path / "site.yaml")
    study = Study.model_validate({"name": "s", "phases": [PHASE], **changes})
    lines = study_lines(study_facts(study, ApprovalStore(tmp_path / "approvals"), config=config))
    return " ".join(" ".join(lines).split())


def test_a_plain_study_is_told_as_one_that_protects_nobody_by_noise_or_sums(tmp_path):
    found = told(tmp_path)
    assert "no differential privacy: whoever holds the model" in found and "single patients" in found
    assert "no secure aggregation: the coordinator sees what this hospital sends by itself" in found
    assert "nothing" not in found.partition("leaves before")[0]


def test_phases_of_both_views_are_told_apart(tmp_path):
    found = told(
        tmp_path,
        phases=[{**PHASE, "task": "tokenizer", "options": {"view": view}} for view in ("4ch", "sax")],
    )
    assert "phase 1 tokenizer · 1 round(s)" in found and "phase 2 tokenizer (sax) · 1 round(s)" in found


def test_a_private_study_is_told_with_its_epsilon_and_delta(tmp_path):
    found = told(tmp_path, privacy={"mechanism": "dp_sgd", "epsilon": 3.5, "delta": 1e-6})
    assert "differential privacy for each training patient: epsilon at most 3.5 at delta 1e-06" in found
    assert "no differential privacy" not in found and "NOT PRIVATE" not in found


def test_a_study_that_names_its_noise_promises_no_epsilon(tmp_path):
    found = told(tmp_path, privacy={"mechanism": "dp_sgd", "noise_multiplier": 1.25})
    assert "noise of 1.25 times the clip" in found and "no epsilon of the study's own" in found
    assert "at most" not in found.partition("no secure aggregation")[0].partition("differential")[2]


def test_noise_that_anybody_can_compute_is_called_not_private(tmp_path):
    privacy = {"mechanism": "dp_sgd", "epsilon": 8, "deterministic": True}
    assert "NOT PRIVATE: the noise follows from the study's public seed" in told(tmp_path, privacy=privacy)


def test_secure_aggregation_is_told_with_how_many_hospitals_hide_each_other(tmp_path):
    roster = {name: public_openssh(make_key().public_key()).strip() for name in ("a", "b", "c", "d", "e")}
    found = told(tmp_path, secure_aggregation={"threshold": 4, "roster": roster})
    assert "the coordinator sees sums over at least 4 of these 5 hospitals, and no hospital's own" in found
    assert "no secure aggregation" not in found and "no differential privacy" in found


@pytest.mark.parametrize(
    ("policy", "says", "not_says"),
    [
        (None, "exact or rounded, also below policy.minimum_cell", "no counts"),
        ({}, "exact, also below policy.minimum_cell", "no counts"),
        ({"count_rounding": 5}, "as multiples of 5, also below policy.minimum_cell", "exact"),
        ({"cohort_sizes": False}, "no counts, as policy.cohort_sizes says", "refusals"),
    ],
)
def test_the_counts_of_a_census_are_told_as_this_sites_policy_has_them(tmp_path, policy, says, not_says):
    found = told(tmp_path, policy=policy)
    assert says in found and not_says not in found


PRIVATE = {"mechanism": "dp_sgd", "epsilon": 5.0}
LIMIT = {"privacy": {"maximum_epsilon": 6.0, "maximum_delta": 1e-5}}


def spend(folder):
    """An earlier study's rounds; gives their epsilon."""
    ledger = Ledger(folder / "state" / "ledger.db")
    mechanism = Mechanism(noise_multiplier=1.5, sample_rate=0.2, steps=20)
    ledger.commit(
        ledger.reserve(
            Charge(
                study="0" * 64,
                name="earlier",
                phase=0,
                task="ecg_mae",
                round=1,
                part="train",
                mechanism=mechanism,
            ),
            [],
        )
    )
    return ledger.spent(delta=1e-5)


def test_a_private_study_is_told_with_what_the_site_has_left(tmp_path):
    found = told(tmp_path, policy=LIMIT, privacy=PRIVATE)
    assert "this site has 6.000 of its limit 6 left; this study may need up to 5: enough" in found
    spent = spend(tmp_path)
    assert 1.0 < spent < 6.0
    found = told(tmp_path, policy=LIMIT, privacy=PRIVATE)
    left = f"this site has {6.0 - spent:.3f} of its limit 6 left; this study may need up to 5: it may not be"
    assert left in found and "raise policy.privacy.maximum_epsilon in site.yaml" in found
    noise = {"mechanism": "dp_sgd", "noise_multiplier": 1.25}
    assert "what this study needs follows from your patients" in told(tmp_path, policy=LIMIT, privacy=noise)
    assert "of its limit" not in told(tmp_path, policy=LIMIT) + told(tmp_path, privacy=PRIVATE)


def test_a_ledger_that_was_lost_is_told_in_the_place_of_what_is_left(tmp_path):
    spend(tmp_path)
    facts = {"ledger_lines": 2, "ledger_head": "ab" * 32}
    journal.append(tmp_path / "state" / "journal.jsonl", "privacy-spent", facts)
    found = told(tmp_path, policy=LIMIT, privacy=PRIVATE)
    assert "limit 6 is left cannot be told [data]: the ledger is not the one" in found
    assert "enough" not in found


def test_a_private_study_is_not_told_as_one_that_measures(tmp_path):
    found = told(tmp_path, policy={"role": "external"}, privacy=PRIVATE)
    assert "nothing is measured here: neither losses nor metrics leave this hospital" in found
    assert "measured on held-out patients" not in found and "when measured" not in found
    assert "permitted here: no: policy.role" in found and "measured only" not in found
    roster = {name: public_openssh(make_key().public_key()).strip() for name in ("a", "b", "c")}
    masked = told(tmp_path, privacy=PRIVATE, secure_aggregation={"threshold": 2, "roster": roster})
    for text in (masked, told(tmp_path)):
        assert "measured on held-out patients" in text and "when measured" in text
        assert "nothing is measured" not in text
