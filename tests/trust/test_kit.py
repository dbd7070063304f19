"""A kit comes back as it was packed, or not at all."""

import io
import stat
import zipfile

import pytest

from cardionets_core.errors import CertificateInvalidError, UsageError
from cardionets_core.trust.certificates import certificate_pem, make_authority
from cardionets_core.trust.keys import make_key
from cardionets_core.trust.kit import AUTHORITY, KEY, MANIFEST, SIGNATURE, open_kit, pack_kit


@pytest.fixture(scope="module")
def authority():
    key = make_key()
    return key, make_authority(key, consortium="heart")


@pytest.fixture
def files(authority):
    return {AUTHORITY: certificate_pem(authority[1]), KEY: b"secret", "site.yaml": b"site: a\n",
            "package/a.b-c.0-1-0.12ab.fab": bytes(5000)}  # fmt: skip


def rewritten(packed, change, tmp_path):
    """The zip with its entries passed through ``change``."""
    path = tmp_path / "changed.zip"
    with zipfile.ZipFile(io.BytesIO(packed)) as old, zipfile.ZipFile(path, "w") as new:
        entries = change({name: old.read(name) for name in old.namelist()})
        for name, content in entries.items():
            new.writestr(name, content)
    return path


def test_the_same_files_make_the_same_bytes_and_come_back(authority, files, tmp_path):
    packed = pack_kit(files, key=authority[0])
    assert packed == pack_kit(dict(reversed(files.items())), key=authority[0])
    path = tmp_path / "kit.zip"
    path.write_bytes(packed)
    kit = open_kit(path)
    assert dict(kit.files) == files and kit.authority == authority[1]
    with zipfile.ZipFile(path) as archive:
        modes = {entry.filename: stat.S_IMODE(entry.external_attr >> 16) for entry in archive.infolist()}
        assert all(entry.external_attr >> 16 & stat.S_IFREG for entry in archive.infolist())
    assert modes.pop(KEY) == 0o600 and set(modes.values()) == {0o644}


@pytest.mark.parametrize(
    "change, told",
    [
        (lambda e: e | {"site.yaml": b"site: b\n"}, "files of the kit were changed: site.yaml"),
        (lambda e: e | {"more.txt": b""}, "differ: more.txt"),
        (lambda e: {k: v for k, v in e.items() if k != "site.yaml"}, "differ: site.yaml"),
        (lambda e: {k: v for k, v in e.items() if k != SIGNATURE}, "no startup kit"),
        (lambda e: e | {SIGNATURE: b"x"}, "not signed by its authority"),
        (lambda e: e | {MANIFEST: e[MANIFEST] + b"\n"}, "not signed by its authority"),
        (lambda e: e | {"../escape": b""}, "a name that no kit has"),
        (lambda e: e | {"/etc/passwd": b""}, "a name that no kit has"),
        (lambda e: e | {"trust\\x": b""}, "a name that no kit has"),
        (lambda e: e | {".hidden": b""}, "a name that no kit has"),
        (lambda e: e | {f"f{n}": b"" for n in range(80)}, "more than a startup kit"),
        (lambda e: e | {"large": bytes(33_000_000)}, "too large"),
    ],
)
def test_a_kit_that_was_touched_is_refused(authority, files, tmp_path, change, told):
    path = rewritten(pack_kit(files, key=authority[0]), change, tmp_path)
    with pytest.raises(CertificateInvalidError, match=told):
        open_kit(path)


def test_a_kit_signed_by_another_key_than_its_authority_is_refused(files, tmp_path):
    (tmp_path / "kit.zip").write_bytes(pack_kit(files, key=make_key()))
    with pytest.raises(CertificateInvalidError, match="not signed by its authority"):
        open_kit(tmp_path / "kit.zip")


def test_truncated_and_foreign_files_are_refused(authority, files, tmp_path):
    packed = pack_kit(files, key=authority[0])
    path = tmp_path / "kit.zip"
    for content in (b"", packed[: len(packed) // 2], packed[:-10]):
        path.write_bytes(content)
        with pytest.raises(CertificateInvalidError):
            open_kit(path)


def test_a_mistaken_path_is_told_as_one(tmp_path):
    document = tmp_path / "site.yaml"
    document.write_text("site: alpha\n")
    for path, told in ((tmp_path / "absent.zip", "no such file"), (tmp_path, "folder"), (document, "no zip")):
        with pytest.raises(UsageError, match=told) as refused:
            open_kit(path)
        assert "look at the path" in refused.value.remedy and "again" not in refused.value.remedy


def test_every_changed_byte_is_noticed_or_means_nothing(authority, files, tmp_path):
    packed = bytearray(pack_kit(files, key=authority[0]))
    path = tmp_path / "kit.zip"
    for place in range(0, len(packed), 23):
        packed[place] ^= 0x41
        path.write_bytes(packed)
        packed[place] ^= 0x41
        try:
            assert dict(open_kit(path).files) == files
        except (CertificateInvalidError, UsageError):
            continue
