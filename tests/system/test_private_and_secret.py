"""Differential privacy and secure aggregation on real processes over TLS: the models of undisturbed runs."""

from __future__ import annotations

import contextlib
import itertools
import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from cardionets_core.config.study import Study
from cardionets_core.privacy.ledger import Ledger
from client.spending import LEDGER
from simulation.rosters import with_roster

pytestmark = pytest.mark.system
SEEDS = itertools.count(900)


@pytest.fixture
def secret(field, copies, undisturbed):
    """A study whose roster is that of the admitted sites, and the digest of an undisturbed run of it.

    In this process the sites have other keys, so the roster is another one; the sums are the same numbers.
    """

    def make(**changes: Any) -> tuple[dict[str, Any], Any]:
        content = field.small_study(next(SEEDS), **changes)
        printed = yaml.safe_load(field.run("cardionets-server", "roster", field.server).stdout)
        content["secure_aggregation"] = printed["secure_aggregation"]
        alone = {**content, "secure_aggregation": {**content["secure_aggregation"], "roster": {}}}
        here = with_roster(Study.model_validate(alone), copies).model_dump(mode="json")
        return content, lambda study: undisturbed(here)

    return make


def private_key_lines(folders: list[Path]) -> set[bytes]:
    """The long lines of every private key in some folders."""
    files = [path for folder in folders for path in folder.rglob("*") if path.is_file()]
    contents = [path.read_bytes() for path in files if path.stat().st_size < 20_000]
    keys = [content for content in contents if b"PRIVATE KEY-----" in content]
    return {line for key in keys for line in key.splitlines() if len(line) >= 40 and b"-" not in line}


def running() -> list[bytes]:
    """Command line and environment of each process that may be looked at."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            found += [(folder / part).read_bytes() for part in ("cmdline", "environ")]
    return found


def test_the_same_digest_with_both_and_the_ledgers_say_what_was_spent(field, secret):
    privacy = {"mechanism": "dp_sgd", "epsilon": 6.0, "accountant": "rdp", "deterministic": True}
    study, digest = secret(privacy=privacy)
    folders = [field.server, *field.sites.values()]
    keys = private_key_lines(folders)
    assert len(keys) >= 2 * len(folders)
    out = field.begin(study)
    field.until(lambda: field.in_second_round(out))
    assert not any(key in seen for seen in running() for key in keys)
    result = field.check_whole(out, study, digest)
    logs = [path for folder in folders for path in folder.rglob("*.log*")]
    assert len(logs) >= len(folders) and not any(key in p.read_bytes() for p in logs for key in keys)
    assert all(entry["pooled"] for entry in result["rounds"])
    for folder in field.sites.values():
        told = field.run(
            "cardionets-client", "budget", "--site", folder / "site.yaml", "--format", "json"
        ).json()
        mine = next(each for each in told["studies"] if each["study"] == Study.model_validate(study).digest)
        assert [phase["answers"] for phase in mine["phases"]] == [3]
        ledger = Ledger(folder / "state" / LEDGER, accountant="rdp")
        spent = ledger.spent(delta=1e-5, study=Study.model_validate(study).digest)
        assert 5.9 < spent <= 6.0
    # Every masked vector that left is a line of its site's journal, and of the coordinator's.
    lines = (field.sites["alpha"] / "state" / "journal.jsonl").read_text().splitlines()
    left = [json.loads(line.partition(" ")[2]) for line in lines]
    assert sum(each.get("secure") == "mask" for each in left) >= 3


def test_a_client_killed_while_it_trains_for_a_secret_sum(field, secret):
    study, digest = secret()
    out = field.begin(study)
    field.until(lambda: field.in_second_round(out))
    field.kill(field.until(lambda: field.orders_in_work("beta"))[0])
    field.check_whole(out, study, digest)


def test_a_serverapp_killed_within_a_secret_sum(field, secret):
    study, digest = secret()
    out = field.begin(study)
    field.until(lambda: (out / "rounds" / "00-00002" / "secure").is_dir())
    field.kill(field.until(lambda: field.children("server", "flwr-serverapp"))[0])
    field.check_whole(out, study, digest)
