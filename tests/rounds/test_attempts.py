"""Who is asked, again or not at all: selection, attempts, late and vanished sites, names, refusals."""

import itertools
import json
import time
from types import SimpleNamespace

import pytest
from flwr.app import ConfigRecord, RecordDict

from cardionets_core.audit import journal
from cardionets_core.config.study import Study
from cardionets_core.errors import QuorumNotMetError, StudyPausedError
from server import gather
from server.app import run_study
from server.selection import chosen, draw_order
from simulation.local_grid import LocalGrid


def grid_of(sites, **options):
    return LocalGrid([site.app() for site in sites.values()], **options)


def changed(study, **changes):
    return Study.model_validate({**study.model_dump(mode="json"), **changes})


def run(study, sites, folder, **options):
    return run_study(grid_of(sites, **options), study, folder=folder, track=False)


def codes(result, number=1):
    entry = next(entry for entry in result["rounds"] if entry["round"] == number)
    return {row["site"]: row["code"] or row["status"] for row in entry["sites"]}


def lines(folder):
    assert journal.verify(folder / "journal.jsonl") > 0
    return [
        json.loads(line.partition(" ")[2]) for line in (folder / "journal.jsonl").read_text().splitlines()
    ]


# -- selection -----------------------------------------------------------------------------------------------


def test_a_draw_follows_from_seed_phase_round_and_names_alone():
    names = [f"site-{n}" for n in range(9)]
    drawn = draw_order(names, seed=3, phase=1, round_number=2)
    assert drawn == draw_order(reversed(names), seed=3, phase=1, round_number=2)
    assert sorted(drawn) == names
    others = [
        draw_order(names, seed=4, phase=1, round_number=2),
        draw_order(names, seed=3, phase=0, round_number=2),
        draw_order(names, seed=3, phase=1, round_number=3),
    ]
    assert all(other != drawn for other in others)


def test_a_drawn_site_that_is_gone_is_replaced_and_one_that_answered_stays():
    order = ["d", "b", "a", "c"]
    assert chosen(order, able=set("abcd"), answered=(), per_round=2) == {"d", "b"}
    assert chosen(order, able=set("abc"), answered=(), per_round=2) == {"b", "a"}
    assert chosen(order, able=set("abc"), answered={"d"}, per_round=2) == {"d", "b"}
    assert chosen(order, able=set("ax"), answered=(), per_round=2) == {"a", "x"}
    assert chosen(order, able=set("ab"), answered={"d"}, per_round=None) == {"a", "b", "d"}


def test_every_round_trains_as_many_sites_as_are_drawn_and_all_are_drawn_in_time(fake_sites, quick, tmp_path):
    study = changed(
        quick,
        sites={"minimum": 2, "per_round": 2, "deadline_s": 20, "attempts": 2},
        phases=[{**quick.model_dump(mode="json")["phases"][0], "rounds": 12}],
    )
    sites = fake_sites("a", "bb", "ccc", "dddd")
    result = run(study, sites, tmp_path / "one")
    trained = [sorted(codes(result, number)) for number in range(1, 13)]
    assert all(len(names) == 2 for names in trained)
    assert {name for names in trained for name in names} == set(sites)
    assert trained == [
        sorted(draw_order(sites, seed=11, phase=0, round_number=number)[:2]) for number in range(1, 13)
    ]
    again = run(study, dict(reversed(fake_sites("a", "bb", "ccc", "dddd").items())), tmp_path / "two")
    assert again["model_digest"] == result["model_digest"]
    # Whoever does not train measures all the same.
    assert result["rounds"][0]["pooled"]["n_rows"] == 28


# -- attempts ------------------------------------------------------------------------------------------------


