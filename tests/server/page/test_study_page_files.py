"""The study page from files alone: facts, timeline, rows, codes, privacy, words; torn and hostile files."""

from __future__ import annotations

import json
import re
from functools import lru_cache
from html import unescape
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace

import pytest

from cardionets_core.audit import journal
from cardionets_core.config.study import Study
from cardionets_core.errors import UsageError, error_codes
from cardionets_core.tasks import TASKS
from cardionets_core.training.private_plan import epsilon_after, noise_of, phase_costs
from server.checkpoint import Checkpoint
from server.page import privacy
from server.page.codes import MEANINGS, remedy
from server.page.content import page_content
from server.page.curves import cost_figures, phase_figures
from server.page.facts import JournalTail, RunReader
from server.page.render import report_html
from server.page.timeline import last_halt, phase_spans, sitting_out, span_of, timeline_svg
from server.page.words import TASK_WORDS
from server.page.writer import PageWriter
from server.phase_order import tasks_of
from server.rounds import CRASHED, LATE

BAD = "<script>alert('x')</script>"


def study_of(**changes) -> Study:
    phase = {"task": "ecg_mae", "rounds": 3, "local_steps": 2, "batch_size": 4, "optimiser": {"lr": 1e-3}}
    return Study.model_validate({"name": "quick", "seed": 1, "phases": [phase]} | changes)


def entry(number, *, sites=("alpha", "beta"), phase=0):
    return {
        "phase": phase, "round": number, "attempt": 1, "task": "ecg_mae", "primary": "correlation",
        "higher_is_better": True, "model_digest": f"{number:064x}", "seconds": 2.5,
        "bytes_sent": 1000 * number, "bytes_received": 2000,
        "pooled": {"correlation": 0.1 * number, "n_patients": 20.0},
        "sites": [
            {"site": site, "status": "trained", "code": "", "bytes": 1000, "loss": 1.25 / number,
             "metrics": {"correlation": 0.1 * number + 0.01 * place}}
            for place, site in enumerate(sites)
        ],
    }  # fmt: skip


def site_of(name, **changes):
    return {"site": name, "node": "1", "role": "member", "code": "", "at_s": 1000.0, "last_phase": 1,
            "last_round": 1, "phases": {"ecg_mae": "serves"}, "patients": {"train": 50}, "recordings": None,
            "versions": {"cardionets": "0.1.0"}, "refused_replies": 0} | changes  # fmt: skip


def write_run(folder: Path, study: Study, *, rounds=2, state="running", sites=("alpha", "beta"), **status):
    (folder / "checkpoints" / "00-00001").mkdir(parents=True, exist_ok=True)
    (folder / "study.json").write_text(study.to_json())
    history = [entry(number, sites=sites) for number in range(1, rounds + 1)]
    (folder / "checkpoints" / "00-00001" / "state.json").write_text(
        json.dumps({"study_digest": study.digest, "history": history})
    )
    content = {
        "schema_version": 1, "state": state, "study": study.name, "study_digest": study.digest, "phase": 1,
        "started_s": 1000.0, "updated_s": 1100.0, "left_s": 30.0, "warnings": [], "failure": None,
        "waiting_for": None, "sites": [site_of(name) for name in sites],
    }  # fmt: skip
    (folder / "status.json").write_text(json.dumps(content | status))
    return history


def replied(folder, site, *, code="", kind="train", number=1, phase=0, reason=""):
    facts = {
        "kind": kind,
        "split": "",
        "study": "0" * 64,
        "phase": phase,
        "round": number,
        "attempt": 1,
        "site": site,
    }
    more = {"node": "1", "code": code, "reason": reason} if code else {"digest": "0" * 64, "bytes": 10}
    journal.append(folder / "journal.jsonl", "reply-refused" if code else "reply-accepted", facts | more)


