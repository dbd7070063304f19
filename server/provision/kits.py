"""What a startup kit holds, and where it is put: ``kits/NAME-kit.zip``.

Comes in: a workspace, a site's name and certificate. Goes out: one zip, signed by the authority. The private
key is in it only where the coordinator made it, and then under a passphrase that is not in it.
"""

from __future__ import annotations

import importlib.metadata
from collections.abc import Mapping
from pathlib import Path
from string import Template

from cardionets_core.config.sites import SiteRow
from cardionets_core.config.study import read_study
from cardionets_core.config.workspace import ServerConfig, Workspace
from cardionets_core.errors import CertificateInvalidError, ConfigError, UsageError
from cardionets_core.trust.certificates import Certificate, certificate_pem, key_of, read_certificate
from cardionets_core.trust.keys import fingerprint, spoken
from cardionets_core.trust.kit import (
    AUTHORITY,
    CERTIFICATE,
    CONNECTION,
    KEY,
    SITE_TEMPLATE,
    open_kit,
    pack_kit,
)
from cardionets_core.trust.secret_files import make_secret_folder, write_file
from server.provision.authority import Authority

TEMPLATES = Path(__file__).resolve().parents[1] / "templates" / "kit"
FILLED = (CONNECTION, "README.md", "cardionets-client.service", "Dockerfile", "compose.yaml")
PLAIN = ("Dockerfile.dockerignore",)
OUR_HOSPITAL = "our-hospital"


def versions() -> dict[str, str]:
    """Those that both sides must run."""
    return {name: importlib.metadata.version(name) for name in ("cardionets", "flwr")}


def kit_path(workspace: Workspace, site: str) -> Path:
    """Where a site's kit lies."""
    return workspace.kits / f"{site}-kit.zip"


def passphrase_path(workspace: Workspace, site: str) -> Path:
    """Where the passphrase of a key that travels lies."""
    return workspace.kits / f"{site}.passphrase"


def write_kit(
    workspace: Workspace,
    *,
    site: str,
    certificate: Certificate,
    signer: Authority,
    encrypted_key: bytes | None = None,
) -> Path:
    """Make a site's kit; an earlier one is replaced.

    Args:
        workspace: whose address, code and study it carries.
        site: its name.
        certificate: of the site.
        signer: the authority.
        encrypted_key: of the site, only where the coordinator made it.

    Raises:
        ConfigError: the folder of the code holds more than one bundle, or the study is wrong.
    """
    config = workspace.config()
    words = _words(config, site, signer, has_key=encrypted_key is not None)
    files: dict[str, bytes] = {
        AUTHORITY: certificate_pem(signer.certificate),
        CERTIFICATE: certificate_pem(certificate),
        SITE_TEMPLATE: site_template(site).encode(),
        **{name: _filled(name, words) for name in FILLED},
        **{name: (TEMPLATES / name).read_bytes() for name in PLAIN},
        **package(workspace),
    }
    if encrypted_key is not None:
        files[KEY] = encrypted_key
    make_secret_folder(workspace.kits)
    path = kit_path(workspace, site)
    write_file(path, pack_kit(files, key=signer.key), secret=True)
    return path


def travelling_key(workspace: Workspace, row: SiteRow) -> bytes | None:
    """The encrypted key in the kit that still lies here, so that a new kit does not lose it."""
    path = kit_path(workspace, row.site)
    try:
        files = open_kit(path).files
        certificate = read_certificate(files[CERTIFICATE], where=str(path))
    except (CertificateInvalidError, UsageError, KeyError):
        return None  # sent and removed, or torn: there is nothing to keep
    return files.get(KEY) if fingerprint(key_of(certificate)) == row.fingerprint else None


def package(workspace: Workspace) -> dict[str, bytes]:
    """The bundle and the study, where both are there: what the site's IT approves."""
    bundles = sorted(workspace.code.glob("*.fab"))
    if len(bundles) > 1:
        raise ConfigError(
            f"there are {len(bundles)} bundles; a kit carries one",
            where=str(workspace.code),
            remedy="keep the one that the sites are to run",
        )
    if not bundles or not workspace.study_yaml.is_file():
        return {}
    study = read_study(workspace.study_yaml)
    return {
        f"package/{bundles[0].name}": bundles[0].read_bytes(),
        "package/study.json": study.to_json().encode() + b"\n",
    }


def site_template(site: str) -> str:
    """The commented ``site.yaml`` with the site's name in it."""
    text = (TEMPLATES / SITE_TEMPLATE).read_text(encoding="utf-8")
    return text.replace(f"site: {OUR_HOSPITAL}\n", f"site: {site}\n", 1)


def _words(config: ServerConfig, site: str, signer: Authority, *, has_key: bool) -> dict[str, str]:
    installed = versions()
    # Without the build, such as +cpu, which is each site's own.
    torch, _, _ = importlib.metadata.version("torch").partition("+")
    passphrase = " --passphrase-file /srv/cardionets/PASSPHRASE" if has_key else ""
    return {
        "consortium": config.consortium,
        "site": site,
        "address": config.address,
        "host": config.host,
        "port": str(config.port),
        "cardionets": installed["cardionets"],
        "flwr": installed["flwr"],
        "torch": torch,
        "fingerprint": spoken(signer.fingerprint),
        "init_options": passphrase,
        "key_words": KEY_IN_KIT if has_key else KEY_AT_SITE,
    }


KEY_IN_KIT = (
    "The kit holds this site's private key, encrypted. The passphrase came by another way than the kit:\n"
    "put it into the file `/srv/cardionets/PASSPHRASE` (mode 0600, of the site's account); delete that\n"
    "file, and the kit, after `init`."
)
KEY_AT_SITE = (
    "The kit holds no private key: yours was made by `cardionets-client request` and never left it.\n"
    "Unpack the kit into the same folder."
)


def _filled(name: str, words: Mapping[str, str]) -> bytes:
    return Template((TEMPLATES / name).read_text(encoding="utf-8")).substitute(words).encode()
