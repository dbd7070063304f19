"""``cardionets-client budget``: what privacy the hospital's patients have spent, and what is left."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from cardionets_core.errors import UsageError
from client.commands.answer import Format, FormatOption, SiteCommand, SiteOption, answer, answering


def register(cli: typer.Typer) -> None:
    """Add the command to the program."""
    cli.command(cls=SiteCommand)(budget)


def budget(
    site: SiteOption = Path("site.yaml"),
    plot: Annotated[
        Path | None, typer.Option("--plot", help="also draw it: an SVG file that is not there yet")
    ] = None,
    format: FormatOption = Format.table,
) -> None:
    """Show what privacy was spent here, is reserved and is left, by study and phase.

    The numbers are epsilons at the delta of `policy.privacy.maximum_delta`, of all studies together, for
    each patient. What is reserved counts as spent: it is the round that is running, or one that was cut off.
    """
    from client.budget import budget as of_site
    from client.budget import budget_lines, budget_svg

    with answering(format):
        if plot is not None and plot.exists():
            raise UsageError(f"{plot} is there already", where="--plot", remedy="give a new name")
        from cardionets_core.config.site import read_site

        content = of_site(read_site(site))
        if plot is not None:
            plot.write_text(budget_svg(content), encoding="utf-8")
            print(f"drawn: {plot}", file=sys.stderr)
    answer(content, budget_lines, format)