def test_a_second_attempt_asks_only_who_is_missing(fake_sites, quick, tmp_path):
    sites = fake_sites("alpha", "beta", "gamma")
    failing = {"beta": 1, "gamma": 2}

    def lost(message):
        name = list(sites)[message.metadata.dst_node_id - 1000]
        if message.metadata.message_type == "train" and failing.get(name, 0):
            failing[name] -= 1
            return True
        return False

    result = run(quick, sites, tmp_path, lost=lost)
    assert sites["alpha"].asked_for("train")[0] == (0, 1, 1)
    assert sites["beta"].asked_for("train")[0] == (0, 1, 2)
    # The minimum is met: gamma is named with its code, and tried again in the next round.
    assert codes(result, 1) == {"alpha": "trained", "beta": "trained", "gamma": "unreachable"}
    assert codes(result, 2)["gamma"] == "trained"
    assert [site.trained for site in sites.values()] == [3, 3, 2]
    assert result["rounds"][0]["attempt"] == 2


def test_accepted_replies_outlive_the_pause_and_a_resumed_round_asks_the_others_alone(
    fake_sites, quick, tmp_path
):
    sites = fake_sites("alpha", "beta", "gamma")
    whole = run(quick, fake_sites("alpha", "beta", "gamma"), tmp_path / "whole")

    def lost(message):
        return message.metadata.message_type == "train" and message.metadata.dst_node_id != 1000

    with pytest.raises(QuorumNotMetError):
        run(quick, sites, tmp_path / "run", lost=lost)
    paused = json.loads((tmp_path / "run" / "result.json").read_text())
    assert paused["status"] == "paused" and paused["paused"]["code"] == "quorum-not-met"
    status = json.loads((tmp_path / "run" / "status.json").read_text())
    assert status["state"] == "paused" and status["failure"]["code"] == "quorum-not-met"
    assert {site["site"]: site["code"] for site in status["sites"]}["beta"] == "unreachable"
    result = run(quick, sites, tmp_path / "run")
    assert result["model_digest"] == whole["model_digest"]
    assert sites["alpha"].asked_for("train") == [(0, 1, 1), (0, 2, 1), (0, 3, 1)]
    assert sites["beta"].asked_for("train")[0] == (0, 1, 3)
    kept = [line for line in lines(tmp_path / "run") if line["event"] == "replies-kept"]
    assert [line["sites"] for line in kept] == ["alpha"]


def test_a_late_site_is_waited_for_and_not_asked_again(fake_sites, quick, tmp_path):
    sites = fake_sites("alpha", "beta")
    study = changed(quick, sites={"minimum": 2, "deadline_s": 0.4, "attempts": 3})
    looked = {"beta": 0}

    def silent(message):
        # Longer than one deadline, shorter than two.
        if message.metadata.message_type == "train" and message.metadata.dst_node_id == 1001:
            looked["beta"] += 1
            return looked["beta"] < 12 and status_of(tmp_path)["attempt"] < 2
        return False

    result = run(study, sites, tmp_path, silent=silent)
    assert sites["beta"].asked_for("train") == [(0, 1, 1), (0, 2, 1), (0, 3, 1)]
    assert codes(result) == {"alpha": "trained", "beta": "trained"}


def test_a_site_that_is_late_beyond_the_minimum_is_told_so_and_asked_in_the_next_round(
    fake_sites, quick, tmp_path
):
    sites = fake_sites("alpha", "beta", "gamma")
    study = changed(quick, sites={"minimum": 2, "deadline_s": 0.5, "attempts": 2})
    first = []

    def silent(message):
        if message.metadata.message_type != "train" or message.metadata.dst_node_id != 1002:
            return False
        first.append(message.metadata.message_id)
        return message.metadata.message_id == first[0]

    result = run(study, sites, tmp_path, silent=silent)
    assert codes(result, 1) == {"alpha": "trained", "beta": "trained", "gamma": "late"}
    assert codes(result, 2)["gamma"] == "trained"
    assert {line["code"] for line in lines(tmp_path) if line["event"] == "reply-refused"} == {"late"}


def test_below_the_minimum_nothing_waits_longer_than_the_attempts(fake_sites, quick, tmp_path):
    study = changed(quick, sites={"minimum": 2, "deadline_s": 0.3, "attempts": 2})
    sites = fake_sites("alpha", "beta")
    with pytest.raises(QuorumNotMetError, match="1 site"):
        run(
            study,
            sites,
            tmp_path,
            silent=lambda m: m.metadata.message_type == "train" and m.metadata.dst_node_id == 1001,
        )
    assert sites["beta"].asked_for("train") == []


