"""``cardionets-client predict``: what it prints and writes, what it refuses, and what it never tells."""

from __future__ import annotations

import csv
import html
import io
import json
import re
import stat

import numpy as np
import pytest

from client.predict.lines import percent, plain, prediction_csv
from client.predict.reading import named_recordings

NAMES = ("Jane", "Doe", "Ward")


@pytest.fixture(scope="module")
def ecgs(tmp_path_factory, write_ecg):
    """Two good recordings, one that is too short, and a letter."""
    folder = tmp_path_factory.mktemp("ecgs") / "Ward"
    write_ecg(folder, "Jane-1", seed=1)
    write_ecg(folder, "Jane-2", seed=2)
    write_ecg(folder / "short", "Doe-3", seconds=3)
    (folder / "letter.txt").write_text("dear colleague")
    return folder


@pytest.fixture(scope="module")
def shown(whole, ecgs, tmp_path_factory, client):
    """One call with everything: result, page, folder of cines."""
    folder = tmp_path_factory.mktemp("shown")
    done = client(
        "predict", "--model", whole, ecgs / "Jane-1.hea", ecgs / "short", ecgs / "letter.txt",
        "--format", "json", "--out", folder / "cines",
        "--page", folder / "page.html", "--explain", "cad", "--explain", "pc",
    )  # fmt: skip
    return done, folder


def test_refused_files_end_with_4_and_the_others_are_predicted(shown, whole):
    done, _ = shown
    assert done.code == 4, done.err
    content = json.loads(done.out)
    assert content["schema_version"] == 1 and content["notice"] == "Research use only. Not for diagnosis."
    assert content["model"]["digest"] == json.loads((whole / "model.json").read_text())["model_digest"]
    assert content["model"]["not_explained"] == ["pc"]
    good, short, letter = content["recordings"]
    assert [(each["argument"], each["record"]) for each in content["recordings"]] == [(1, 1), (2, 1), (3, 1)]
    assert (short["reason"], letter["reason"]) == ("ecg-too-short", "unrecognised")
    assert good["verdict"] == "accepted" and good["reason"] is None
    lvef = next(each for each in good["phenotypes"] if each["field"] == 24103)
    assert (lvef["unit"], lvef["held_out_r2"], lvef["held_out_rmse"]) == ("%", 0.4, 5.0)
    assert lvef["high"] - lvef["low"] == pytest.approx(2 * 1.96 * 5.0, abs=1e-2)
    assert good["phenotypes_untrained"] == 80 and good["screening"]["diseases_untrained"] == 1
    assert good["cine"]["synthetic"] is True and good["explained"][0]["name"] == "cad"


def test_cines_and_page_are_private_and_named_by_number(shown):
    _, folder = shown
    names = sorted(path.name for path in (folder / "cines").iterdir())
    assert names == [f"recording-1.1-synthetic.{ending}" for ending in ("gif", "nii.gz", "png")]
    for path in [*(folder / "cines").iterdir(), folder / "page.html"]:
        assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_the_page_stands_alone_and_says_what_it_is(shown):
    done, folder = shown
    page = html.unescape((folder / "page.html").read_text())
    assert page.count("Research use only. Not for diagnosis.") >= 2
    assert "Nothing that is measured on it" in page and "not predicted better than the mean" in page
    assert "range of 95 % of the study's training patients if normally distributed" in page
    assert "Refused: the recording is shorter than 5 s" in page and 'class="cells"' in page
    assert page.count("data:image/gif") == page.count("data:image/png") == 1
    assert not [word for word in ("http:", "https:", "<script", "<link", "url(") if word in page]
    told = re.sub(r"data:image/[a-z]+;base64,[A-Za-z0-9+/=]+", "", page) + done.out + done.err
    assert not [name for name in NAMES if name in told]


def test_a_folder_is_numbered_as_by_inspect_and_strangers_in_it_are_passed_over(ecgs):
    named = named_recordings([ecgs])
    assert [each.number for each in named] == ["1.1", "1.2", "1.4"]  # 1.3 is the letter
    assert [each.number for each in named_recordings([ecgs / "letter.txt"])] == ["1.1"]


def test_nothing_is_written_over_and_nothing_computed_first(shown, whole, ecgs, client):
    _, folder = shown
    before = (folder / "page.html").read_bytes()
    for option, path in (("--page", folder / "page.html"), ("--out", folder / "cines")):
        done = client("predict", "--model", folder / "absent", ecgs / "Jane-1.hea", option, path)
        assert done.code == 2 and "--replace" in done.err and done.out == ""
    assert (folder / "page.html").read_bytes() == before
    done = client(
        "predict",
        "--model",
        whole,
        ecgs / "Jane-2.hea",
        "--page",
        folder / "page.html",
        "--replace",
        "--no-cine",
    )
    assert done.code == 0 and (folder / "page.html").read_bytes() != before
    assert "data:image/gif" not in (folder / "page.html").read_text()


