"""What ``prepare`` prints, and the report: true to the cache, without a name, for this account only."""

import datetime
import html
import json
import re
import shutil
from collections import Counter
from html.parser import HTMLParser

import numpy as np
import pytest
import yaml

from cardionets_core.config.site import read_site
from cardionets_core.data.cache import open_cache, record_table
from cardionets_core.data.records import LABELS
from cardionets_core.errors import REFUSAL_REASONS
from client.report.content import report_content
from client.report.histograms import histogram
from client.report.page import Example, Group, _percent, render_page
from client.report.quality_report import write_report
from client.wording import warning_words

DAMAGED = {"ecg-truncated": 1, "ecg-flat": 1, "ecg-amplitude": 1, "cine-flat": 1}
VOID = {"meta", "img", "br", "path", "rect", "line"}


class Page(HTMLParser):
    """Checks that tags are closed, and gathers the text and what is loaded."""

    def __init__(self):
        super().__init__(convert_charrefs=True)
        self.open, self.text, self.sources = [], [], []

    def handle_starttag(self, tag, attrs):
        self.sources += [value for name, value in attrs if name in ("src", "href", "data", "xlink:href")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


@pytest.fixture(scope="module")
def prepared(made_once, client, tmp_path_factory):
    """A prepared copy: its document, and the program's own words."""
    folder = tmp_path_factory.mktemp("prepared") / "alpha"
    shutil.copytree(made_once.folder, folder, copy_function=shutil.copy2)
    done = client("prepare", "--site", folder / "site.yaml", "--format", "json")
    assert done.code == 0, done.err
    return folder / "site.yaml", done


def report_of(site):
    folder = read_site(site).folders.cache / "report"
    return json.loads((folder / "quality.json").read_text()), (folder / "quality.html").read_text()


def test_prepare_prints_one_object_and_plain_progress(prepared):
    _, done = prepared
    result = json.loads(done.out)
    assert result["schema_version"] == 1 and result["site"] == "alpha"
    assert result["refusals"] == DAMAGED
    assert sum(result[split]["patients"] for split in ("train", "validation", "test")) == 12
    assert "reading the recordings · 23 of 23" in done.err and "\x1b" not in done.err
    assert result["report"].endswith("quality.html")


def test_the_numbers_of_the_report_are_those_of_the_cache(prepared):
    site, _ = prepared
    content, _ = report_of(site)
    config = read_site(site)
    cohort, table = open_cache(config), record_table(config)
    assert content["cache_digest"] == cohort.digest
    assert content["recordings"]["ecg"] == {"listed": 11, "accepted": 8, "flagged": 0}
    assert content["recordings"]["cine"]["accepted"] == 11
    assert {row["reason"]: row["count"] for row in content["left_out"]} == DAMAGED
    assert all(row["sentence"] == REFUSAL_REASONS[row["reason"]] for row in content["left_out"])
    for name, column in (
        ("rate_hz", "fs_hz"),
        ("duration_s", "duration_s"),
        ("amplitude_mv", "amplitude_mv"),
    ):
        known = [value for value in table[column].to_pylist() if value is not None]
        found = content["histograms"][name]
        assert sum(bar["count"] for bar in found["bars"]) == found["known"] == len(known)
        assert found["unknown"] == 11 - len(known)
        assert found["median"] == pytest.approx(np.median(known), rel=5e-3)
    ages = content["histograms"]["age_years"]
    assert (ages["least"], ages["most"], ages["known"]) == (40, 62, 12)
    assert content["sex"] == {"female": 6, "male": 6, "unknown": 0}
    flags = Counter(
        flag
        for accepted, names in zip(table["accepted"].to_pylist(), table["flags"].to_pylist(), strict=True)
        if accepted
        for flag in names
    )
    assert {row["flag"]: row["count"] for row in content["flags"]} == dict(flags)
    known = {row["field"]: row["known"] for row in content["phenotypes"]["fields"]}
    assert list(known.values()) == np.isfinite(cohort.phenotypes).sum(axis=0).tolist()
    assert [row["disease"] for row in content["diseases"]] == list(LABELS)
    for place, row in enumerate(content["diseases"]):
        assert row["known"] == len(set(cohort.row_patient[np.isfinite(cohort.diseases[:, place])]))


def test_the_page_is_whole_and_shows_the_refused_and_the_accepted(prepared):
    site, _ = prepared
    content, text = report_of(site)
    page = Page()
    page.feed(text)
    assert page.open == []
    words = " ".join(" ".join(page.text).split())
    assert "This page stays in the building" in words
    for row in content["left_out"]:
        assert row["reason"] in words and row["sentence"] in words
    assert text.count('class="strip"') == 2 + 2, "two accepted; the flat one and the loud one"
    assert text.count("data:image/png;base64,") == 3 * (2 + 1)
    assert "100 mV up (usual would be 0.5 mV)" in words or "50 mV up" in words


def test_the_page_loads_nothing_and_names_nobody(prepared, made_once):
    site, done = prepared
    content, text = report_of(site)
    page = Page()
    page.feed(text)
    assert all(source.startswith("data:image/png;base64,") for source in page.sources)
    assert not re.search(r"<script|https?://|@import|url\(", text)
    assert "default-src 'none'" in text
    secrets = {*made_once.identifiers, *record_table(read_site(site))["pseudonym"].to_pylist()} - {None}
    shown = text + json.dumps(content) + done.out.replace(str(site.parent), "") + done.err
    assert not [name for name in secrets if name in shown]
    assert str(site.parent) not in text + json.dumps(content)


def test_only_this_account_may_read_the_report_and_an_absent_one_is_written_again(prepared, client):
    site, _ = prepared
    folder = read_site(site).folders.cache / "report"
    assert folder.stat().st_mode & 0o077 == 0
    assert {path.name: path.stat().st_mode & 0o777 for path in folder.iterdir()} == {
        "quality.html": 0o600,
        "quality.json": 0o600,
    }
    before = report_of(site)[0]
    (folder / "quality.html").unlink()
    done = client("prepare", "--site", site)
    assert done.code == 0 and "refusals: cine-flat 1" in done.out
    assert report_of(site)[0] == before
    stamp = (folder / "quality.html").stat().st_mtime_ns
    assert client("prepare", "--site", site).code == 0
    assert (folder / "quality.html").stat().st_mtime_ns == stamp


def test_a_dry_run_counts_and_writes_nothing(hospital, client):
    first = client("prepare", "--site", hospital.site, "--dry-run", "--format", "json")
    found = json.loads(first.out)
    assert (found["listed"], found["patients"], found["new"], found["gone"]) == (23, 12, 23, 0)
    assert not (hospital.folder / "cache").exists()
    assert client("prepare", "--site", hospital.site).code == 0
    ecgs = sorted((hospital.folder / "ecg").glob("*.dat"))
    ecgs[0].write_bytes(ecgs[0].read_bytes() + b"\0\0")
    index = hospital.folder / "index.csv"
    lines = index.read_text().splitlines()
    index.write_text("\n".join(lines[:-1]) + "\n")
    found = json.loads(client("prepare", "--site", hospital.site, "--dry-run", "--format", "json").out)
    assert (found["new"], found["changed"], found["gone"]) == (
        0,
        1,
        len(re.findall(r"\.hea|\.nii", lines[-1])),
    )
    assert found["unchanged"] == found["listed"] - 1 and found["again"] == ""
    assert "1 changed" in client("prepare", "--site", hospital.site, "--dry-run").out
    before = report_of(hospital.site)[0]["patients"]
    assert client("prepare", "--site", hospital.site).code == 0
    assert report_of(hospital.site)[0]["patients"] == before - 1, "who is gone is gone from the report"


def test_words_of_a_document_are_escaped(prepared):
    site, _ = prepared
    config = read_site(site)
    content = write_report(config, open_cache(config), today=datetime.date(2031, 2, 3))
    hostile = "<b>&\"'"
    content |= {"warnings": [hostile], "notes": {hostile: 2}}
    groups = [Group(title=hostile, sentence=hostile, examples=(Example(caption=hostile),))]
    text = render_page(content, made_on="2031-02-03", histograms={}, accepted=groups, refused=groups)
    assert hostile not in text and text.count("&lt;b&gt;&amp;") >= 8
    assert html.unescape(text).count(hostile) >= 8 and "Made on 2031-02-03" in text


def test_a_suspect_gain_and_duplicates_are_said_in_sentences(prepared):
    site, _ = prepared
    config = read_site(site)
    cohort = open_cache(config)
    table = {"kind": ["ecg"] * 20, "accepted": [True] * 20, "reason": [None] * 20, "flags": [[]] * 20,
             "amplitude_mv": [5.1] * 20}  # fmt: skip
    content = report_content(cohort=cohort, table=table, histograms={}, refusals={"withdrawn": 4},
                             warnings={"near-duplicates": 3, "new-kind": 1}, notes={})  # fmt: skip
    duplicates, other, gain = content["warnings"]
    assert "3 pairs" in duplicates and other == "new kind: 1." and "scale" in gain
    assert content["left_out"] == [
        {"reason": "withdrawn", "count": 4, "sentence": REFUSAL_REASONS["withdrawn"]}
    ]
    assert warning_words({"near-duplicates": 0}) == []


def test_an_empty_histogram_says_so():
    nothing = histogram(np.array([np.nan, np.nan]), title="ages", unit="years")
    assert (nothing.known, nothing.unknown, nothing.median, nothing.bars) == (0, 2, None, ())


@pytest.mark.parametrize(
    "part, told",
    [
        (352 / 353, "99.7 %"), (1.0, "100 %"), (9999 / 10000, "over 99.9 %"), (1 / 5000, "under 0.1 %"),
        (0.0, "0 %"), (0.034, "3.4 %"), (0.5, "50 %"), (None, "unknown"),
    ],
)  # fmt: skip
def test_nearly_all_is_not_all(part, told):
    assert _percent(part) == told


def test_diseases_bear_the_codes_that_the_site_declares(hospital, client):
    table = {"table": "codes.csv", "patient": "patient", "icd10": "codes",
             "diseases": {"hf": ["I50", "I11.0"], "dcm": ["D9"]},
             "flags": {"cm": {"column": "cm"}}}  # fmt: skip
    (hospital.folder / "codes.csv").write_text("patient,codes,cm\nnobody,I50,1\n")
    document = yaml.safe_load(hospital.site.read_text())
    document["source"]["diagnoses"] = table
    hospital.site.write_text(yaml.safe_dump(document))
    assert client("prepare", "--site", hospital.site).code == 0
    content, page = report_of(hospital.site)
    titles = {row["disease"]: row["title"] for row in content["diseases"]}
    assert (
        titles["hcm"] == "hypertrophic cardiomyopathy (I42.1, I42.2)"
        and titles["dcm"] == "dilated cardiomyopathy (D9)"
    )
    assert "dilated cardiomyopathy (D9)" in page and "exactly one of the three" in page
    assert titles["hf"] == "heart failure (I50, I11.0)" and titles["cm"] == "cardiomyopathy"
    assert titles["ph"] == "pulmonary hypertension (I27.0, I27.2)"
