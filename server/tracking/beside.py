"""Sends a study to its store while it runs, in a process of its own: nothing that hangs here holds a round.

``python -m server.tracking.beside FOLDER``. Comes in: lines on stdin, each a word of how the study stands.
Goes out: what ``sending`` sends, and ``tracked.json``. The words carry nothing: what is sent lies on disk, so
a lost one costs nothing. It ends with the study, or at once when the study's process is gone.
"""

from __future__ import annotations

import os
import sys
import threading
from pathlib import Path
from typing import IO

from cardionets_core.errors import CardioNetsError
from cardionets_core.service.state import only_one
from server.tracking.note import LOCK
from server.tracking.sending import Sender, State
from server.tracking.settings import read_settings

FIRST_PAUSE_S = 1.0
LONGEST_PAUSE_S = 60.0
LOOK_S = 5.0
"""How often the study's process is looked for."""
OTHER_S = 30.0
"""How long an earlier one of the same folder may take to end."""
WORDS: dict[str, State] = {"round": "running", "paused": "paused", "completed": "completed"}


class Words:
    """What the study has said, newest first: a word is kept, not a queue of them."""

    def __init__(self, stream: IO[str]) -> None:
        self._stream = stream
        self._new = threading.Condition()
        self._fresh = True
        self.state: State = "running"
        self._parent = os.getppid()

    def listen(self) -> None:
        """Begin to take words; the process ends when the study's does."""
        for work in (self._listen, self._look):
            threading.Thread(target=work, daemon=True).start()

    def wait(self, seconds: float) -> None:
        """Until something is said that was not taken yet, or for this long."""
        with self._new:
            if not self._fresh:
                self._new.wait(seconds)
            self._fresh = False

    def _listen(self) -> None:
        for line in self._stream:
            with self._new:
                # A study that has ended says nothing more that counts.
                self.state = WORDS.get(line.strip(), self.state) if self.state == "running" else self.state
                self._fresh = True
                self._new.notify_all()
        os._exit(0)  # the study's process is gone: the next one, or `track`, sends what is missing

    def _look(self) -> None:
        while os.getppid() == self._parent:
            threading.Event().wait(LOOK_S)
        os._exit(0)


def run(folder: Path, words: Words) -> None:
    """Send until the study has ended and all was sent, or could not be sent."""
    with only_one(folder, name=LOCK, what="the sender of this run", patience_s=OTHER_S):
        sender = Sender(folder, read_settings(folder))
        pause = FIRST_PAUSE_S
        waits = 0.0
        while True:
            words.wait(waits)
            state = words.state
            done = sender.send(state)
            if state != "running":
                return
            # A store that is away is asked seldom; the study's own file is looked at when it says so.
            pause = FIRST_PAUSE_S if done else min(2 * pause, LONGEST_PAUSE_S)
            waits = LONGEST_PAUSE_S if done else pause


def main() -> None:
    """Entry point: the run folder is the only argument."""
    words = Words(sys.stdin)
    words.listen()
    try:
        run(Path(sys.argv[1]), words)
    except CardioNetsError as error:
        os._exit(error.exit_code)  # the study tells that its mirror ended early
    os._exit(0)  # libraries' threads are not waited for


if __name__ == "__main__":
    main()
