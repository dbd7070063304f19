"""The study page as HTML: whole for a file or a browser, or its main part for a page that is followed."""

from __future__ import annotations

from functools import cache

from jinja2 import Environment

from cardionets_core.pages.own_files import own_folder
from cardionets_core.pages.page import render, templates_in
from cardionets_core.pages.serve import Shown
from server.page.content import page_content
from server.page.facts import RunFacts

PAGE = "study.html"
PART = "study_main.html"


def report_html(facts: RunFacts) -> str:
    """The page for the disk: no script, nothing from elsewhere."""
    return render(templates(), PAGE, page_content(facts))


def shown(facts: RunFacts) -> Shown:
    """The page for a browser that follows it."""
    content = page_content(facts)
    page = render(templates(), PAGE, content, live=True)
    return Shown(page=page, part=templates().get_template(PART).render(content))


@cache
def templates() -> Environment:
    """The templates of this room."""
    return templates_in(own_folder("server.page", "templates"))
