"""A site's way to the coordinator: ``connection.yaml``, and where everything in the site's folder lies.

Comes in: a folder that a startup kit was unpacked into. Goes out: a frozen document and named paths. Makes
and changes nothing. ``site.yaml`` beside it says what the hospital permits, this document whom it talks to.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import Field

from cardionets_core.config.patterns import ADDRESS, SITE_NAME
from cardionets_core.config.read import Document, read_document
from cardionets_core.config.workspace import Logs, Restart
from cardionets_core.errors import ConfigError

COORDINATOR = "server.yaml"
"""Lies in every workspace of a coordinator, and in no site's folder."""


class ConnectionConfig(Document):
    """``connection.yaml``: the coordinator's address and this site's ports."""

    schema_version: Literal[1] = 1
    consortium: str = Field(pattern=SITE_NAME)
    site: str = Field(
        pattern=SITE_NAME, description="the name under which the coordinator admitted this site"
    )
    server: str = Field(pattern=ADDRESS, description="host:port of the coordinator's outer listener")
    cardionets_version: str = Field(description="that the coordinator runs")
    flwr_version: str = Field(description="that the coordinator runs")
    runtime_port: int = Field(
        default=9201, ge=1, le=65535, description="loopback: Flower's runtime on this site"
    )
    health_port: int = Field(default=9202, ge=1, le=65535, description="loopback: health of the service")
    restart: Restart = Restart()
    logs: Logs = Logs()

    @property
    def host(self) -> str:
        """Host of the server, without brackets."""
        return self.server.rpartition(":")[0].strip("[]")

    @property
    def port(self) -> int:
        """Port of the server."""
        return int(self.server.rpartition(":")[2])


@dataclass(frozen=True, slots=True)
class SiteFolder:
    """Named places in a site's folder; absolute.

    Attributes:
        root: the folder.
    """

    root: Path

    @property
    def connection_yaml(self) -> Path:
        """Whom this site talks to."""
        return self.root / "connection.yaml"

    @property
    def site_yaml(self) -> Path:
        """What this hospital permits."""
        return self.root / "site.yaml"

    @property
    def trust(self) -> Path:
        """``ca.crt``, ``site.key`` (secret), ``site.crt``."""
        return self.root / "trust"

    @property
    def package(self) -> Path:
        """The code and the study that came with the kit."""
        return self.root / "package"

    @property
    def approvals(self) -> Path:
        """What IT approved, what waits for approval; read by the check that stands outside the code."""
        return self.root / "approvals"

    @property
    def node(self) -> Path:
        """Flower's home on this site."""
        return self.root / "node"

    @property
    def logs(self) -> Path:
        """Log files of the service."""
        return self.root / "logs"

    @property
    def service(self) -> Path:
        """What the running service says of itself."""
        return self.root / "service"

    def config(self) -> ConnectionConfig:
        """Read ``connection.yaml``.

        Raises:
            ConfigError: there is none, or every fault of it at once.
        """
        return read_document(ConnectionConfig, self.connection_yaml)


def check_may_be_site(folder: Path) -> None:
    """Say why a folder that lacks a site's documents cannot be a site's at all.

    Raises:
        ConfigError: there is no such folder, or it is a coordinator's workspace.
    """
    place = folder.expanduser()
    if not place.exists():
        raise ConfigError(
            f"there is no folder {folder}",
            where=str(folder),
            remedy="name the folder that `cardionets-client init` made",
        )
    if (place / COORDINATOR).is_file():
        raise ConfigError(
            f"{folder} is a coordinator's workspace, not a site's folder: it holds {COORDINATOR}",
            where=str(folder),
            remedy="name a hospital's folder; a coordinator's program is cardionets-server",
        )


def open_site_folder(folder: Path) -> SiteFolder:
    """The site's folder.

    Raises:
        ConfigError: no startup kit was unpacked there, it is not there, or it is a coordinator's.
    """
    found = SiteFolder(folder.expanduser().resolve())
    if not found.connection_yaml.is_file():
        check_may_be_site(folder)
        raise ConfigError(
            f"{folder} holds no connection.yaml: no startup kit was unpacked there",
            where=str(folder),
            remedy="unpack the coordinator's kit: cardionets-client init --kit KIT.zip DIR",
        )
    return found
