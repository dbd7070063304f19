"""The study page in a real browser: no errors, nothing from elsewhere, its numbers, phones, paper, keys."""

from __future__ import annotations

import itertools
import json
import threading

import pytest

from cardionets_core.pages.page import short_number
from cardionets_core.pages.serve import PageServer
from server.app import run_study
from server.page.web import StudyPages
from simulation.local_grid import LocalGrid

CONTRAST = """(selectors) => selectors.map((selector) => {
  const parse = (text) => text.match(/[\\d.]+/g).map(Number);
  const part = (c) => { c /= 255; return c <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4; };
  const light = ([r, g, b]) => 0.2126 * part(r) + 0.7152 * part(g) + 0.0722 * part(b);
  const ground = (each) => {
    for (; each; each = each.parentElement) {
      const found = parse(getComputedStyle(each).backgroundColor);
      if (found.length < 4 || found[3] > 0) return found;
    }
  };
  const each = document.querySelector(selector);
  const pair = [light(parse(getComputedStyle(each).color)), light(ground(each))].sort((a, b) => b - a);
  return (pair[0] + 0.05) / (pair[1] + 0.05);
})"""
"""Contrast of the text of some elements with what lies behind it, as WCAG reckons it."""


@pytest.fixture
def visit(browser):
    """Opens an address in a fresh context; every error of the page and every request is noted."""
    contexts = []

    def visit(address, **options):
        context = browser.new_context(**options)
        contexts.append(context)
        page = context.new_page()
        page.errors, page.asked = [], []
        page.on(
            "console", lambda message: page.errors.append(message.text) if message.type == "error" else None
        )
        page.on("pageerror", lambda error: page.errors.append(str(error)))
        page.on("request", lambda request: page.asked.append(request.url))
        page.goto(address)
        return page

    yield visit
    for context in contexts:
        context.close()


@pytest.fixture
def finished(fake_sites, quick, tmp_path):
    """A run of three rounds, and its result."""
    sites = fake_sites("alpha", "beta", "a-hospital-with-quite-a-long-name-in-the-mountains")
    grid = LocalGrid([site.app() for site in sites.values()])
    return tmp_path, run_study(grid, quick, folder=tmp_path, track=False)


def test_the_page_on_disk_is_whole_and_says_what_the_result_says(visit, finished):
    folder, result = finished
    page = visit((folder / "report.html").as_uri())
    assert page.errors == []
    assert [url for url in page.asked if not url.startswith(("file:", "data:"))] == []
    text = page.inner_text("main")
    assert result["study_digest"] in text and result["model_digest"] in text
    for key, told in (
        ("p1-loss", lambda row: row["loss"]),
        ("p1-metric", lambda row: row["metrics"]["correlation"]),
    ):
        page.click(f"#{key} summary")
        rows = page.locator(f"#{key} tbody tr").all_inner_texts()
        heads = page.locator(f"#{key} thead th").all_inner_texts()
        assert len(rows) == len(result["rounds"])
        for line, entry in zip(rows, result["rounds"], strict=True):
            cells = dict(zip(heads, line.split("\t"), strict=True))
            assert cells["round"] == str(entry["round"])
            for row in entry["sites"]:
                assert cells[row["site"]] == short_number(told(row))
    page.click("#seconds summary")
    seconds = [line.split("\t")[1] for line in page.locator("#seconds tbody tr").all_inner_texts()]
    assert seconds == [short_number(entry["seconds"]) for entry in result["rounds"]]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_light_and_dark_can_be_read(visit, finished, scheme):
    page = visit((finished[0] / "report.html").as_uri(), color_scheme=scheme)
    found = page.evaluate(CONTRAST, ["h1", ".soft", ".pill", "summary", "td", ".tile span", "footer p"])
    assert min(found) >= 4.5, found
    dark = page.evaluate("matchMedia('(prefers-color-scheme: dark)').matches")
    assert dark == (scheme == "dark")
    ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (sum(map(int, ground[4:-1].split(","))) < 200) == dark


def test_a_phone_scrolls_down_and_never_sideways(visit, finished):
    page = visit(
        (finished[0] / "report.html").as_uri(), viewport={"width": 360, "height": 740}, is_mobile=True
    )
    page.evaluate("document.querySelectorAll('details').forEach((each) => { each.open = true; })")
    assert page.evaluate("document.documentElement.scrollWidth") <= 360


def test_on_a_phone_what_a_site_says_stands_under_its_name_and_nothing_is_cut(visit, finished):
    page = visit(
        (finished[0] / "report.html").as_uri(), viewport={"width": 390, "height": 844}, is_mobile=True
    )
    table = "document.getElementById('site-table')"
    assert page.evaluate(f"{table}.scrollWidth - {table}.clientWidth") == 0
    for row in page.locator(".sites tbody tr").all():
        name, says, sent = (row.locator(part).bounding_box() for part in ("th", ".says", ".n >> nth=-1"))
        assert name["y"] + name["height"] <= says["y"] + 1 and says["y"] + says["height"] <= sent["y"] + 1
        assert says["x"] >= 0 and says["x"] + says["width"] <= 390


