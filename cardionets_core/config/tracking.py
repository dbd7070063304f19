"""Where a coordinator's MLflow is: the part ``tracking`` of ``server.yaml``.

Comes in: what a person wrote. Goes out: a frozen document whose addresses hold no secret. It opens no
address and knows nothing of MLflow but how its addresses are written.
"""

from __future__ import annotations

from urllib.parse import parse_qsl, urlsplit

from pydantic import Field, model_validator

from cardionets_core.config.read import Document
from cardionets_core.errors import ConfigError

SCHEMES = ("http", "https", "sqlite", "postgresql", "mysql", "mssql", "file", "databricks")
SECRET_KEYS = ("password", "passwd", "pwd", "token", "secret", "key")
"""Parts of the names of query parameters that carry what nobody else may know."""
ENVIRONMENT = "MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, MLFLOW_TRACKING_TOKEN"


class Tracking(Document):
    """Where curves, parameters and the model go beside the run folder."""

    uri: str = Field(
        default="", description="of the tracking server or store; empty: an SQLite file in the run folder"
    )
    experiment: str = Field(default="", max_length=500, description="empty: the study's name")
    registry_uri: str = Field(default="", description="of the model registry; empty: where the tracking is")
    register_model: bool = Field(default=True, alias="register", description="register the finished model")

    @model_validator(mode="after")
    def _no_secrets(self) -> Tracking:
        # Checked on the whole, so that no message repeats an address: it may hold a password.
        for name in ("uri", "registry_uri"):
            try:
                checked_uri(getattr(self, name), where=name)
            except ConfigError as error:
                raise ValueError(f"{name}: {error.what}; {error.remedy}") from None
        return self


def checked_uri(uri: str, *, where: str) -> str:
    """The address, if it may stand in a document: of a known kind, absolute, without a secret.

    Args:
        uri: of a tracking server or store; empty is the store in the run folder.
        where: the option or key, for the message.

    Raises:
        ConfigError: it holds a secret, is of no kind that MLflow stores to, or is a path that depends on
            where a program is started. The message does not repeat it.
    """
    if not uri or uri == "databricks":
        return uri
    try:
        parts = urlsplit(uri)
        secret = parts.password is not None
        names = [name.lower() for name, _ in parse_qsl(parts.query, keep_blank_values=True)]
    except ValueError as error:
        raise ConfigError("the address cannot be read", where=where, remedy="mend it") from error
    if secret or any(part in name for name in names for part in SECRET_KEYS):
        raise ConfigError(
            "the address holds a password or token, and documents and logs are read by others",
            where=where,
            remedy=f"take it out; give it by the environment ({ENVIRONMENT}) or the database's own file",
        )
    scheme = parts.scheme.partition("+")[0]
    if scheme not in SCHEMES:
        raise ConfigError(
            "the address is of no kind that MLflow stores to",
            where=where,
            remedy="such as http://127.0.0.1:5000, https://HOST or sqlite:////ABSOLUTE/PATH.db",
        )
    if scheme in ("http", "https") and not parts.hostname:
        raise ConfigError("the address names no host", where=where, remedy="such as http://127.0.0.1:5000")
    if scheme == "sqlite" and not parts.path.startswith("//"):
        raise ConfigError(
            "the path of the SQLite file is not absolute: the server is started in any folder",
            where=where,
            remedy="write sqlite:// and then / and the absolute path: sqlite:////srv/mlflow.db",
        )
    return uri
