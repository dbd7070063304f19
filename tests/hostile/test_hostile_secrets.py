"""Secrets of real runs are looked for in all that leaves a site, that a server keeps, and that is said."""

from __future__ import annotations

import base64
import csv
import functools
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import yaml

from cardionets_core.audit import journal
from cardionets_core.config.site import read_site
from cardionets_core.config.study import Study
from cardionets_core.data.manifest import MANIFEST, cohort_folder
from cardionets_core.data.prepare import prepare
from client.app import make_app
from server.app import run_study
from server.progress import silent
from simulation.flower import hospital_of_partition
from simulation.local_grid import LocalGrid
from simulation.make import make_hospitals
from simulation.scenario import Scenario

SMALL = {"split": {"validation": 0.2, "test": 0.2}, "policy": {"minimum_patients": 5, "minimum_cell": 1}}
HOSPITALS = [
    {"site": "alpha", "layout": "mimic_iv_ecg", "patients": 14, **SMALL},
    {"site": "beta", "layout": "local_wfdb", "patients": 14, **SMALL,
     "scanner": {"spacing_mm": 2.2, "pixels": 80, "frames": 20}},
]  # fmt: skip
STUDY = Study.model_validate(
    {
        "name": "secrets", "seed": 1, "sites": {"minimum": 1, "deadline_s": 60},
        "phases": [
            {"task": "ecg_mae", "rounds": 1, "local_steps": 2, "batch_size": 4, "optimiser": {"lr": 1e-3}}
        ],
    }
)  # fmt: skip
PEM_LINE = 40


@dataclass
class Secrets:
    """What must not be found, by its name."""

    words: dict[str, bytes] = field(default_factory=dict)

    def add(self, name: str, content: bytes) -> None:
        """A secret as it lies on the disk, and in the forms in which it could be written down."""
        self.words |= {name: content, f"{name} as hex": content.hex().encode()}
        self.words[f"{name} in base64"] = base64.b64encode(content).rstrip(b"=")

    def add_key(self, path: Path) -> None:
        """The body of a private key: its longest line, by which its copies are known."""
        lines = [line for line in path.read_bytes().splitlines() if not line.startswith(b"-----")]
        assert lines, path
        # The first line of a key in OpenSSH's form is the same for all keys.
        self.words[f"the key {path.name}"] = max(lines[1:] or lines, key=len)[:PEM_LINE]

    def found_in(self, contents: Mapping[str, bytes], *, but: Iterable[str] = ()) -> list[str]:
        """Which secret stands where."""
        return [
            f"{name} in {place}"
            for name, word in self.words.items()
            for place, content in contents.items()
            if name not in but and word in content
        ]


def identifiers(folder: Path) -> set[str]:
    """Names of people and recordings in the tables and the names of the files of a made hospital."""
    found: set[str] = set()
    for table in folder.rglob("*.csv"):
        with table.open(newline="") as stream:
            for row in csv.DictReader(stream):
                found |= {row[key] for key in ("patient", "subject_id", "study_id", "eid") if row.get(key)}
    files = [path for path in folder.rglob("*") if path.suffix in (".hea", ".dat", ".gz", ".zip")]
    found |= {path.name.split(".")[0] for path in files}
    return {name for name in found if len(name) >= 5}


def contents(*folders: Path, but: tuple[str, ...] = ()) -> dict[str, bytes]:
    """All files of some folders by their paths, and the paths themselves as one content."""
    files = [path for folder in folders for path in sorted(folder.rglob("*")) if path.is_file()]
    found = {str(path): path.read_bytes() for path in files if path.name not in but}
    # The folders of a test hold the name of the test alone.
    inside = [str(path.relative_to(folder)) for folder in folders for path in folder.rglob("*")]
    return {**found, "names of files": "\n".join(inside).encode()}


