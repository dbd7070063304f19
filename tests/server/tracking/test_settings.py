"""Addresses hold no secret and mean the same wherever a program is started."""

import json

import pytest
import yaml

from cardionets_core.config.read import parse_document
from cardionets_core.config.tracking import Tracking, checked_uri
from cardionets_core.config.workspace import ServerConfig
from cardionets_core.errors import ConfigError
from server.tracking.settings import (
    SETTINGS,
    address_of,
    artefacts_of,
    label_of,
    read_settings,
    write_settings,
)

SECRETS = (
    "http://me:hunter2@host:5000",
    "https://:hunter2@host",
    "postgresql+psycopg2://me:hunter2@host/mlflow",
    "http://host:5000/?token=hunter2",
    "postgresql://host/db?sslpassword=hunter2",
)


@pytest.mark.parametrize("uri", SECRETS)
def test_a_secret_in_an_address_is_refused_and_not_repeated(uri):
    with pytest.raises(ConfigError) as refused:
        checked_uri(uri, where="--uri")
    assert "MLFLOW_TRACKING_PASSWORD" in refused.value.remedy and "hunter2" not in str(refused.value)
    for key in ("uri", "registry_uri"):
        content = {"consortium": "c", "address": "h:1", "tracking": {key: uri}}
        with pytest.raises(ConfigError, match="password or token") as refused:
            parse_document(ServerConfig, content, where="server.yaml")
        assert "hunter2" not in str(refused.value) and "tracking" in str(refused.value)


@pytest.mark.parametrize(
    ("uri", "why"),
    [
        ("ftp://host", "kind"),
        ("mlruns", "kind"),
        ("http://", "no host"),
        ("sqlite:///mlflow.db", "not absolute"),
        ("http://[::1", "cannot be read"),
    ],
)
def test_what_mlflow_cannot_take_is_refused(uri, why):
    with pytest.raises(ConfigError, match=why):
        checked_uri(uri, where="--uri")


@pytest.mark.parametrize(
    "uri",
    ["", "http://127.0.0.1:5000", "https://me@host/mlflow", "sqlite:////srv/m.db", "postgresql://db/mlflow"],
)
def test_other_addresses_pass(uri):
    assert checked_uri(uri, where="--uri") == uri


def test_unknown_keys_are_refused():
    with pytest.raises(ConfigError, match="did you mean 'uri'"):
        parse_document(
            ServerConfig,
            {"consortium": "c", "address": "h:1", "tracking": {"url": ""}},
            where="server.yaml",
        )


def test_what_is_written_is_read_again(tmp_path):
    settings = Tracking(uri="http://127.0.0.1:5000", experiment="e", register=False)
    write_settings(tmp_path / "run", settings)
    assert read_settings(tmp_path / "run") == settings
    assert json.loads((tmp_path / "run" / SETTINGS).read_text())["register"] is False
    assert address_of(tmp_path, settings) == label_of(settings) == "http://127.0.0.1:5000"
    assert artefacts_of(tmp_path, settings) == ""


def test_a_folder_without_settings_has_its_own_store(tmp_path):
    settings = read_settings(tmp_path)
    assert settings == Tracking() and settings.register_model
    assert address_of(tmp_path, settings) == f"sqlite:///{tmp_path}/mlflow.db"
    assert artefacts_of(tmp_path, settings) == f"file://{tmp_path}/mlflow"
    assert label_of(settings) == "mlflow.db"


def test_artefacts_of_an_sqlite_file_lie_beside_it(tmp_path):
    """And not in whatever folder the server was started in."""
    assert artefacts_of(tmp_path, Tracking(uri="sqlite:////srv/all/m.db")) == "file:///srv/all/mlflow"


def test_settings_that_are_none_of_ours_are_told(tmp_path):
    (tmp_path / SETTINGS).write_text("{")
    with pytest.raises(ConfigError, match="cannot be read"):
        read_settings(tmp_path)
    (tmp_path / SETTINGS).write_text('{"uri": 5}')
    with pytest.raises(ConfigError, match="uri"):
        read_settings(tmp_path)


def test_the_template_has_the_defaults():
    from pathlib import Path

    import server

    text = (Path(server.__file__).parent / "templates" / "server.yaml").read_text(encoding="utf-8")
    content = yaml.safe_load(text.replace("$consortium", "c").replace("$address", "h:1"))
    assert parse_document(Tracking, content["tracking"], where="t") == Tracking()
    assert content["tracking"] == Tracking().model_dump(by_alias=True)