class Text(HTMLParser):
    """All text of a page, and its tags."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.text, self.tags, self.ids = "", [], []
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.ids += [value for name, value in attrs if name == "id"]

    def handle_data(self, data):
        self.text += data


def test_every_code_that_can_stand_at_a_site_has_words_and_no_other():
    # Codes of a release never stand at a site: they are the coordinator's own.
    travel = {code for code, kind in error_codes().items() if kind.__module__ == "cardionets_core.errors"}
    assert set(MEANINGS) == {*travel, LATE, CRASHED}
    assert all(meaning and remedy for meaning, remedy in MEANINGS.values())


def test_every_task_has_words():
    assert set(TASK_WORDS) == set(TASKS)


def test_a_run_is_told_from_its_files(tmp_path):
    study = study_of()
    history = write_run(tmp_path, study)
    for site in ("alpha", "beta"):
        replied(tmp_path, site)
    replied(tmp_path, "beta", code="late", number=2)
    facts = RunReader(tmp_path).read(status=json.loads((tmp_path / "status.json").read_text()))
    content = page_content(facts)
    assert (content["done"], content["planned"], content["left_s"]) == (2, 3, 30.0)
    assert content["bytes_sent"] == 3000 and content["bytes_received"] == 4000
    assert content["model_digest"] == history[-1]["model_digest"]
    alpha, beta = content["sites"]
    assert (alpha["trained"], alpha["late"], alpha["code"]) == (2, 0, "")
    assert (beta["late"], beta["refused"], beta["code"]) == (1, 0, "late")
    assert beta["meaning"] == MEANINGS["late"][0] and beta["remedy"]
    page = Text(report_html(facts))
    for words in ("quick", "2 of 3", study.digest, "0.625", "no reply within the study's deadline"):
        assert words in page.text
    assert len(page.ids) == len(set(page.ids))


def test_a_run_whose_process_is_gone_is_stopped_and_not_running(tmp_path):
    write_run(tmp_path, study_of())
    assert RunReader(tmp_path).read().state == "stopped"


def test_an_ended_study_is_told_from_its_result(tmp_path):
    study = study_of()
    write_run(tmp_path, study, rounds=1, state="completed")
    rounds = [entry(number) for number in (1, 2, 3)]
    result = {
        "study_digest": study.digest,
        "rounds": rounds,
        "modules": {"ecg_encoder": "f" * 64},
        "versions": {},
    }
    (tmp_path / "result.json").write_text(json.dumps(result))
    facts = RunReader(tmp_path).read()
    assert facts.history == rounds and "f" * 64 in Text(report_html(facts)).text


def test_the_files_of_another_study_count_for_nothing(tmp_path):
    write_run(tmp_path, study_of())
    (tmp_path / "study.json").write_text(study_of(seed=2).to_json())
    facts = RunReader(tmp_path).read()
    assert (facts.history, facts.status, facts.state) == ([], {}, "stopped")


@pytest.mark.parametrize("name", ["status.json", "result.json", "journal.jsonl", "drawn.json"])
@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b"null", b"\xff\xfe", b'{"study_digest": 3}', b"[" * 100_000]
)
def test_torn_files_leave_their_part_empty(tmp_path, name, content):
    write_run(tmp_path, study_of())
    (tmp_path / name).write_bytes(content)
    assert "quick" in report_html(RunReader(tmp_path).read())


def test_no_study_is_refused_with_what_to_do(tmp_path):
    with pytest.raises(UsageError, match="holds no study"):
        RunReader(tmp_path).read()
    (tmp_path / "study.json").write_text("{}")
    with pytest.raises(UsageError, match="holds no study"):
        RunReader(tmp_path).read()


def test_what_others_wrote_stays_text(tmp_path):
    write_run(
        tmp_path, study_of(), state="paused", sites=("alpha",), warnings=[BAD],
        failure={"code": BAD, "what": BAD, "where": BAD, "remedy": BAD},
    )  # fmt: skip
    content = json.loads((tmp_path / "status.json").read_text())
    content["sites"][0] |= {"code": BAD, "versions": {"cardionets": BAD}, "role": BAD}
    (tmp_path / "status.json").write_text(json.dumps(content))
    replied(tmp_path, "alpha")
    replied(tmp_path, BAD, code="late", reason=BAD)
    html = report_html(RunReader(tmp_path).read())
    assert "<script" not in html and "script" not in Text(html).tags
    assert BAD in Text(html).text


def test_the_page_loads_nothing_from_elsewhere(tmp_path):
    write_run(tmp_path, study_of())
    html = report_html(RunReader(tmp_path).read())
    assert not re.findall(r"""(?:src|href|action)=["'](?!#|data:)""", html) and "url(h" not in html
    assert "http" not in html.replace("http-equiv", "")
    assert "default-src 'none'" in unescape(html) and "<script" not in html


