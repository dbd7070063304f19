"""What the package says of itself is what the checkout says, and Flower's private names are those we read."""

import importlib.metadata
import tomllib
from pathlib import Path

from client.supernode import FLWR_MINOR
from server.bundle import staged_files
from server.bundle.contents import FLOWER_APP

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


def test_the_generated_app_is_that_of_the_checkout():
    assert PROJECT["tool"]["flwr"]["app"] == FLOWER_APP
    assert (
        tomllib.loads(staged_files()["pyproject.toml"].decode())["project"]["name"]
        == PROJECT["project"]["name"]
    )


def test_the_guard_of_the_supernode_was_written_for_this_flower():
    version = importlib.metadata.version("flwr")
    assert version.startswith(FLWR_MINOR + "."), (
        "read client/supernode.py again: it uses names that are not public"
    )
    import flwr.supernode.start_client_internal as flower

    source = Path(flower.__file__).read_text()
    assert source.count("time.sleep(3)") == 1 and "if trusted_entities:" in source
    assert {"http_request_response", "_pull_and_store_message", "_verify_fab"} <= set(vars(flower))
