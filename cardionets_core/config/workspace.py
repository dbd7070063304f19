"""The coordinator's workspace: ``server.yaml``, and where everything in the folder lies.

Comes in: a folder. Goes out: a frozen document and named paths. Makes and changes nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import Field, field_validator, model_validator

from cardionets_core.config.patterns import ADDRESS as ADDRESS
from cardionets_core.config.patterns import SITE_NAME as SITE_NAME
from cardionets_core.config.read import Document, read_document
from cardionets_core.config.tracking import Tracking
from cardionets_core.errors import ConfigError


class Restart(Document):
    """How a process that ended by itself is started again."""

    first_pause_s: float = Field(default=1.0, gt=0)
    longest_pause_s: float = Field(default=60.0, gt=0)
    healthy_after_s: float = Field(default=60.0, gt=0, description="uptime after which the pauses begin anew")


class Logs(Document):
    """Log files of the service, one a process."""

    maximum_bytes: int = Field(default=10_000_000, ge=10_000)
    keep: int = Field(default=5, ge=1, le=100, description="older files kept of each")


class Certificates(Document):
    """Life of what the consortium's authority signs."""

    server_days: int = Field(default=397, ge=1, le=825)
    site_days: int = Field(default=397, ge=1, le=825)
    warn_days: int = Field(default=45, ge=1, description="renewal is asked for this long before the end")


class ServerConfig(Document):
    """``server.yaml``: how this coordinator is reached and kept running."""

    schema_version: Literal[1] = 1
    consortium: str = Field(pattern=SITE_NAME, description="name of the consortium, in its certificates")
    address: str = Field(pattern=ADDRESS, description="host:port under which the sites reach this server")
    names: tuple[str, ...] = Field(
        default=(), description="further host names and IP addresses of the server's certificate"
    )
    listen_host: str = Field(default="0.0.0.0", description="where the outer listener binds")
    listen_port: int | None = Field(default=None, ge=1, le=65535, description="default: that of address")
    inner_port: int = Field(
        default=9101, ge=1, le=65535, description="loopback: Flower's control and runtime"
    )
    health_port: int = Field(default=9102, ge=1, le=65535, description="loopback: health of the service")
    minimum_free_bytes: int = Field(
        default=2_000_000_000, ge=0, description="below this the study pauses before a round"
    )
    certificates: Certificates = Certificates()
    restart: Restart = Restart()
    logs: Logs = Logs()
    tracking: Tracking = Tracking()

    @model_validator(mode="after")
    def _three_ports(self) -> ServerConfig:
        ports = (self.outer_port, self.inner_port, self.health_port)
        if len(set(ports)) < len(ports):
            raise ValueError(
                "the port of the sites, inner_port and health_port are three different ones, not "
                + ", ".join(map(str, ports))
            )
        return self

    @property
    def host(self) -> str:
        """Host of the address, without brackets."""
        return self.address.rpartition(":")[0].strip("[]")

    @property
    def port(self) -> int:
        """Port of the address."""
        return int(self.address.rpartition(":")[2])

    @property
    def outer_port(self) -> int:
        """Where the outer listener binds."""
        return self.listen_port or self.port

    @field_validator("address")
    @classmethod
    def _a_port(cls, value: str) -> str:
        if not 1 <= int(value.rpartition(":")[2]) <= 65535:
            raise ValueError("the port lies in 1 to 65535")
        return value


@dataclass(frozen=True, slots=True)
class Workspace:
    """Named places in a coordinator's folder; absolute.

    Attributes:
        root: the folder.
    """

    root: Path

    @property
    def server_yaml(self) -> Path:
        """How the server is reached."""
        return self.root / "server.yaml"

    @property
    def study_yaml(self) -> Path:
        """What the consortium trains."""
        return self.root / "study.yaml"

    @property
    def trust(self) -> Path:
        """Authority, server certificate, registry of sites; secret."""
        return self.root / "trust"

    @property
    def kits(self) -> Path:
        """Startup kits, ready to send."""
        return self.root / "kits"

    @property
    def code(self) -> Path:
        """The bundle that the sites run."""
        return self.root / "code"

    @property
    def link(self) -> Path:
        """The SuperLink's database and secret, and Flower's home."""
        return self.root / "link"

    @property
    def runs(self) -> Path:
        """One folder a study: checkpoints, rounds, model, result."""
        return self.root / "runs"

    @property
    def logs(self) -> Path:
        """Log files of the service."""
        return self.root / "logs"

    @property
    def state(self) -> Path:
        """What the running service says of itself, and what was asked of it."""
        return self.root / "state"

    def config(self) -> ServerConfig:
        """Read ``server.yaml``.

        Raises:
            ConfigError: there is none, or every fault of it at once.
        """
        return read_document(ServerConfig, self.server_yaml)


def open_workspace(folder: Path) -> Workspace:
    """The workspace in a folder.

    Raises:
        ConfigError: no workspace was made there.
    """
    workspace = Workspace(folder.expanduser().resolve())
    if not workspace.server_yaml.is_file():
        raise ConfigError(
            f"{folder} is no coordinator's workspace: it holds no server.yaml",
            where=str(folder),
            remedy="make one with: cardionets-server init DIR",
        )
    return workspace