def test_the_journal_is_read_on_from_where_it_was(tmp_path):
    tail = JournalTail(tmp_path / "journal.jsonl")
    assert tail.look() == []
    replied(tmp_path, "alpha")
    assert [told.site for told in tail.look()] == ["alpha"]
    with (tmp_path / "journal.jsonl").open("ab") as file:
        file.write(b"half a li")
    assert len(tail.look()) == 1
    journal.mend(tmp_path / "journal.jsonl")
    replied(tmp_path, "beta", code="crashed")
    assert [(told.site, told.code) for told in tail.look()] == [("alpha", ""), ("beta", "crashed")]


def test_a_site_that_sits_a_phase_out_is_not_at_fault(tmp_path):
    write_run(tmp_path, study_of())
    content = json.loads((tmp_path / "status.json").read_text())
    content["sites"][1] |= {"code": "modality-missing", "phases": {"ecg_mae": "modality-missing"}}
    (tmp_path / "status.json").write_text(json.dumps(content))
    replied(tmp_path, "alpha")
    replied(tmp_path, "beta", code="modality-missing", kind="census")
    facts = RunReader(tmp_path).read()
    assert sitting_out(facts) == {"beta": {0: "modality-missing"}}
    beta = page_content(facts)["sites"][1]
    assert beta["sits_out"] and not beta["refused"]
    svg = str(timeline_svg(facts, ["alpha", "beta"]))
    assert 'class="sits"' in svg and 'class="mark refused"' not in svg


def test_phases_follow_each_other_on_the_timeline(tmp_path):
    write_run(tmp_path, study_of())
    for phase in (0, 0, 1, 1):
        replied(tmp_path, "alpha", phase=phase)
    spans = phase_spans(RunReader(tmp_path).read())
    assert list(spans) == [0, 1] and spans[0][1] == spans[1][0]


def test_planned_epsilon_is_what_the_ledgers_reckon(tmp_path):
    asked = {"mechanism": "dp_sgd", "noise_multiplier": 1.1, "delta": 1e-5, "clip_norm": 1.0}
    study = study_of(privacy=asked)
    write_run(tmp_path, study, rounds=2, sites=("alpha", "beta"))
    content = json.loads((tmp_path / "status.json").read_text())
    content["sites"][1]["patients"] = None
    (tmp_path / "status.json").write_text(json.dumps(content))
    alpha, beta = page_content(RunReader(tmp_path).read())["privacy"]["sites"]
    costs = phase_costs(study, tasks_of(study), patients=[50])
    noise = noise_of(study, costs)
    assert alpha["whole"] == pytest.approx(epsilon_after(study, costs, noise_multiplier=noise))
    assert 0 < alpha["so_far"] < alpha["whole"] and alpha["noise"] == 1.1
    assert beta["whole"] is None and "does not let it tell" in beta["why"]
    text = Text(report_html(RunReader(tmp_path).read())).text
    assert "planned so far" in text and "never leaves it" in text


@pytest.mark.parametrize(
    ("measured", "said"),
    [
        ({"passes": 0.0, "conclusive": 0.0}, "Not conclusive"),
        ({"passes": 0.0, "conclusive": 1.0}, "Does not pass"),
        ({"passes": 1.0, "conclusive": 1.0}, "Passes"),
    ],
)
def test_the_memorisation_test_is_told_in_words(tmp_path, measured, said):
    study = study_of(phases=[{"task": "memorisation", "rounds": 1}])
    write_run(tmp_path, study, rounds=1)
    state = tmp_path / "checkpoints" / "00-00001" / "state.json"
    content = json.loads(state.read_text())
    content["history"][0] |= {"task": "memorisation", "primary": "passes", "test": {"pooled": measured}}
    del content["history"][0]["pooled"]
    state.write_text(json.dumps(content))
    page = report_html(RunReader(tmp_path).read())
    assert said in page and "best passes" not in page


