"""The two app folders that ``flwr run`` is given: bare Flower's app, and CardioNets' with its packages."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Literal

Side = Literal["flower", "cardionets"]
ROOT = Path(__file__).resolve().parents[3]
HERE = "simulation/benchmarks/exchange"
APPS: dict[Side, tuple[str, ...]] = {
    "flower": ("plain_server.py", "plain_client.py"),
    "cardionets": ("our_server.py", "our_client.py"),
}
PACKAGES: dict[Side, tuple[str, ...]] = {
    "flower": (),
    "cardionets": ("cardionets_core", "client", "server", "strategies"),
}
PROJECT = """[build-system]
requires = ["setuptools"]
build-backend = "setuptools.build_meta"

[project]
name = "exchange-{side}"
version = "1.0.0"
description = "Rounds of a benchmark."
license = "Apache-2.0"
dependencies = []

[tool.flwr.app]
publisher = "cardionets"
fab-include = ["**/*.py"]

[tool.flwr.app.components]
serverapp = "simulation.benchmarks.exchange.{server}:app"
clientapp = "simulation.benchmarks.exchange.{client}:app"

[tool.flwr.app.config]
rounds = 3
sites = 2
model-bytes = 1000000
arrays = 100
reply = "same"
marks = ""
out = ""
"""


def make_bundle(side: Side, folder: Path) -> Path:
    """Write the app folder of one side.

    Args:
        side: whose app.
        folder: where it is made.
    """
    target = folder / f"app-{side}"
    names = (*APPS[side], "synthetic.py", "__init__.py")
    for name in (*(f"{HERE}/{name}" for name in names), "simulation/__init__.py",
                 "simulation/benchmarks/__init__.py"):  # fmt: skip
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / name, target / name)
    for package in PACKAGES[side]:
        shutil.copytree(
            ROOT / package, target / package,
            ignore=lambda folder, names: [n for n in names if "." in n and not n.endswith(".py")]
            + ["__pycache__"],
        )  # fmt: skip
    server, client = (name.removesuffix(".py") for name in APPS[side])
    (target / "pyproject.toml").write_text(
        PROJECT.format(side=side, server=server, client=client), encoding="utf-8"
    )
    return target