def test_on_a_phone_the_newest_part_of_the_timeline_is_reached_by_scrolling_and_a_word_says_so(
    visit, finished
):
    address = (finished[0] / "report.html").as_uri()
    page = visit(address, viewport={"width": 390, "height": 844}, is_mobile=True)
    assert page.locator(".later-hint").is_visible()
    page.evaluate("document.getElementById('timeline').scrollLeft = 1e6")
    picture, box = (page.locator(each).bounding_box() for each in ("#timeline > svg", "#timeline"))
    assert picture["x"] < box["x"], "it is wider than the screen"
    assert abs(picture["x"] + picture["width"] - box["x"] - box["width"]) <= 1
    assert picture["width"] >= 960, "its words are as large as they are drawn"
    wide = visit(address, viewport={"width": 1280, "height": 800})
    assert not wide.locator(".later-hint").is_visible()


def test_a_keyboard_reaches_everything(visit, finished):
    page = visit((finished[0] / "report.html").as_uri())
    controls = page.locator("a[href], summary, [tabindex='0']").evaluate_all(
        "(found) => { found.forEach((each, place) => { each.dataset.place = place; });"
        " return found.filter((each) => each.checkVisibility({ contentVisibilityAuto: true })).length; }"
    )
    reached = set()
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    for _ in range(3 * controls):
        reached.add(page.evaluate("document.activeElement.dataset.place ?? ''"))
        style = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
        assert style != "none" or page.evaluate("document.activeElement === document.body")
        page.keyboard.press("Tab")
    assert len(reached - {""}) == controls
    page.locator("#p1-loss summary").focus()
    page.keyboard.press("Enter")
    assert page.evaluate("document.getElementById('p1-loss-n').open")


def test_names_and_roles_are_there_for_those_who_hear_the_page(visit, finished):
    page = visit((finished[0] / "report.html").as_uri())
    assert page.locator("h1").count() == 1 and page.evaluate("document.documentElement.lang") == "en"
    assert page.evaluate(
        "[...document.querySelectorAll('svg[role=img]')].every((e) => e.querySelector('title').textContent)"
    )
    assert page.evaluate("[...document.images].every((each) => each.alt)")
    assert page.get_by_role("progressbar").get_attribute("aria-valuenow") == "3"
    levels = page.evaluate(
        "[...document.querySelectorAll('h1,h2,h3')].map((each) => Number(each.tagName[1]))"
    )
    assert all(after - before <= 1 for before, after in itertools.pairwise(levels))


def test_it_prints(visit, finished, tmp_path):
    page = visit((finished[0] / "report.html").as_uri(), color_scheme="dark")
    content = page.pdf(format="A4", path=tmp_path / "page.pdf", print_background=True)
    assert (
        content.startswith(b"%PDF") and content.count(b"/Type /Page\n") + content.count(b"/Type/Page/") >= 1
    )
    page.emulate_media(media="print")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"


def test_a_followed_study_changes_the_page_without_a_reload(visit, fake_sites, quick, tmp_path):
    sites, gate, may_go_on = fake_sites("alpha", "beta"), threading.Event(), threading.Event()
    answer = sites["beta"].answer

    def held(order):
        if order.kind == "train" and order.name.round == 2:
            gate.set()
            assert may_go_on.wait(60)
        return answer(order)

    sites["beta"].answer = held
    expect = pytest.importorskip("playwright.sync_api").expect
    grid = LocalGrid([site.app() for site in sites.values()])
    study = threading.Thread(
        target=run_study, args=(grid, quick), kwargs={"folder": tmp_path, "track": False}, daemon=True
    )
    study.start()
    assert gate.wait(60)
    server = PageServer(0, StudyPages(tmp_path).show)
    server.start()
    try:
        page = visit(server.address)
        assert page.url == f"http://127.0.0.1:{server.port}/"
        assert "1 of 3" in page.inner_text(".tiles")
        page.evaluate("window.kept = 'as it was'")
        page.click("#document summary")
        page.locator("#document summary").focus()
        may_go_on.set()
        expect(page.locator(".tiles")).to_contain_text("3 of 3", timeout=60_000)
        study.join(60)
        expect(page.locator(".pill").first).to_have_text("completed", timeout=60_000)
        assert page.evaluate("window.kept") == "as it was"
        assert page.evaluate("document.getElementById('document').open")
        assert page.evaluate("document.activeElement.parentElement.id") == "document"
        assert "completed" in page.inner_text("#said") and page.is_hidden("#lost")
        assert page.errors == []
        assert {url.split("/")[2] for url in page.asked if not url.startswith("data:")} == {
            f"127.0.0.1:{server.port}"
        }
        result = json.loads((tmp_path / "result.json").read_text())
        assert result["model_digest"] in page.inner_text("main")
    finally:
        may_go_on.set()
        server.stop()
    page.wait_for_selector("#lost:not([hidden])", timeout=60_000)
    assert "connection" in page.inner_text("#lost")
