"""``cardionets-server watch --web``: the study page in a browser, for a workspace or one run folder.

Comes in: a folder. Goes out: the page on loopback, made anew as the files change. It writes nothing.
"""

from __future__ import annotations

import threading
import webbrowser
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cardionets_core.config.workspace import Workspace, open_workspace
from cardionets_core.errors import UsageError
from cardionets_core.pages.serve import PageServer, Shown
from server.link.admission import heard_online
from server.link.wanted import read_wanted
from server.overview import overview
from server.page.facts import STUDY, RunReader

NOTHING = "nothing.html"
NOTHING_PART = "nothing_main.html"


class StudyPages:
    """Makes the page of a folder, whatever it is by then.

    Args:
        folder: a workspace, or the folder of one run.

    Raises:
        UsageError: it is neither.
        ConfigError: the workspace's document is wrong.
    """

    def __init__(self, folder: Path) -> None:
        self._workspace: Workspace | None = None
        self._reader: RunReader | None = None
        if (folder / "server.yaml").is_file():
            self._workspace = open_workspace(folder)
            self._workspace.config()
        elif (folder / STUDY).is_file():
            self._reader = RunReader(folder)
            self._reader.read()
        else:
            raise UsageError(
                "this is neither a workspace nor the folder of a run",
                where=str(folder),
                remedy="give the folder that `init` made, or one with study.json in it: DIR/runs/NAME-DIGEST",
            )

    def show(self) -> Shown:
        """The page as the files are now.

        Raises:
            CardioNetsError: a file that it needs is torn or wrong.
        """
        # Loaded when somebody looks, so that the address is told at once.
        from cardionets_core.pages.page import render
        from server.page.render import shown, templates

        if self._workspace is None:
            assert self._reader is not None
            return shown(self._reader.read())
        wanted = read_wanted(self._workspace)
        if wanted is None or not (wanted.out / STUDY).is_file():
            content = {"begun": wanted is not None, "folder": str(self._workspace.root)}
            page = render(templates(), NOTHING, content, live=True)
            return Shown(page=page, part=templates().get_template(NOTHING_PART).render(content))
        if self._reader is None or self._reader.folder != wanted.out:
            self._reader = RunReader(wanted.out)
        return shown(self._reader.read(around=_around(self._workspace)))


def serve_study(folder: Path, *, port: int, open_browser: bool, tell: Callable[[str], None]) -> None:
    """Serve until Ctrl-C.

    Args:
        folder: of ``StudyPages``.
        port: on loopback; 0 takes any that is free.
        open_browser: whether the address is opened here.
        tell: told the address.

    Raises:
        UsageError: the port is taken, or as ``StudyPages``.
    """
    server = PageServer(port, StudyPages(folder).show)
    server.start()
    try:
        tell(f"the study page: {server.address}")
        tell("it is open on this machine alone, to whoever has this address; Ctrl-C ends it and no study")
        if open_browser and not webbrowser.open(server.address):
            tell("no browser could be opened here: open the address yourself")
        threading.Event().wait()
    except KeyboardInterrupt:
        tell("the page is served no longer; the study is as it was")
    finally:
        server.stop()


def _around(workspace: Workspace) -> dict[str, Any]:
    told = overview(workspace)
    return {
        "online": heard_online(workspace.state),
        "admitted": {row["site"]: row for row in told["sites"]},
        "service": str(told["service"]["status"]),
        "workspace_state": str(told["study"].get("state", "")),
        "why": str(told["study"].get("why", "")),
    }