def test_attempts_move_apart_so_that_a_short_fault_does_not_use_them_up(
    fake_sites, quick, tmp_path, monkeypatch
):
    skipped, asked = [0.0], []

    def sleep(seconds):
        skipped[0] += seconds

    clock = SimpleNamespace(
        sleep=sleep,
        monotonic=lambda: time.monotonic() + skipped[0],
        time=lambda: time.time() + skipped[0],
    )
    monkeypatch.setattr(gather, "time", clock)
    monkeypatch.setattr(gather, "FIRST_PAUSE_S", 20.0)
    monkeypatch.setattr(gather, "LONGEST_PAUSE_S", 60.0)
    sites = fake_sites("alpha", "beta")
    sites["beta"].code_of = {"train": "storage-failed"}
    reply = sites["beta"].reply
    sites["beta"].reply = lambda message: (asked.append(round(skipped[0])), reply(message))[1]
    with pytest.raises(QuorumNotMetError):
        run(changed(quick, sites={"minimum": 2, "deadline_s": 500, "attempts": 5}), sites, tmp_path)
    trained = sorted(set(asked))
    assert len(sites["beta"].asked_for("train")) == 5
    # 20, 40, 60 and 60 s from one beginning to the next; what the machine itself took counts too.
    gaps = [after - before for before, after in itertools.pairwise(trained)]
    assert len(gaps) == 4 and all(
        0 <= want - gap < 20 for want, gap in zip((20, 40, 60, 60), gaps, strict=True)
    )


def test_too_few_connected_sites_are_waited_for_and_then_named(fake_sites, quick, tmp_path):
    study = changed(quick, sites={"minimum": 3, "deadline_s": 0.3})
    with pytest.raises(QuorumNotMetError, match="the study needs 3"):
        run(study, fake_sites("alpha", "beta"), tmp_path)
    status = status_of(tmp_path)
    assert status["state"] == "paused" and status["failure"]["remedy"]


def status_of(folder):
    return json.loads((folder / "status.json").read_text())


# -- names, joining, leaving ---------------------------------------------------------------------------------


class Scripted(LocalGrid):
    """Does something when a message of a round is first sent."""

    script = None

    def push_messages(self, messages):
        messages = list(messages)
        for message in messages:
            if self.script:
                self.script(message)
        return super().push_messages(messages)


def scripted(sites, names, script):
    grid = Scripted([site.app() for site in sites.values()], names=names)
    done = set()

    def once(message):
        key = (message.metadata.message_type, message.metadata.group_id)
        if key not in done:
            done.add(key)
            script(grid, *key)

    grid.script = once
    return grid


def test_a_site_that_joins_in_mid_phase_is_enrolled_by_a_census_of_its_own(fake_sites, quick, tmp_path):
    sites, late = fake_sites("alpha", "beta"), fake_sites("gamma")["gamma"]

    def script(grid, kind, group):
        if (kind, group) == ("train", "1"):
            grid.join(late.app(), {}, name="gamma")

    result = run_study(scripted(sites, ["alpha", "beta"], script), quick, folder=tmp_path, track=False)
    assert "gamma" not in codes(result, 1) and codes(result, 2)["gamma"] == "trained"
    assert [len(site.asked_for("census")) for site in (*sites.values(), late)] == [1, 1, 1]


def test_a_site_that_comes_back_under_a_new_node_is_the_same_site(fake_sites, quick, tmp_path):
    sites = fake_sites("alpha", "beta", "gamma")
    study = changed(quick, phases=[{**quick.model_dump(mode="json")["phases"][0], "rounds": 4}])

    def script(grid, kind, group):
        if (kind, group) == ("train", "2"):
            grid.leave(1002)
        if (kind, group) == ("train", "3"):
            grid.join(sites["gamma"].app(), {}, name="gamma")

    grid = scripted(sites, list(sites), script)
    result = run_study(grid, study, folder=tmp_path, track=False)
    found = [codes(result, number)["gamma"] for number in (1, 2, 3, 4)]
    assert found == ["trained", "unreachable", "unreachable", "trained"]
    gamma = next(site for site in status_of(tmp_path)["sites"] if site["site"] == "gamma")
    assert gamma["node"] == "1003" and gamma["last_round"] == 4
    assert len(sites["gamma"].asked_for("census")) == 2
    assert len(sites["alpha"].asked_for("census")) == 1


