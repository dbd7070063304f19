"""What arrived and was not approved: kept for IT to look at, never run (row 0 of the walk).

A stranger decides how much arrives, so number and bytes are bounded and the oldest gives way: what is asked
for now is what IT should see, and it is sent again whenever it is asked for again. Keeping never raises,
since it happens while an order is being refused.
"""

from __future__ import annotations

import contextlib
import hashlib
from pathlib import Path

from client.private_file import write_private

BUNDLES, STUDIES = ".fab", ".json"
LARGEST_BYTES = {BUNDLES: 16_000_000, STUDIES: 1_000_000}
MOST = {BUNDLES: 4, STUDIES: 16}


class Pending:
    """The bundles and studies that wait on one site.

    Args:
        folder: holds ``SHA256.fab`` and ``DIGEST.json``; it need not be there yet.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def keep_code(self, content: bytes) -> bool:
        """Keep a bundle; False where it is too large or the disk does not take it."""
        return self._keep(content, BUNDLES)

    def keep_study(self, text: str) -> bool:
        """Keep a study's canonical JSON; False where it is too large or the disk does not take it."""
        return self._keep(text.encode("utf-8", "surrogatepass"), STUDIES)

    def codes(self) -> dict[str, bytes]:
        """SHA-256 to bundle, the latest arrival last."""
        return self._read(BUNDLES)

    def studies(self) -> dict[str, bytes]:
        """SHA-256 to the study's text, the latest arrival last."""
        return self._read(STUDIES)

    def forget_code(self, sha256: str) -> None:
        """A bundle waits no longer."""
        (self._folder / f"{sha256}{BUNDLES}").unlink(missing_ok=True)

    def forget_study(self, digest: str) -> None:
        """A study waits no longer."""
        (self._folder / f"{digest}{STUDIES}").unlink(missing_ok=True)

    def _keep(self, content: bytes, suffix: str) -> bool:
        path = self._folder / f"{hashlib.sha256(content).hexdigest()}{suffix}"
        if len(content) > LARGEST_BYTES[suffix]:
            return False
        try:
            if not path.exists():
                self._folder.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
                self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
                write_private(path, content)
            path.touch()
            for older in self._paths(suffix)[: -MOST[suffix]]:
                older.unlink(missing_ok=True)
        except OSError:
            return False
        return True

    def _read(self, suffix: str) -> dict[str, bytes]:
        found = {}
        for path in self._paths(suffix):
            # Named by what it holds, whatever its name says.
            with contextlib.suppress(OSError):
                if path.stat().st_size <= LARGEST_BYTES[suffix]:
                    content = path.read_bytes()
                    found[hashlib.sha256(content).hexdigest()] = content
        return found

    def _paths(self, suffix: str) -> list[Path]:
        def arrived(path: Path) -> int:
            with contextlib.suppress(OSError):
                return path.stat().st_mtime_ns
            return 0

        found = [path for path in self._folder.glob(f"*{suffix}") if not path.name.startswith(".")]
        return sorted(found, key=lambda path: (arrived(path), path.name))
