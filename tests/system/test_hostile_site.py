"""A site that sends what it must not: it is left out, named and counted; the model is that of the others."""

from __future__ import annotations

import itertools
import json
import sys

import pytest

pytestmark = pytest.mark.system
SEEDS = itertools.count(300)
STUDY_S = 900.0

HOSTILE = '''#!{python} -P
"""In place of the site's program: the approved code runs, and its replies to training orders are spoiled."""
import sys
from pathlib import Path
import numpy as np
import flwr.clientapp.client_app as flower
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, RecordDict

KIND, KEPT = {kind!r}, Path({kept!r})
honest = flower.ClientApp.__call__


def spoiled(self, message, context):
    reply = honest(self, message, context)
    if message.metadata.message_type != "train" or reply.has_error():
        return reply
    fields = dict(reply.content.config_records["fields"])
    arrays = {{name: array.numpy().copy() for name, array in reply.content.array_records["arrays"].items()}}
    if not arrays:
        return reply
    sent = {{n: a.numpy() for n, a in message.content.array_records["arrays"].items()}}
    name = "module/ecg_encoder"
    if KIND == "nan":
        arrays[name][3] = np.nan
    elif KIND == "shape":
        arrays[name] = arrays[name][:-1]
    elif KIND == "other-study":
        fields["study-digest"] = "0" * 64
    elif KIND == "large":
        arrays[name] = sent[name] + 1000 * (arrays[name] - sent[name])
    elif KIND == "replay":
        if KEPT.exists():
            held = np.load(KEPT, allow_pickle=True).item()
            fields, arrays = held["fields"], held["arrays"]
        else:
            np.save(KEPT, {{"fields": fields, "arrays": arrays}}, allow_pickle=True)
    content = RecordDict({{
        "fields": ConfigRecord(fields),
        "arrays": ArrayRecord({{n: Array(a) for n, a in arrays.items()}}),
    }})
    return Message(content, reply_to=message)


flower.ClientApp.__call__ = spoiled
sys.argv[0] = "flwr-clientapp"
from flwr.supernode.cli.flwr_clientapp import flwr_clientapp
flwr_clientapp()
'''


@pytest.fixture
def hostile(field, tmp_path):
    """Makes beta hostile; its own program is back afterwards, since the service writes it at every start."""

    def make(kind):
        program = field.site("beta").node / "bin" / "flwr-clientapp"
        program.write_text(HOSTILE.format(python=sys.executable, kind=kind, kept=str(tmp_path / "kept.npy")))

    yield make
    field.run("cardionets-client", "stop", field.sites["beta"])


@pytest.mark.parametrize("kind", ["nan", "shape", "other-study", "large", "replay"])
def test_a_spoiled_reply_is_left_out_and_named(field, hostile, kind):
    # Two honest sites are enough here; beta's replies must never be among those that count.
    study = field.small_study(
        next(SEEDS),
        sites={"minimum": 2, "deadline_s": 300, "attempts": 2},
        reply_bounds={"maximum_update_norm": 20.0},
    )
    hostile(kind)
    out = field.begin(study)
    assert field.outcome(seconds=STUDY_S)["state"] == "completed"
    result = json.loads((out / "result.json").read_text())
    rows = [row for entry in result["rounds"] for row in entry["sites"] if row["site"] == "beta"]
    # The first reply of a replaying site is its own; it is good.
    refused = rows[1:] if kind == "replay" else rows
    assert refused and all(row["code"] == "reply-refused" for row in refused), rows
    assert all(row.get("reason") for row in refused)
    for entry in result["rounds"]:
        trained = {row["site"] for row in entry["sites"] if row["status"] == "trained"}
        assert {"alpha", "gamma"} <= trained
    journal = (out / "journal.jsonl").read_text()
    assert journal.count("reply-refused") >= len(refused)