def test_a_site_that_speaks_under_another_name_than_it_is_registered_with_is_refused(
    fake_sites, quick, tmp_path
):
    sites = fake_sites("alpha", "beta", "gamma")
    result = run_study(grid_of(sites, names=["alpha", "beta", "delta"]), quick, folder=tmp_path, track=False)
    assert codes(result) == {"alpha": "trained", "beta": "trained"}
    assert {site["site"]: site["phases"]["ecg_mae"] for site in result["sites"]}["delta"] == "reply-refused"
    refused = [line for line in lines(tmp_path) if line["event"] == "reply-refused"]
    assert refused[0]["site"] == "delta" and "another name" in refused[0]["reason"]
    assert sites["gamma"].asked_for("train") == []


def test_two_nodes_cannot_be_one_site(fake_sites, quick, tmp_path):
    sites = fake_sites("alpha", "beta") | {"twin": fake_sites("beta")["beta"]}
    grid = grid_of(sites, names=["alpha", "beta", "beta"])
    result = run_study(grid, quick, folder=tmp_path, track=False)
    assert codes(result) == {"alpha": "trained", "beta": "trained"}
    assert sites["twin"].trained == 0


def test_a_refusal_that_may_pass_is_asked_again_and_one_of_policy_is_not(fake_sites, quick, tmp_path):
    sites = fake_sites("alpha", "beta", "gamma", "delta")
    sites["gamma"].code_of["census"] = "cache-stale"
    sites["delta"].code_of["census"] = "phase-not-permitted"

    def script(grid, kind, group):
        if (kind, group) == ("train", "2"):
            sites["gamma"].code_of.clear()
            sites["delta"].code_of.clear()

    result = run_study(scripted(sites, list(sites), script), quick, folder=tmp_path, track=False)
    assert codes(result, 3) == {"alpha": "trained", "beta": "trained", "gamma": "trained"}
    assert len(sites["gamma"].asked_for("census")) == 3
    assert len(sites["delta"].asked_for("census")) == 1


def test_a_vanished_site_below_the_minimum_is_waited_for(fake_sites, quick, tmp_path):
    sites = fake_sites("alpha", "beta")
    looks = []

    def script(grid, kind, group):
        if (kind, group) == ("train", "2"):
            grid.leave(1001)

    class Returning(Scripted):
        def get_nodes(self):
            if 1001 in self._gone:
                looks.append(status_of(tmp_path)["waiting_for"])
                if len(looks) > 3:
                    self.come_back(1001)
            return super().get_nodes()

    grid = Returning([site.app() for site in sites.values()], names=list(sites))
    done = []
    grid.script = lambda m: (
        m.metadata.message_type == "train"
        and m.metadata.group_id == "2"
        and not done
        and (done.append(1), grid.leave(1001))
    )
    result = run_study(grid, quick, folder=tmp_path, track=False)
    assert result["status"] == "completed"
    assert looks[-1]["reason"] == "sites" and looks[-1]["until_s"] > 0