def text_of(folder, **around):
    return " ".join(Text(report_html(RunReader(folder).read(around=around))).text.split())


def test_a_study_that_was_paused_at_once_is_paused_and_says_how_it_goes_on(tmp_path):
    """Its process could not write that it ended; the service knows."""
    write_run(tmp_path, study_of())
    around = {"workspace_state": "paused", "service": "ok", "why": "the coordinator paused it at once"}
    facts = RunReader(tmp_path).read(around=around)
    assert facts.state == "paused" and page_content(facts)["state_words"] == "paused"
    text = text_of(tmp_path, **around)
    assert "the coordinator paused it at once" in text and "To do: cardionets-server resume" in text
    assert "Nothing of this study runs" not in text and "when its service does" not in text


@pytest.mark.parametrize("state", ["running", "waiting", "starting", "starting again", "ending", "failed"])
def test_in_a_workspace_the_page_has_the_word_of_the_service(tmp_path, state):
    write_run(tmp_path, study_of(), waiting_for={"reason": "train", "sites": [{"site": "alpha"}]})
    facts = RunReader(tmp_path).read(around={"workspace_state": state, "service": "ok"})
    assert facts.state == state
    text = text_of(tmp_path, workspace_state=state, service="ok")
    assert ("Waits for alpha" in text) == (state in ("running", "waiting"))
    assert ("the service begins it again by itself" in text) == (state == "starting again")
    assert "Nothing of this study runs" not in text


def test_what_a_stopped_study_waits_for_depends_on_where_it_ran(tmp_path):
    write_run(tmp_path, study_of())
    assert "when it is begun again" in text_of(tmp_path)
    text = text_of(tmp_path, workspace_state="stopped", service="not running")
    assert "cardionets-server start" in text


def unasked(name):
    return site_of(name, patients=None, versions=None, phases={})


def test_a_site_that_was_not_asked_yet_hides_nothing(tmp_path):
    asked = {"mechanism": "dp_sgd", "noise_multiplier": 1.1, "delta": 1e-5, "clip_norm": 1.0}
    study = study_of(privacy=asked)
    write_run(tmp_path, study, sites=("alpha", "beta"))
    content = json.loads((tmp_path / "status.json").read_text())
    content["sites"] = [unasked("alpha"), site_of("beta", patients=None)]
    (tmp_path / "status.json").write_text(json.dumps(content))
    page = page_content(RunReader(tmp_path).read())
    assert [(row["patients"], row["asked"]) for row in page["sites"]] == [(None, False), (None, True)]
    why = [row["why"] for row in page["privacy"]["sites"]]
    assert why[0] == "not asked yet" and "does not let it tell" in why[1]
    html = report_html(RunReader(tmp_path).read())
    assert html.count(">not asked yet</td>") == 1 and html.count(">not told</td>") == 1


def test_what_a_site_told_before_a_pause_or_a_crash_stands_until_it_is_asked_again(tmp_path):
    study = study_of()
    write_run(tmp_path, study, sites=("alpha", "beta"))
    status = json.loads((tmp_path / "status.json").read_text())
    told = {"site": "alpha", "phases": {"ecg_mae": "serves"}, "role": "member", "patients": {"train": 41},
            "versions": {"cardionets": "0.1.0"}}  # fmt: skip
    result = {"study_digest": study.digest, "status": "paused", "rounds": [], "sites": [told]}
    (tmp_path / "result.json").write_text(json.dumps(result))
    reader = RunReader(tmp_path)

    def patients(sites):
        (tmp_path / "status.json").write_text(json.dumps(status | {"sites": sites}))
        return [row["patients"] for row in page_content(reader.read())["sites"]]

    assert patients([unasked("alpha"), unasked("beta")]) == [41, None]
    assert patients([site_of("alpha"), site_of("beta")]) == [50, 50]
    assert patients([unasked("alpha"), unasked("beta")]) == [50, 50]  # killed: no result, but the page saw it
    assert patients([unasked("alpha"), site_of("beta", patients=None)]) == [50, None]  # hidden by now


