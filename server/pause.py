"""The coordinator's wish to pause: a file in the run folder, honoured and removed.

``requests/pause`` makes the study pause after the round that is running, or at once where it waits for sites
to connect. With the text ``now`` in it, it pauses at once even while replies are awaited: those that came are
kept, and those that come later lie at the sites.
"""

from __future__ import annotations

import contextlib
from pathlib import Path

from cardionets_core.errors import StudyPausedError

PAUSE_REQUEST = Path("requests") / "pause"
"""In the run folder."""
NOW = "now"


class PauseRequest:
    """The request of one run folder.

    Args:
        folder: the run folder.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / PAUSE_REQUEST

    def check(self, *, in_round: bool = False) -> None:
        """Pause if that was asked for.

        Args:
            in_round: whether replies of a round are awaited: then only ``now`` counts.

        Raises:
            StudyPausedError: it was asked for; the request is removed.
        """
        try:
            text = self._path.read_text(encoding="utf-8", errors="replace").strip()
        except OSError:
            return
        if in_round and text != NOW:
            return
        with contextlib.suppress(OSError):
            self._path.unlink()
        raise StudyPausedError(
            "the coordinator paused the study",
            where="study",
            remedy="cardionets-server resume DIR: it goes on where it stopped; no site does its work twice",
        )