# -- refusals ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "field, value, reason",
    [
        ("round", 7, "another round"),
        ("attempt", 9, "another round"),
        ("study-digest", "0" * 64, "another round"),
        ("site", "alpha", "another site's name"),
    ],
)
def test_a_replayed_reply_is_refused_counted_and_named_in_the_journal(
    field, value, reason, fake_sites, quick, tmp_path
):
    sites = fake_sites("alpha", "beta", "gamma")

    def tamper(node, content):
        fields = dict(content.config_records["fields"])
        if node != 1002 or "value/loss" not in fields:
            return content
        return RecordDict(
            {"fields": ConfigRecord({**fields, field: value}), "arrays": content.array_records["arrays"]}
        )

    result = run(quick, sites, tmp_path, tamper=tamper)
    assert codes(result) == {"alpha": "trained", "beta": "trained", "gamma": "reply-refused"}
    found = [line for line in lines(tmp_path) if line["event"] == "reply-refused"]
    assert len(found) == 3 and all(line["site"] == "gamma" and reason in line["reason"] for line in found)
    gamma = next(site for site in status_of(tmp_path)["sites"] if site["site"] == "gamma")
    assert gamma["refused_replies"] == 3
    accepted = [line for line in lines(tmp_path) if line["event"] == "reply-accepted"]
    assert {(line["site"], line["round"]) for line in accepted if line["kind"] == "train"} == {
        (site, number) for site in ("alpha", "beta") for number in (1, 2, 3)
    }
    assert all(len(line["digest"]) == 64 and line["bytes"] > 0 for line in accepted)


# -- pausing -------------------------------------------------------------------------------------------------


def test_a_request_pauses_after_the_round_and_is_removed(fake_sites, quick, tmp_path):
    sites = fake_sites("alpha", "beta")

    def script(grid, kind, group):
        if (kind, group) == ("train", "2"):
            (tmp_path / "requests").mkdir()
            (tmp_path / "requests" / "pause").touch()

    with pytest.raises(StudyPausedError):
        run_study(scripted(sites, [], script), quick, folder=tmp_path, track=False)
    result = json.loads((tmp_path / "result.json").read_text())
    assert result["status"] == "paused" and result["paused"]["code"] == "study-paused"
    assert [entry["round"] for entry in result["rounds"]] == [1, 2]
    assert not (tmp_path / "requests" / "pause").exists()
    assert status_of(tmp_path)["state"] == "paused"
    assert run(quick, sites, tmp_path)["status"] == "completed"
    assert status_of(tmp_path)["state"] == "completed" and status_of(tmp_path)["failure"] is None


def test_pause_now_does_not_wait_for_replies_and_loses_none(fake_sites, quick, tmp_path):
    sites = fake_sites("alpha", "beta")
    whole = run(quick, fake_sites("alpha", "beta"), tmp_path / "whole")
    folder = tmp_path / "run"

    def silent(message):
        if message.metadata.message_type != "train" or message.metadata.dst_node_id != 1001:
            return False
        (folder / "requests").mkdir(exist_ok=True)
        (folder / "requests" / "pause").write_text("now\n")
        return True

    with pytest.raises(StudyPausedError):
        run(quick, sites, folder, silent=silent)
    assert run(quick, sites, folder)["model_digest"] == whole["model_digest"]
    assert sites["alpha"].asked_for("train") == [(0, 1, 1), (0, 2, 1), (0, 3, 1)]


def test_the_status_tells_who_is_waited_for_until_when(fake_sites, quick, tmp_path):
    seen = []

    def silent(message):
        if message.metadata.message_type == "train" and message.metadata.dst_node_id == 1001:
            seen.append(status_of(tmp_path))
            return len(seen) < 20
        return False

    run(quick, fake_sites("alpha", "beta"), tmp_path, silent=silent)
    waiting = next(status["waiting_for"] for status in seen if status["waiting_for"])
    assert waiting["reason"] == "train" and waiting["minimum"] == 2
    assert "beta" in [site["site"] for site in waiting["sites"]]
    assert waiting["sites"][0]["since_s"] <= waiting["until_s"] <= waiting["sites"][0]["since_s"] + 25
    final = status_of(tmp_path)
    assert final["waiting_for"] is None and final["left_s"] == 0
    assert final["primary"]["name"] == "correlation" and final["primary"]["higher_is_better"] is True
    assert [value["round"] for value in final["primary"]["values"]] == [1, 2, 3]
    assert all(value["value"] is not None for value in final["primary"]["values"])
    assert {site["site"]: site["last_round"] for site in final["sites"]} == {"alpha": 3, "beta": 3}
    assert final["sites"][0]["patients"] == {"train": 30} and final["sites"][0]["node"] == "1000"