def test_all_bytes_that_a_site_sent_are_counted(tmp_path):
    write_run(tmp_path, study_of(), rounds=1)
    assert [row["bytes"] for row in page_content(RunReader(tmp_path).read())["sites"]] == [1000, 1000]
    facts = {"split": "", "study": "0" * 64, "phase": 0, "round": 1, "attempt": 1, "site": "alpha"}
    for kind, nbytes in (("train", 1000), ("evaluate", 700), ("statistics", 30)):
        more = {"kind": kind, "digest": "0" * 64, "bytes": nbytes}
        journal.append(tmp_path / "journal.jsonl", "reply-accepted", facts | more)
    assert [row["bytes"] for row in page_content(RunReader(tmp_path).read())["sites"]] == [1730, 1000]


def test_nothing_is_called_approved_and_no_model_trained_before_it_is(tmp_path):
    write_run(tmp_path, study_of(), rounds=0, sites=(), model_digest="e" * 64)
    waiting = {"reason": "census", "sites": [{"site": "node-678", "node": "678"}]}
    around = {"workspace_state": "running"}
    content = json.loads((tmp_path / "status.json").read_text())
    (tmp_path / "status.json").write_text(json.dumps(content | {"waiting_for": waiting}))
    text = text_of(tmp_path, **around)
    assert "first model, before any round" in text and "after the last round" not in text
    assert "every site approved" not in text and "sites approve a study by it" in text
    assert "Waits for 1 site not heard by name yet" in text and "node-678" not in text
    write_run(tmp_path, study_of(), rounds=1)
    assert "model after the last round" in text_of(tmp_path)


def test_the_timeline_begins_with_the_first_event_that_is_known(tmp_path):
    write_run(tmp_path, study_of(), started_s=1.0, updated_s=2e9)
    replied(tmp_path, "alpha")
    facts = RunReader(tmp_path).read()
    assert span_of(facts) == (facts.replies[0].time_s, 2e9)
    heard = RunReader(tmp_path).read(around={"online": {"alpha": [[1.0, 5.0]]}})
    assert span_of(heard) == (1.0, 2e9)


def test_a_phase_stands_on_the_timeline_before_its_first_reply(tmp_path):
    second = {"task": "cmr_mae", "rounds": 1, "local_steps": 2, "batch_size": 4, "optimiser": {"lr": 1e-3}}
    study = study_of(phases=[json.loads(study_of().to_json())["phases"][0], second])
    write_run(tmp_path, study, updated_s=2e9, phase=2)
    replied(tmp_path, "alpha")
    facts = RunReader(tmp_path).read()
    assert phase_spans(facts)[1] == (facts.replies[0].time_s, 2e9)
    assert "2 cmr_mae" in str(timeline_svg(facts, ["alpha"]))


def test_an_interruption_is_shown(tmp_path):
    write_run(tmp_path, study_of(), started_s=1.0, updated_s=2e9)
    replied(tmp_path, "alpha")
    facts = RunReader(tmp_path).read()
    assert last_halt(facts) is None and 'class="halt"' not in report_html(facts)
    write_run(tmp_path, study_of(), started_s=1.9e9, updated_s=2e9)
    facts = RunReader(tmp_path).read()
    assert last_halt(facts) == (facts.replies[0].time_s, 1.9e9)
    assert report_html(facts).count('class="halt"') == 2  # in the picture and its legend


def test_losses_of_different_kinds_have_charts_of_their_own(tmp_path):
    write_run(tmp_path, study_of())
    assert ">Training loss<" in report_html(RunReader(tmp_path).read())
    state = tmp_path / "checkpoints" / "00-00001" / "state.json"
    content = json.loads(state.read_text())
    for each in content["history"]:
        for row, part, loss in zip(each["sites"], ("infonce", "distil"), (3.25, 0.0006), strict=True):
            row |= {"loss": loss, f"part/{part}": loss}
    state.write_text(json.dumps(content))
    distil, infonce = phase_figures(RunReader(tmp_path).read(), 0, ["alpha", "beta"])[:2]
    assert "Training loss: distil" in distil and "beta" in distil and "alpha" not in distil
    assert "Training loss: infonce" in infonce and "alpha" in infonce and "beta" not in infonce
    html = report_html(RunReader(tmp_path).read())
    page = Text(html)
    assert len(page.ids) == len(set(page.ids)) and ">Training loss<" not in html


