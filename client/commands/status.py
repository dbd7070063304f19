"""``cardionets-client status``: how the site stands, as lines, as JSON, or as a page."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cardionets_core.errors import UsageError
from client.commands.answer import Format, FormatOption, answer, answering
from client.commands.service import FolderArgument

if TYPE_CHECKING:
    from client.page.content import Looking


def register(cli: typer.Typer) -> None:
    """Add the command to the program."""
    cli.command()(status)


def status(
    folder: FolderArgument = Path(),
    web: Annotated[
        bool, typer.Option("--web", help="serve a page of it on this machine alone, until Ctrl-C")
    ] = False,
    port: Annotated[
        int, typer.Option("--port", min=0, max=65535, help="of the page; 0 takes any that is free")
    ] = 0,
    open_page: Annotated[
        bool, typer.Option("--open", help="open the page in this machine's browser")
    ] = False,
    page: Annotated[
        Path | None,
        typer.Option("--page", help="write the page once, as an HTML file; keep it in the building"),
    ] = None,
    replace: Annotated[bool, typer.Option("--replace", help="write over an earlier page")] = False,
    format: FormatOption = Format.table,
) -> None:
    """Say whether the service runs, whether it reaches the coordinator, what left, and what was refused.

    With --web or --page it is a page: the order in hand, what left today and in seven days, the privacy
    budget, the journal, approvals, quality of the data, and the command that stops the site. The page is read
    only, and is served to whoever has the address that is printed, on this machine alone. From another one:
    `ssh -L PORT:127.0.0.1:PORT`. With --format json all numbers of the page are in the one object.
    """
    from cardionets_core.config.connection import open_site_folder
    from client.standing import standing, standing_lines

    with answering(format):
        if (port or open_page) and not web:
            raise UsageError("--port and --open go with --web", where="--port" if port else "--open")
        if replace and page is None:
            raise UsageError("--replace goes with --page", where="--replace")
        if format is Format.table and not web and page is None:
            answer(standing(open_site_folder(folder)), standing_lines, format)
            return
        if page is not None and page.exists() and not replace:
            raise UsageError(f"{page} is there already", remedy="name another file, or give --replace")
        from client.page.content import Looking

        looking = Looking(open_site_folder(folder))
        content = looking.look()
        if page is not None:
            _write_page(page, content)
    if format is Format.json:
        answer(content, standing_lines, format)
    if web:
        _serve(looking, port=port, open_page=open_page)


def _write_page(path: Path, content: dict[str, Any]) -> None:
    from cardionets_core.durable import on_disk
    from client.page.page import page_file
    from client.private_file import write_private

    if not path.absolute().parent.is_dir():
        raise UsageError(f"there is no folder {path.parent}", where="--page", remedy="make it first")
    with on_disk(path.parent, keeps="nothing was written"):
        write_private(path, page_file(content).encode())
    _say(f"the page has counts of this hospital and stays in the building: {path}")


def _serve(looking: Looking, *, port: int, open_page: bool) -> None:
    import time
    import webbrowser

    from cardionets_core.pages.serve import PageServer
    from client.page.page import show

    server = PageServer(port, lambda: show(looking.look()))
    server.start()
    try:
        _say("the page, read only, on this machine alone, until Ctrl-C; the address is its key:")
        print(server.address, flush=True)
        if open_page and not webbrowser.open(server.address):
            _say("no browser could be opened here; open the address yourself")
        while True:
            time.sleep(3600.0)
    finally:
        server.stop()


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
