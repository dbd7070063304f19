"""Files that must be whole or absent, and secret ones that are secret from their first byte on.

Comes in: bytes and a path. Goes out: a file that is on the disk, under its name in one step. Knows nothing of
keys; whoever writes one chooses here whether an earlier file may be replaced.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from pathlib import Path

from cardionets_core.durable import sync_folder
from cardionets_core.errors import PrivacyError, StorageFailedError

SECRET_MODE = 0o600
PUBLIC_MODE = 0o644
SECRET_FOLDER_MODE = 0o700
_NO_LINKS = (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK)
"""What file systems without hard links answer."""


def write_file(path: Path, content: bytes, *, secret: bool, replace: bool = True) -> None:
    """Write a file in one step and wait until the disk has it.

    Args:
        path: in a folder that is there.
        content: all of it.
        secret: mode 0600, from the first byte on; else 0644.
        replace: False leaves an earlier file as it is and raises.

    Raises:
        FileExistsError: there is one already, and it may not be replaced.
        StorageFailedError: the disk is full, read-only or failing; the earlier file is whole.
    """
    mode = SECRET_MODE if secret else PUBLIC_MODE
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        part.unlink(missing_ok=True)
        handle = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
        with os.fdopen(handle, "wb") as stream:
            os.fchmod(stream.fileno(), mode)  # the umask may have taken bits of a public file
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        if replace:
            part.replace(path)
        else:
            _place_new(part, path)
        sync_folder(path.parent)
    except FileExistsError:
        part.unlink(missing_ok=True)
        raise
    except OSError as error:
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)
        raise StorageFailedError(
            f"{path.name} could not be written: {error.strerror or error}",
            where=str(path),
            remedy="free space, or make the folder writable for this account; then run the command again",
        ) from error


def _place_new(part: Path, path: Path) -> None:
    """Give a file its name, which must be free."""
    try:
        # A link is made only where no name stands yet: two writers cannot both win.
        path.hardlink_to(part)
        part.unlink()
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        if path.exists():
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(path)) from error
        part.replace(path)


def make_secret_folder(path: Path) -> None:
    """Make a folder for this account alone; one that is there is closed to others.

    Raises:
        StorageFailedError: it cannot be made, or belongs to another account.
    """
    try:
        path.mkdir(parents=True, exist_ok=True, mode=SECRET_FOLDER_MODE)
        if stat.S_IMODE(path.stat().st_mode) != SECRET_FOLDER_MODE:
            path.chmod(SECRET_FOLDER_MODE)
    except OSError as error:
        raise StorageFailedError(
            f"the folder {path} cannot be made: {error.strerror or error}",
            where=str(path),
            remedy="choose a folder that this account may write",
        ) from error


def exposed(path: Path) -> PrivacyError | None:
    """The problem, where a secret file can be read by others; None where it cannot, or is not there."""
    try:
        mode = stat.S_IMODE(path.stat().st_mode)
    except OSError:
        return None
    if not mode & 0o077:
        return None
    return PrivacyError(
        f"the secret file {path.name} lies open to other accounts (mode {mode:04o})",
        where=str(path),
        remedy=f"chmod 600 {path}",
    )
