"""A site of which nothing, or little, can be used is told so."""

import json
from collections import Counter

import numpy as np
import pytest
import yaml

from cardionets_core.config.site import read_site
from cardionets_core.data.cache import open_cache, summary
from cardionets_core.errors import REFUSAL_REASONS
from client.report.unusable import mostly_left_out, nothing_usable


def write_site(tmp_path, *, unit, recordings=3):
    """ECGs in microvolt, as CSV without units."""
    rng, t = np.random.default_rng(0), np.arange(5000) / 500
    (tmp_path / "ecg").mkdir()
    beat = np.exp(-0.5 * (((t % 1.0) - 0.5) / 0.02) ** 2)
    for number in range(recordings):
        one, two = (size * beat + rng.normal(0, 0.02, len(t)) for size in (0.8, 1.0))
        rows = [one, two, two - one, -(one + two) / 2, one - two / 2, two - one / 2]
        rows += [size * beat + rng.normal(0, 0.02, len(t)) for size in np.linspace(0.5, 1.5, 6)]
        names = "I,II,III,aVR,aVL,aVF,V1,V2,V3,V4,V5,V6"
        np.savetxt(
            tmp_path / "ecg" / f"{number}.csv", 1000 * np.array(rows).T, delimiter=",", header=names,
            comments="", fmt="%.0f",
        )  # fmt: skip
    ecg = {"format": "csv", "folder": "ecg", "rate_hz": 500, "unit": unit}
    document = {
        "site": "here",
        "source": {"kind": "local_site", "ecg": ecg},
        "policy": {"phases": ["ecg_mae"]},
    }
    (tmp_path / "site.yaml").write_text(yaml.safe_dump(document))
    return tmp_path / "site.yaml"


def test_a_wrong_unit_ends_with_an_error_after_the_summary(tmp_path, client):
    site = write_site(tmp_path, unit="mV")
    done = client("prepare", "--site", site, "--format", "json")
    answer = json.loads(done.out)
    ((reason, count),) = answer["refusals"].items()
    assert done.code == 4 and count == 3 and reason in ("ecg-gain", "ecg-amplitude")
    error = answer["error"]
    assert error["code"] == "too-few-patients" and error["exit_code"] == 4
    assert "none of 3 recordings" in error["what"] and REFUSAL_REASONS[reason] in error["what"]
    assert "inspect" in error["remedy"] and answer["report"] in error["remedy"]
    assert any("None of 3 ECGs can be used" in warning for warning in answer["warnings"])
    table = client("prepare", "--site", site)
    assert table.code == 4 and "ecg: 0 of 3 used" in table.out and "report: " in table.out
    assert "error [too-few-patients]: none of 3 recordings" in table.err
    page = (read_site(site).folders.cache / "report" / "quality.html").read_text()
    assert "None of 3 ECGs" in page and "Nothing stands out" not in page


def test_where_nothing_is_listed_that_is_an_error_too():
    error = nothing_usable({"found": {"ecg": {"accepted": 0}}, "refusals": {}, "report": "x"})
    assert (
        error is not None and error.exit_code == 4 and "there is no recording" in error.what and error.remedy
    )


def test_more_than_half_left_out_is_a_warning_only(tmp_path, client):
    site = write_site(tmp_path, unit="uV", recordings=5)
    assert "cannot be used" not in client("prepare", "--site", site).out
    for number in range(3):
        (tmp_path / "ecg" / f"{number}.csv").write_text("I,II\n1,2\n")
    done = client("prepare", "--site", site)
    assert done.code == 0 and "warning: 3 of 5 ECGs cannot be used, most often for ecg-" in done.out


def table_of(**kinds):
    """``ecg=(used, {reason: count})`` to the columns of a record table."""
    rows = [(kind, True, None) for kind, (used, _) in kinds.items() for _ in range(used)]
    rows += [
        (kind, False, why)
        for kind, (_, reasons) in kinds.items()
        for why, count in reasons.items()
        for _ in range(count)
    ]
    return dict(zip(("kind", "accepted", "reason"), map(list, zip(*rows, strict=True)), strict=True))


def test_each_kind_is_judged_by_itself_and_the_withdrawn_do_not_count():
    table = table_of(ecg=(2, {"ecg-flat": 1, "ecg-gain": 2}), cine=(50, {"withdrawn": 60}))
    refusals = Counter(reason for reason in table["reason"] if reason)
    (told,) = mostly_left_out(table, refusals)
    assert told.startswith("3 of 5 ECGs cannot be used, most often for ecg-gain (2: ")
    missing = mostly_left_out(table, refusals + Counter({"cine-file-missing": 51, "ecg-flat": 1}))
    assert missing[0].startswith("4 of 6 ECGs") and missing[1].startswith("51 of 101 cines")
    half = table_of(ecg=(3, {"ecg-flat": 3}))
    assert mostly_left_out(half, {"ecg-flat": 3}) == []


def test_where_all_have_withdrawn_that_is_the_reason():
    found = {"ecg": {"accepted": 0}}
    error = nothing_usable({"found": found, "refusals": {"withdrawn": 7}, "report": "x"})
    assert error is not None and "none of 7" in error.what and "withdrawn" in error.what
    assert nothing_usable({"found": {"ecg": {"accepted": 1}}, "refusals": {"withdrawn": 7}}) is None


def test_other_views_have_columns_of_their_own(hospital, client):
    document = yaml.safe_load(hospital.site.read_text())
    document["source"]["cmr"]["view"] = "sax"
    document["prepare"]["views"] = ["4ch", "sax"]
    hospital.site.write_text(yaml.safe_dump(document))
    found = json.loads(client("prepare", "--site", hospital.site, "--format", "json").out)
    splits = [found[name] for name in ("train", "validation", "test")]
    assert sum(counts["views"]["sax"] for counts in splits) == 11
    assert all(counts["cines"] == counts["pairs"] == 0 for counts in splits)
    cohort = open_cache(read_site(hospital.site))
    assert summary(cohort)["train"] == found["train"]
    lines = client("prepare", "--site", hospital.site).out.splitlines()
    columns = ["patients", "ECGs", "4-chamber cines", "short-axis cines", "pairs", "phenotype rows"]
    assert (
        lines[0].split("  ", 1)[0] == "split"
        and [c.strip() for c in lines[0].split("  ") if c.strip()][1:] == columns
    )
    ends = [lines[0].index(name) + len(name) for name in columns]
    row = [int(lines[1][:end].split()[-1].replace(",", "")) for end in ends]
    assert row[2] == 0 and row[3] == found["train"]["views"]["sax"] and row[0] == found["train"]["patients"]
    assert any(line.startswith("pairs are ECGs with a 4-chamber cine") for line in lines)
    page = (read_site(hospital.site).folders.cache / "report" / "quality.html").read_text()
    assert '<th class="n">short-axis cines</th>' in page and "No phase uses another view" in page
    told = client("check", "--site", hospital.site).out
    assert "0 4-chamber cines, 0 pairs" in told and f"{row[3]} short-axis cines" in told


@pytest.mark.parametrize("mode, warned", [(0o644, True), (0o600, False)])
def test_prepare_warns_of_a_key_that_others_may_read(tmp_path, client, mode, warned):
    site = write_site(tmp_path, unit="uV")
    assert client("prepare", "--site", site).code == 0
    read_site(site).folders.secret.chmod(mode)
    done = client("prepare", "--site", site)
    assert done.code == 0 and ("warning [privacy]" in done.err and "chmod 600" in done.err) is warned