@dataclass
class Made:
    """A study that was run over two hospitals, and a third order that one of them had to refuse."""

    sites: list[Path]
    run: Path
    left: dict[str, bytes]
    secrets: Secrets
    people: set[str]


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Made:
    folder = tmp_path_factory.mktemp("secrets")
    scenario = {"name": "s", "seed": 4, "hospitals": HOSPITALS, "study": STUDY.model_dump(mode="json")}
    sites = make_hospitals(
        Scenario.model_validate(scenario), folder / "hospitals-of-a-marked-name", workers=1
    )
    for path in sites:
        prepare(read_site(path))
    left: dict[str, bytes] = {}

    def keep(node, content):
        records = {str(key): dict(value) for key, value in content.config_records.items()}
        arrays = b"".join(
            name.encode() + array.data
            for each in content.array_records.values()
            for name, array in each.items()
        )
        left[f"reply {len(left)}"] = repr(records).encode() + arrays
        return content

    locate = functools.partial(hospital_of_partition, tuple(sites))
    run_study(
        LocalGrid([make_app(locate) for _ in sites], tamper=keep),
        STUDY,
        folder=folder / "run",
        progress=silent,
        track=False,
    )
    # A site whose cache is torn refuses: its reason names paths, and stays.
    (cohort_folder(read_site(sites[0])) / MANIFEST).write_bytes(b"torn")
    lonely = STUDY.model_copy(update={"seed": 2})
    run_study(
        LocalGrid([make_app(locate) for _ in sites], tamper=keep),
        lonely,
        folder=folder / "again",
        progress=silent,
        track=False,
    )
    secrets = Secrets()
    for path in sites:
        config = read_site(path)
        secrets.add(f"the pseudonym key of {config.site}", config.folders.secret.read_bytes())
        secrets.add_key(config.folders.state / "journal.key")
    people = {name for path in sites for name in identifiers(path.parent)}
    assert len(people) > 40
    return Made(sites=sites, run=folder / "run", left=left, secrets=secrets, people=people)


def test_what_is_looked_for_is_found_where_it_lies(made):
    """A search that finds nothing anywhere proves nothing."""
    people = Secrets({f"the person {name}": name.encode() for name in made.people})
    lying = contents(*(path.parent for path in made.sites))
    assert {each.partition(" in /")[0] for each in people.found_in(lying)} >= set(people.words)
    keys = contents(*(read_site(path).folders.secret.parent for path in made.sites))
    assert len(made.secrets.found_in(keys)) >= 2


def test_nothing_secret_leaves_a_site_or_reaches_the_run_folder(made):
    secrets = Secrets({**made.secrets.words, **{f"the person {name}": name.encode() for name in made.people}})
    secrets.words |= {f"the path of {path.parent.name}": str(path.parent).encode() for path in made.sites}
    secrets.words["the folder of the hospitals"] = b"hospitals-of-a-marked-name"
    assert len(made.left) >= 6 and any(b"cache-foreign" in content for content in made.left.values())
    kept = {**contents(made.run, made.run.parent / "again"), **made.left}
    assert len(kept) > 20
    assert secrets.found_in(kept) == []


def test_a_sites_own_records_name_nobody_and_hold_no_key(made):
    """Cache, journal, log and kept replies; paths are the site's own and may stand in its log."""
    people = Secrets({f"the person {name}": name.encode() for name in made.people})
    for path in made.sites:
        config = read_site(path)
        records = contents(config.folders.state, config.folders.cache)
        records["client.log"] = (
            (path.parent / "client.log").read_bytes() if (path.parent / "client.log").exists() else b""
        )
        binary = re.compile(r"\.(bin|safetensors|npy|parquet)$")
        plain = {place: content for place, content in records.items() if not binary.search(place)}
        assert len(plain) > 5
        assert people.found_in(plain) == []
        # Eight digits can stand in any megabytes of numbers; longer names cannot.
        long_names = Secrets({n: w for n, w in people.words.items() if len(w) >= 9 or not w.isdigit()})
        assert long_names.found_in(records) == []
        own = {name for name in made.secrets.words if name == "the key journal.key"}
        holders = {place: content for place, content in records.items() if not place.endswith("journal.key")}
        assert made.secrets.found_in(holders) == [] and own
        journal.verify(config.folders.state / "journal.jsonl")


def test_secrets_lie_open_to_their_owner_alone(made):
    for path in made.sites:
        config = read_site(path)
        for secret in (config.folders.secret, config.folders.state / "journal.key"):
            assert secret.stat().st_mode & 0o077 == 0, secret


@dataclass
class Watched:
    """How a command ended, and the command lines of it and of all that it started."""

    code: int
    said: bytes
    lines: set[bytes]


