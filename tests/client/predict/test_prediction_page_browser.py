"""The page of predictions as a browser lays it out: nothing covers anything else, and paper loses nothing."""

from __future__ import annotations

import pytest

PAPER = 718
"""CSS pixels between the margins of A4."""
COVERED = """() => {
  const box = (cell) => { const range = document.createRange(); range.selectNodeContents(cell);
    return range.getBoundingClientRect(); };
  const found = [];
  for (const row of document.querySelectorAll("tr")) {
    const cells = [...row.cells].filter((cell) => cell.textContent.trim() && box(cell).width > 0);
    for (let place = 1; place < cells.length; place += 1)
      if (box(cells[place - 1]).right > box(cells[place]).left)
        found.push(cells[place - 1].textContent + " | " + cells[place].textContent);
  }
  return found;
}"""
CUT = "() => [...document.querySelectorAll('table')].map((each) => each.getBoundingClientRect().right)"


@pytest.fixture(scope="module")
def page_file(tmp_path_factory, whole, write_ecg, client):
    folder = tmp_path_factory.mktemp("page")
    ecg = write_ecg(folder, "one")
    asked = ("predict", "--model", whole, ecg, "--page", folder / "page.html", "--no-cine")
    assert client(*asked).code == 0
    return folder / "page.html"


@pytest.fixture
def page(browser, page_file):
    opened = browser.new_page()
    faults: list[str] = []
    opened.on("console", lambda message: faults.append(message.text))
    opened.on("pageerror", lambda error: faults.append(str(error)))
    opened.goto(page_file.as_uri())
    yield opened
    opened.close()
    assert faults == []


@pytest.mark.parametrize("width", [420, 760, 860, 1000, 1400])
def test_no_cell_covers_another(page, width):
    page.set_viewport_size({"width": width, "height": 900})
    assert page.locator("tr").count() > 5
    assert page.evaluate(COVERED) == []


def test_paper_cuts_nothing_off(page):
    page.set_viewport_size({"width": PAPER, "height": 1000})
    page.emulate_media(media="print")
    assert page.evaluate(COVERED) == []
    assert max(page.evaluate(CUT)) <= PAPER + 1
