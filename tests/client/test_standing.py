"""How a site says that it lacks something, that its link is there, and what left; and how lightly."""

import subprocess
import sys

import pytest

from cardionets_core.config.connection import SiteFolder
from cardionets_core.config.site import read_site
from cardionets_core.data.manifest import MANIFEST, cohort_folder
from client.approvals.store import ApprovalStore
from client.missing import FIRST_LINK_S, LinkWatch, missing_lines
from client.standing import link_of
from server.study_files import SHIPPED

STARTS = "--- 2026-01-01T00:00:00Z supernode starts (restarts: {})\n"
CONNECTION = """consortium: heart
site: alpha
server: "localhost:19092"
cardionets_version: "0.1.0"
flwr_version: "1.41.0"
"""


@pytest.fixture
def folder(hospital):
    """A site's folder as a kit leaves it."""
    (hospital.folder / "connection.yaml").write_text(CONNECTION)
    return SiteFolder(hospital.folder)


def test_what_is_missing_is_told_until_it_is_there(folder):
    from cardionets_core.config.study import read_study

    code, cache = missing_lines(folder)
    assert "no code is approved" in code and f"cardionets-client approve {folder.root}" in code
    assert "no cache" in cache and f"cardionets-client prepare --site {folder.site_yaml}" in cache
    store = ApprovalStore(folder.approvals)
    store.approve_code(b"bundle")
    assert "no study is approved" in missing_lines(folder)[0]
    store.approve_study(read_study(SHIPPED / "demo.yaml").to_json())
    assert missing_lines(folder) == [cache]
    manifest = cohort_folder(read_site(folder.site_yaml)) / MANIFEST
    manifest.parent.mkdir(parents=True)
    manifest.write_text("{}")
    assert missing_lines(folder) == []
    (folder.approvals / "store.jsonl").write_text("touched\n")
    assert "nothing counts as approved" in missing_lines(folder)[0]


def test_the_link_is_told_when_it_comes_goes_or_is_refused(folder):
    folder.logs.mkdir()
    log = folder.logs / "supernode.log"
    told, now = [], [0.0]
    watch = LinkWatch(folder=folder, server="hub:9092", tell=told.append, clock=lambda: now[0])

    def looks(text, number=2):
        with log.open("a") as stream:
            stream.write(text)
        before = len(told)
        for _ in range(number):
            watch()
        return told[before:]

    assert looks("SuperNode ID: 7\n" + STARTS.format(0)) == []  # an earlier service's word is none
    assert link_of(folder) == "not connected yet"
    now[0] = FIRST_LINK_S + 1
    assert "hub:9092 does not answer" in looks("")[0]
    assert looks("Connection attempt failed, retrying in 1.78 seconds\n", number=1) == []
    assert looks("Connection successful after 3 seconds and 4 tries.\nSuperNode ID: 7\n") == [
        "link: connected to hub:9092"
    ]
    assert looks("Receiving: message\n") == [] and looks("Sent successfully\n") == []
    (lost,) = looks("Connection attempt failed, retrying in 1.78 seconds\n")
    assert "does not answer" in lost and f"check --site {folder.site_yaml}" in lost
    (refused,) = looks("REFUSED: the coordinator answers 401 not-admitted\n" + STARTS.format(1))
    assert "not admitted" in refused and "cardionets-client check" in refused
    (waits,) = looks("could not verify the FAB\n")
    assert f"cardionets-client approve {folder.root}" in waits


@pytest.mark.parametrize("command", [("status", "{folder}"), ("journal", "--site", "{folder}/site.yaml")])
def test_a_look_at_the_site_loads_no_heavy_library(folder, command):
    arguments = ["cardionets-client", *(word.format(folder=folder.root) for word in command)]
    code = (
        f"import sys; sys.argv={arguments!r}; from client.cli import main\n"
        "try: main()\nexcept SystemExit as ended: assert not ended.code\n"
        "heavy = {'torch', 'flwr', 'numpy', 'pandas', 'pyarrow', 'scipy'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout.splitlines()[-1] == "[]", done.stdout + done.stderr