def watched(program: str, *arguments: object) -> Watched:
    """Run a program and look at the command lines of its processes as long as it runs."""
    command = [str(Path(sys.executable).with_name(program)), *map(str, arguments)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    lines: set[bytes] = set()
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, env=environment
    ) as process:
        while process.poll() is None:
            lines |= command_lines(process.pid)
            time.sleep(0.02)
        assert process.stdout is not None
        return Watched(code=process.returncode, said=process.stdout.read(), lines=lines)


def command_lines(pid: int) -> set[bytes]:
    """Of a process and of its children, with their environments."""
    found: set[bytes] = set()
    for number in [pid, *children(pid)]:
        for part in ("cmdline", "environ"):
            try:
                found.add(Path(f"/proc/{number}/{part}").read_bytes())
            except OSError:
                continue
    return found


def children(pid: int) -> list[int]:
    """Processes that a process started, and those that they started."""
    try:
        text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    except OSError:
        return []
    direct = [int(number) for number in text.split()]
    return direct + [each for number in direct for each in children(number)]


def test_programs_that_make_keys_say_and_pass_on_none(tmp_path):
    home, own, given = tmp_path / "server", tmp_path / "own", tmp_path / "given"
    ended = [watched("cardionets-server", "init", home, "--address", "localhost:9092")]
    ended.append(watched("cardionets-server", "provision", home, "--site", "given", "--format", "json"))
    passphrase = home / "kits" / "given.passphrase"
    kit = home / "kits" / "given-kit.zip"
    wrong = tmp_path / "wrong"
    wrong.write_text("a-marked-wrong-passphrase\n")
    wrong.chmod(0o600)
    refused = watched("cardionets-client", "init", given, "--kit", kit, "--passphrase-file", wrong)
    assert refused.code and not given.joinpath("connection.yaml").exists()
    ended.append(watched("cardionets-client", "init", given, "--kit", kit, "--passphrase-file", passphrase))
    ended.append(watched("cardionets-client", "request", "--site", "own", "--out", own, "--format", "json"))
    ended.append(watched("cardionets-server", "admit", home, own / "own.request", "--yes"))
    ended.append(watched("cardionets-client", "init", own, "--kit", home / "kits" / "own-kit.zip"))
    assert [each.code for each in ended] == [0] * len(ended), [each.said for each in ended]
    secrets = Secrets(
        {"the passphrase": passphrase.read_bytes().strip(), "a wrong one": b"a-marked-wrong-pass"}
    )
    keys = [home / "trust" / "ca.key", home / "trust" / "server.key", own / "trust" / "site.key",
            given / "trust" / "site.key"]  # fmt: skip
    for key in keys:
        secrets.add_key(key)
        secrets.words[f"{key.parent.parent.name}: {key.name}"] = secrets.words.pop(f"the key {key.name}")
        assert key.stat().st_mode & 0o077 == 0
    said = {f"output of command {number}": each.said for number, each in enumerate([*ended, refused])}
    seen = set.union(*(each.lines for each in [*ended, refused]))
    lines = {f"command line {number}": line for number, line in enumerate(seen)}
    assert len(lines) >= 6
    assert secrets.found_in({**said, **lines}) == []
    names = {key.name for key in keys}
    but = (*names, passphrase.name)
    files = contents(home, own, given, but=but)
    assert len(files) > 15
    assert secrets.found_in(files) == []


def test_errors_of_a_broken_site_show_no_secret(made, tmp_path, run):
    """Every way in which the program can be told of a fault, with the secrets of the site at hand."""
    path = made.sites[1]
    document = yaml.safe_load(path.read_text())
    broken = path.with_name("broken.yaml")
    broken.write_text(yaml.safe_dump({**document, "policy": {**document["policy"], "secret": "x"}}))
    said = {}
    for number, arguments in enumerate(
        (["check", broken], ["prepare", broken], ["inspect", path.parent / "ecg"],
         ["check", path, "--format", "json"], ["journal", "show", path], ["status", path.parent],
         ["predict", path, tmp_path])
    ):  # fmt: skip
        done = run("cardionets-client", *arguments)
        said[f"command {number}"] = (done.stdout + done.stderr).encode("utf-8", "replace")
    people = Secrets({f"the person {name}": name.encode() for name in made.people})
    assert made.secrets.found_in(said) == []
    assert people.found_in(said) == []
