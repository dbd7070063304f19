"""Which test types which blocks of the documents: document, and the beginning of a line of the block.

``test_every_block_is_typed_by_a_test_or_has_a_reason`` holds this to the documents.
"""

from __future__ import annotations

README, RUNBOOK = "README.md", "docs/operators.md"
WALKS: dict[str, tuple[tuple[str, str], ...]] = {
    "first": (
        (README, "make setup"),
        (README, ".venv/bin/cardionets-sim run rehearsal"),
        (README, ".venv/bin/cardionets-client inspect runs/first"),
        (README, ".venv/bin/cardionets-server plan demo"),
        (README, ".venv/bin/cardionets-client prepare"),
        (README, ".venv/bin/cardionets-client inspect ../shared"),
    ),
    "demo": ((README, "make demo"),),
    "engines": ((README, ".venv/bin/cardionets-sim scenarios"),),
    "all phases": (
        (README, ".venv/bin/cardionets-sim run cardionets"),
        (README, ".venv/bin/cardionets-client predict"),
        (README, ".venv/bin/cardionets-server release"),
    ),
    "real recordings": ((README, ".venv/bin/cardionets-sim run real_ecg"),),
    "flower's own command": ((README, "flwr run ."),),
    "simulation": (
        (README, ".venv/bin/cardionets-sim compare"),
        ("docs/simulation.md", "cardionets-sim scenarios"),
        ("docs/simulation.md", "mlflow ui"),
    ),
    "consortium": (
        (README, "cardionets-client request"),
        (README, "cardionets-server init hub"),
    ),
    "runbook": (
        (RUNBOOK, "cardionets-server init DIR"),
        (RUNBOOK, "cardionets-server plan DIR"),
        (RUNBOOK, "cardionets-server provision DIR"),
        (RUNBOOK, "cardionets-server package DIR"),
        (RUNBOOK, "cardionets-server admit DIR"),
        (RUNBOOK, "cardionets-client request --site NAME"),
        (RUNBOOK, "cardionets-client init FOLDER"),
        (RUNBOOK, "cardionets-client prepare"),
        (RUNBOOK, "cardionets-server renew"),
        (RUNBOOK, "cardionets-server revoke"),
        (RUNBOOK, "cardionets-server run DIR"),
        (RUNBOOK, "cardionets-server watch DIR --web"),
        (RUNBOOK, "cardionets-client status FOLDER --web"),
        (RUNBOOK, "cardionets-server track DIR"),
        (RUNBOOK, "mlflow ui"),
        (RUNBOOK, "cardionets-server release DIR"),
        (RUNBOOK, "cardionets-server roster DIR"),
        ("docs/logs.md", "cardionets-client logs"),
        ("docs/release.md", "cardionets-server release DIR"),
        ("docs/release.md", "sha256sum -c"),
        ("docs/approvals.md", "cardionets-client approve"),
        ("docs/privacy.md", "cardionets-server plan DIR"),
        ("docs/what-leaves.md", "cardionets-server journal"),
    ),
    # tests/system/test_rehearsal.py
    "rehearsal": ((RUNBOOK, "cardionets-sim make rehearsal"),),
}
NOT_TYPED: dict[tuple[str, str], str] = {
    (README, "make test"): "a test cannot run the tests; CI types `make check test`, people the others",
    (
        RUNBOOK,
        "mkdir ../rehearsal",
    ): "the test of the rehearsal stands in such a folder",
    (RUNBOOK, "rm -rf build"): "a second environment of some GB from the network",
    (README, "cardionets-server import-weights"): "the weights are not ours to ship; tests/server/"
    "test_import_weights.py types it on files of the same layout",
}
