"""Whole rounds write the study page: what it says is what result.json says, and it never stops a study."""

from __future__ import annotations

import contextlib
import json
import re

import numpy as np
import pytest

from cardionets_core.config.study import Study
from cardionets_core.data.synthetic_mark import mark_cine
from cardionets_core.errors import CardioNetsError, QuorumNotMetError
from server.app import run_study
from server.page import drawings, writer
from server.page.facts import RunReader
from server.page.samples import read_samples
from simulation.local_grid import LocalGrid
from simulation.page_samples import make_samples, packed_samples


def run(study, sites, folder, **options):
    grid = LocalGrid([site.app() for site in sites.values()])
    return run_study(grid, study, folder=folder, track=False, **options)


def drawing_study(**changes) -> Study:
    """A generator's phase of three rounds, after what it needs."""
    phase = {"rounds": 1, "local_steps": 1, "batch_size": 8, "optimiser": {"lr": 1e-3}}
    tasks = ("ecg_mae", "cmr_mae", "align", "tokenizer")
    content = {
        "name": "draws", "seed": 3, "sites": {"minimum": 2, "deadline_s": 20, "attempts": 1},
        "evaluation": {"every_rounds": 2},
        "phases": [*({"task": task, **phase} for task in tasks), {"task": "generate", **phase, "rounds": 3}],
    }  # fmt: skip
    return Study.model_validate(content | changes)


def test_the_page_lies_in_the_folder_after_every_round_and_at_the_end(
    fake_sites, quick, tmp_path, monkeypatch
):
    written = []
    whole = writer.write_whole
    monkeypatch.setattr(
        writer,
        "write_whole",
        lambda path, content, **options: (written.append(content), whole(path, content, **options)),
    )
    result = run(quick, fake_sites("a", "bb"), tmp_path)
    assert len(written) == 3 + 1
    assert [re.search(rb"(\d) of 3</b><span>rounds done", page)[1] for page in written] == [
        b"1",
        b"2",
        b"3",
        b"3",
    ]
    page = (tmp_path / "report.html").read_text()
    assert page.encode() == written[-1] and "completed" in page
    for text in (result["study_digest"], result["model_digest"], *result["modules"].values()):
        assert text in page


def test_equal_files_give_equal_pages(fake_sites, quick, tmp_path):
    run(quick, fake_sites("a", "bb"), tmp_path)
    first, second = (writer.report_html(RunReader(tmp_path).read()) for _ in range(2))
    assert first == second


def test_a_paused_study_says_why_and_which_site_refused(fake_sites, quick, tmp_path):
    sites = fake_sites("a", "bb")
    sites["bb"].code_of["train"] = "budget-spent"
    with pytest.raises(QuorumNotMetError):
        run(quick, sites, tmp_path)
    page = (tmp_path / "report.html").read_text()
    for text in ("paused", "quorum-not-met", "budget-spent", "a further round would pass its epsilon"):
        assert text in page


def test_a_page_that_cannot_be_made_is_one_warning_and_no_pause(fake_sites, quick, tmp_path, monkeypatch):
    def broken(facts):
        raise RuntimeError("no ink")

    monkeypatch.setattr(writer, "report_html", broken)
    events = []
    result = run(quick, fake_sites("a", "bb"), tmp_path, progress=events.append)
    assert result["status"] == "completed" and not (tmp_path / "report.html").exists()
    told = [event.text for event in events if event.kind == "warning"]
    assert told == ["the study page could not be made: no ink"]
    assert json.loads((tmp_path / "status.json").read_text())["state"] == "completed"


def test_the_page_changes_no_model(fake_sites, quick, tmp_path, monkeypatch):
    with_page = run(quick, fake_sites("a", "bb"), tmp_path / "with")
    monkeypatch.setattr(writer.PageWriter, "round", lambda *arguments, **options: None)
    without = run(quick, fake_sites("a", "bb"), tmp_path / "without")
    assert with_page["model_digest"] == without["model_digest"]


def test_cines_are_drawn_where_the_study_is_measured_and_at_the_end(fake_sites, tmp_path, monkeypatch):
    rounds = []
    whole = drawings.write_json
    monkeypatch.setattr(
        drawings, "write_json", lambda path, content, **o: (rounds.append(content), whole(path, content, **o))
    )
    monkeypatch.setattr(drawings, "LEAST_S", 600.0)
    result = run(drawing_study(), fake_sites("a", "bb"), tmp_path)
    assert [(content["phase"], content["round"]) for content in rounds] == [(4, 2), (4, 3)]
    assert rounds[-1]["model_digest"] == result["model_digest"]
    names = read_samples().names
    assert [heart["name"] for heart in rounds[-1]["hearts"]] == list(names)
    assert all(
        heart[side][kind].startswith(f"data:image/{form};base64,")
        for heart in rounds[-1]["hearts"] for side in ("real", "drawn")
        for kind, form in (("gif", "gif"), ("sheet", "png"))
    )  # fmt: skip
    page = (tmp_path / "report.html").read_text()
    assert page.count("data:image/gif") == 2 * len(names) and "No patient is shown" in page


def test_drawing_that_takes_too_long_is_cut_short_and_told(fake_sites, tmp_path, monkeypatch):
    monkeypatch.setattr(drawings, "LEAST_S", 0.0)
    monkeypatch.setattr(drawings, "END_S", 0.0)
    monkeypatch.setattr(drawings, "SHARE", 0.0)
    run(drawing_study(), fake_sites("a", "bb"), tmp_path)
    page = (tmp_path / "report.html").read_text()
    assert "Only 1 of 4 were drawn" in page and page.count("data:image/gif") == 2


def test_secret_sums_and_private_studies_have_their_page(fake_sites, quick, tmp_path):
    privacy = {"mechanism": "dp_sgd", "noise_multiplier": 1.0, "delta": 1e-5, "clip_norm": 1.0}
    private = Study.model_validate({**quick.model_dump(mode="json"), "privacy": privacy})
    sites = fake_sites("a", "bb")
    # Sites without data send what a private study does not ask for; the page is there all the same.
    with contextlib.suppress(CardioNetsError):
        run(private, sites, tmp_path)
    page = (tmp_path / "report.html").read_text()
    assert "planned so far" in page


def test_the_invented_hearts_are_those_that_the_simulation_draws():
    kept, made = read_samples(), make_samples()
    assert (list(kept.names), list(kept.words)) == (list(made.names), list(made.words))
    # Filters of another processor may round a count the other way.
    assert np.abs(kept.ecg_HLT.astype(int) - made.ecg_HLT.astype(int)).max() <= 1
    assert np.abs(kept.cines_HFYX.astype(int) - made.cines_HFYX.astype(int)).max() <= 1
    assert len(packed_samples(kept)) < 1_500_000 and packed_samples(made) == packed_samples(made)


def test_every_shown_frame_says_that_it_is_synthetic():
    frames = np.zeros((3, 32, 32))
    marked = mark_cine(frames, least_px=drawings.SIDE_PX).pixels
    assert marked.shape == (3, 160, 160)
    band = marked[:, :13]
    assert (band.max(axis=(1, 2)) > 250).all() and (band == band[0]).all()