def test_csv_has_one_line_a_quantity_and_the_table_says_the_same(whole, ecgs, client):
    done = client("predict", "--model", whole, ecgs / "Jane-1.hea", ecgs / "short", "--format", "csv")
    rows = list(csv.DictReader(io.StringIO(done.out)))
    assert done.code == 4 and {row["use"] for row in rows} == {"research use only"}
    kinds = [row["kind"] for row in rows]
    assert kinds == ["phenotype"] * 2 + ["probability"] * 4 + ["probability given cm"] * 3 + [""]
    assert rows[-1]["reason"] == "ecg-too-short"
    assert sum(float(row["value"]) for row in rows if row["kind"] == "probability given cm") == pytest.approx(
        1.0
    )
    table = client("predict", "--model", whole, ecgs / "Jane-1.hea")
    assert table.code == 0 and table.out.startswith("Research use only. Not for diagnosis.\n")
    lvef = next(row for row in rows if row["field"] == "24103")
    assert f"{float(lvef['value']):.1f} % [" in table.out and "80 phenotypes left out" in table.out
    assert "LV end diastolic volume" in table.out and "not predicted better than the mean" in table.out
    assert not [name for name in NAMES if name in table.out + table.err + done.out + done.err]


def test_a_model_without_heads_says_what_it_lacks(make_model, ecgs, client):
    folder = make_model(("ecg_encoder", "phenotype_head", "phenotype_standardiser"))
    done = client("predict", "--model", folder, ecgs / "Jane-1.hea", "--format", "json")
    content = json.loads(done.out)
    assert done.code == 0 and content["recordings"][0]["screening"] is None
    assert content["model"]["not_in_this_model"] == {
        "screening": ["screening_head", "screening_prior"],
        "cine": ["ecg_projection", "cmr_generator", "diffusion_head", "cmr_tokenizer"],
    }
    told = client("predict", "--model", folder, ecgs / "Jane-1.hea").out
    assert "screening: not in this model" in told and "synthetic cine: not in this model" in told
    bare = client("predict", "--model", make_model(("ecg_encoder",)), ecgs / "Jane-1.hea", "--format", "json")
    assert bare.code == 7 and json.loads(bare.out)["error"]["code"] == "checkpoint"


def test_what_cannot_be_is_refused_by_its_code(whole, ecgs, tmp_path, client):
    ecg = ecgs / "Jane-1.hea"
    assert client("predict", "--model", whole, ecg, "--explain", "gout").code == 2
    assert client("predict", "--model", whole, ecg, "--page", tmp_path / "no" / "page.html").code == 2
    assert client("predict", "--model", whole, ecg, "--device", "warp").code == 3
    assert client("predict", "--model", whole, tmp_path).code == 4
    assert client("predict", "--model", tmp_path, ecg).code == 7


def test_a_bare_array_is_read_as_the_site_declares_it(whole, tmp_path, client):
    beat = np.exp(-0.5 * (((np.arange(2500) / 250 % 0.8) - 0.4) / 0.02) ** 2)
    rows = np.stack([beat * (1 + n / 12) for n in range(12)]) + np.random.default_rng(1).normal(
        0, 0.02, (12, 2500)
    )
    rows[2] = rows[1] - rows[0]
    rows[3], rows[4], rows[5] = -(rows[0] + rows[1]) / 2, rows[0] - rows[1] / 2, rows[1] - rows[0] / 2
    (tmp_path / "ecg").mkdir()
    np.save(tmp_path / "ecg" / "a.npy", (1000 * rows).astype(np.float32))
    done = client("predict", "--model", whole, tmp_path / "ecg" / "a.npy", "--format", "json")
    assert done.code == 4 and json.loads(done.out)["recordings"][0]["reason"] == "ecg-undeclared"
    site = tmp_path / "site.yaml"
    site.write_text(
        "site: alpha\n"
        "source:\n"
        "  kind: local_site\n"
        f"  ecg: {{folder: {tmp_path / 'ecg'}, format: npy, pattern: '{{patient}}.npy',\n"
        "        rate_hz: 250, unit: uV, leads: [I, II, III, aVR, aVL, aVF, V1, V2, V3, V4, V5, V6]}\n"
        "policy: {phases: [ecg_mae], minimum_patients: 5}\n"
    )
    done = client("predict", "--model", whole, tmp_path / "ecg" / "a.npy", "--site", site, "--format", "json")
    assert done.code == 0, done.out + done.err
    assert json.loads(done.out)["recordings"][0]["format"] == "NumPy array"


def test_numbers_are_worded_without_false_certainty():
    assert [percent(share) for share in (0.0, 1e-5, 0.034, 0.44, 0.9999, 1.0)] == [
        "0.0 %", "under 0.1 %", "3.4 %", "44 %", "over 99.9 %", "100.0 %",
    ]  # fmt: skip
    assert [plain(value) for value in (0.837, 9.996, 61.24, 99.96, 1042.4, -14.53)] == [
        "0.84", "10.0", "61.2", "100", "1,042", "-14.5",
    ]  # fmt: skip
    assert prediction_csv({"recordings": []}).count("\n") == 1