def test_no_phase_is_called_now_unless_the_study_runs(tmp_path):
    write_run(tmp_path, study_of(), state="running")
    assert states_of(tmp_path, workspace_state="running") == ["now"]
    for state in ("paused", "stopped", "failed"):
        assert states_of(tmp_path, workspace_state=state) == ["begun"]
    write_run(tmp_path, study_of(), rounds=0, state="paused")
    assert states_of(tmp_path) == ["to come"]


def states_of(folder, **around):
    return [phase["state"] for phase in page_content(RunReader(folder).read(around=around))["phases"]]


def test_advice_on_a_spent_budget_holds_also_where_too_few_sites_are_left():
    told = remedy("budget-spent")
    assert "raise the limit or leave the study" in told and "while enough sites are left" in told


@pytest.mark.parametrize(("shift", "words"), [(0.0, True), (0.02, True), (0.5, False)])
def test_the_last_label_of_the_time_axis_is_not_cut(tmp_path, shift, words):
    """A step before the end the label stands in the middle of its line, and at the end left of it."""
    begin = 1_900_000_000 - 1_900_000_000 % 600
    write_run(tmp_path, study_of(), started_s=begin, updated_s=begin + 600 + shift * 100)
    facts = RunReader(tmp_path).read(around={"online": {"alpha": [[begin, begin + 5.0]]}})
    found = re.findall(
        r'<text class="(end|mid)" x="([0-9.]+)" y="[0-9.]+">([0-9:]+)<', str(timeline_svg(facts, ["alpha"]))
    )
    assert len(found) > 3
    for kind, x, text in found:
        right = float(x) + (6.2 * len(text) / 2 if kind == "mid" else 0.0)
        assert right <= 960.0, text
    assert (found[-1][0] == "end") == words


def test_a_round_whose_sites_held_the_model_is_told_from_one_that_was_not_counted(tmp_path):
    write_run(tmp_path, study_of())
    facts = RunReader(tmp_path).read()
    assert "held the model already" not in str(cost_figures(facts)[1])
    facts.history[0]["bytes_sent"] = 0
    assert "held the model already" in str(cost_figures(facts)[1])


def test_a_narrow_screen_is_told_that_the_timeline_goes_on(tmp_path):
    write_run(tmp_path, study_of(), updated_s=2e9)
    replied(tmp_path, "alpha")
    page = report_html(RunReader(tmp_path).read())
    assert page.index("scroll for later rounds") < page.index('id="timeline"')
    assert ".later-hint { display: none;" in page and ".later-hint { display: block; }" in page


@pytest.mark.parametrize("state", ["completed", "paused"])
def test_the_last_page_has_what_took_too_long_for_the_pages_before(tmp_path, monkeypatch, state):
    study = study_of(
        privacy={"mechanism": "dp_sgd", "noise_multiplier": 1.1, "delta": 1e-5, "clip_norm": 1.0}
    )
    write_run(tmp_path, study, state=state, sites=("alpha", "beta", "gamma"))
    status = json.loads((tmp_path / "status.json").read_text())
    for number, row in enumerate(status["sites"]):
        row["patients"] = {"train": 50 + number}
    clock = [0.0]

    @lru_cache
    def slow(study_json, counts):
        clock[0] += 5.0
        return 1.1, 2.0

    monkeypatch.setattr(privacy, "_whole", slow)
    monkeypatch.setattr(privacy, "time", SimpleNamespace(monotonic=lambda: clock[0]))
    history = [entry(1, sites=("alpha", "beta", "gamma"))]
    checkpoint = Checkpoint(
        folder=tmp_path, phase=0, round=1, study_digest=study.digest, history=history, layouts={}, digests={}
    )
    warned = []
    writer = PageWriter(study, tmp_path, warn=warned.append)
    writer.round(checkpoint, status | {"state": "running"}, round_s=1.0)
    assert "not reckoned yet" in (tmp_path / "report.html").read_text()
    writer.ended(checkpoint, status)
    assert "not reckoned yet" not in (tmp_path / "report.html").read_text() and not warned
