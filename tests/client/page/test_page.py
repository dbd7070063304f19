"""The status page in a browser: alone, read only, on a phone and on paper, its numbers those of the JSON."""

import json
import os
import re
import socket
import stat
from contextlib import contextmanager

import pytest

from cardionets_core.config.study import read_study
from cardionets_core.pages.serve import PageServer
from cardionets_core.service.state import STATE, identity
from client.approvals.store import ApprovalStore
from client.log import site_log
from client.page.content import Looking
from client.page.page import page_file, said, show
from server.study_files import SHIPPED

STUDY_DIGEST = read_study(SHIPPED / "demo.yaml").digest


@contextmanager
def served(folder):
    looking = Looking(folder)
    server = PageServer(0, lambda: show(looking.look()))
    server.start()
    try:
        yield server
    finally:
        server.stop()


@contextmanager
def opened(browser, address, **options):
    """A page with all that it asked for and complained of."""
    context = browser.new_context(**options)
    page = context.new_page()
    page.complaints, page.asked = [], []
    page.on("console", lambda message: page.complaints.append(message.text))
    page.on("pageerror", lambda error: page.complaints.append(str(error)))
    page.on("request", lambda request: page.asked.append(request.url))
    page.goto(address)
    try:
        yield page
    finally:
        context.close()


def test_the_page_holds_the_numbers_of_the_json(busy, client, browser):
    told = json.loads(client("status", busy.root, "--format", "json").out)
    assert told["schema_version"] == 2
    with served(busy) as server, opened(browser, server.address) as page:
        page.locator("#last-left summary").click()
        text = page.locator("main").inner_text()
        sizes = [
            int(each.get_attribute("title").split()[0])
            for each in page.locator("#kinds-week td[title]").all()
        ]
        assert page.complaints == [] and page.url == f"http://127.0.0.1:{server.port}/"
        assert {re.match(r"http://127\.0\.0\.1:\d+/", url) is not None for url in page.asked} == {True}
    week = told["left"]["week"]
    assert sorted(sizes) == sorted(entry["bytes"] for entry in week["by_kind"].values())
    assert f"Seven days: {week['count']} messages" in text and f"At most {week['patients']} patients" in text
    for line in told["left"]["last"]:
        assert line["digest"] in text
    assert told["journal"]["head"] in text and "\nwhole\n" in text
    assert f"{told['quality']['patients']} patients in use" in text and "1,111" in text
    assert (
        told["commands"]["start"] in text
        and "--withdraw " + told["approvals"]["studies"][0]["digest"][:16] in text
        and "--withdraw " + told["approvals"]["code"][0]["digest"][:16] in text
    )
    assert told["budget"]["limit"]["epsilon"] == 4.0 and re.search(r"left of\s+4\b", text)
    assert "not used" in text and "All of it today" in text and "Today:" not in text
    assert "too-few-patients" in text and "cut off" in text


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_reads_in_light_and_dark_with_enough_contrast(busy, browser, scheme):
    with served(busy) as server, opened(browser, server.address, color_scheme=scheme) as page:
        ratios = page.evaluate(CONTRASTS)
        assert page.complaints == [] and len(ratios) > 40
        poor = [entry for entry in ratios if entry["ratio"] < 4.5]
        assert not poor, poor[:5]


@pytest.mark.parametrize("width", [320, 390, 1280])
def test_no_width_scrolls_sideways(busy, browser, width):
    with (
        served(busy) as server,
        opened(browser, server.address, viewport={"width": width, "height": 800}) as page,
    ):
        assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_keyboard_and_screen_reader(busy, browser):
    with served(busy) as server, opened(browser, server.address) as page:
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.className") == "skip"
        page.keyboard.press("Enter")
        assert page.evaluate("document.activeElement.id") == "main"
        reached = set()
        for _ in range(40):
            page.keyboard.press("Tab")
            reached.add(page.evaluate("document.activeElement.id || document.activeElement.parentElement.id"))
        assert {"command-start", "copy-start", "last-left", "kinds-week"} <= reached
        assert page.locator("h1").count() == 1 and page.locator("html").get_attribute("lang") == "en"
        ids = page.evaluate("[...document.querySelectorAll('[id]')].map((each) => each.id)")
        assert len(ids) == len(set(ids))
        for svg in page.locator("svg[role=img]").all():
            assert svg.get_attribute("aria-labelledby")
        for region in page.locator("[role=region]").all():
            assert region.get_attribute("aria-label")


def test_a_button_copies_the_command_and_nothing_on_the_page_acts(busy, browser):
    with (
        served(busy) as server,
        opened(browser, server.address, permissions=["clipboard-read", "clipboard-write"]) as page,
    ):
        assert page.locator("form, input, select").count() == 0
        page.locator("#copy-start").click()
        copied = page.evaluate("navigator.clipboard.readText()")
        assert copied == f"cardionets-client start '{busy.root}' --background"
        assert page.locator("#said").inner_text() == "Copied."
        assert page.complaints == []


def test_only_who_has_the_token_sees_it(busy):
    import http.client

    with served(busy) as server:
        for path, cookie in (("/", ""), ("/part", ""), ("/?token=wrong", ""), ("/part", "cardionets=1")):
            connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=5)
            connection.request("GET", path, headers={"Cookie": cookie})
            answer = connection.getresponse()
            assert answer.status == 403 and b"alpha" not in answer.read()
            connection.close()


def test_the_page_follows_the_site(busy, browser):
    from client.log import site_log

    with served(busy) as server, opened(browser, server.address) as page:
        page.locator("#last-left summary").click()
        site_log(busy.root).write("order-failed", code="internal", phase=0, round=9)
        page.locator("main").get_by_text("round 9").wait_for(timeout=15_000)  # no eval: the policy forbids it
        assert page.locator("#last-left").get_attribute("open") is not None  # what was opened stays so
        assert page.complaints == []


@pytest.mark.parametrize("state", ["bare", "broken", "torn document"])
def test_every_state_has_its_page(busy, bare, browser, state, request):
    if state == "bare":
        for name in ("cache", "state", "approvals", "client.log"):
            path = bare.root / name
            path.unlink() if path.is_file() else __import__("shutil").rmtree(path)
    elif state == "broken":
        path = busy.root / "state" / "journal.jsonl"
        path.write_bytes(path.read_bytes().replace(b'"patients":41', b'"patients":91'))
    else:
        (busy.root / "site.yaml").write_text("site: [")
    with served(busy) as server, opened(browser, server.address) as page:
        text = page.locator("main").inner_text()
        assert page.complaints == []
        marked = page.locator("#tile-journal.bad").count(), page.locator("#now #journal-broken").count()
    expected = {"bare": "was not prepared yet", "broken": "from line 2 on", "torn document": "cannot be used"}
    assert expected[state] in text
    assert marked == ((1, 1) if state == "broken" else (0, 0))
    if state == "torn document":  # what is not known is not told as absent
        assert "was not prepared yet" not in text and "not known whether the data is prepared" in text
    if state == "bare":
        assert f"cardionets-client approve '{bare.root}'" in text and f"{bare.root}/package" in text


def running(folder):
    """As if this process were the service's supervisor."""
    folder.service.mkdir(exist_ok=True)
    entry = {"state": "waiting", "restarts": 2, "last_exit": 1, "log": "supernode.log", "again_in_s": 3.0}
    content = {"supervisor": identity(os.getpid()), "processes": {"supernode": entry}}
    (folder.service / STATE).write_text(json.dumps(content))


def test_a_running_service_can_be_stopped_and_what_restarts_is_explained(busy):
    assert "cardionets-client stop" not in page_file(Looking(busy).look())
    running(busy)
    text = page_file(Looking(busy).look())
    assert "cardionets-client stop" in text and "It does not run" not in text
    assert "The coordinator does not answer. A process that waited" in text


def test_code_that_is_approved_alone_can_be_withdrawn_by_the_page(bare):
    sha256 = ApprovalStore(bare.approvals).approve_code(b"bundle")
    text = page_file(Looking(bare).look())
    assert f"--withdraw {sha256[:16]}" in text and "No study is approved" in text


def test_a_broken_journal_is_loud_in_a_written_page(busy):
    path = busy.root / "state" / "journal.jsonl"
    path.write_text(path.read_text().replace('"bytes":1000001', '"bytes":9000001'))
    content = Looking(busy).look()
    text = page_file(content)
    assert "may be forged" in text and "journal is broken" in said(content)
    assert "journal.jsonl.broken" in text and "leave ledger.db" in text


def test_a_refusal_that_was_mended_is_told_once_and_as_mended(busy, bare):
    log = site_log(busy.root, site="alpha")
    other = {"kind": "train", "study": "ab" * 32, "phase": 0, "round": 1, "attempt": 1}
    for _ in range(4):
        log.write("order-refused", code="study-not-approved", **other)
    text = page_file(Looking(busy).look())
    assert "4 times, last" in text and text.count("study-not-approved") == 1 and "approved since" not in text
    log.write("order-refused", code="study-not-approved", **{**other, "study": STUDY_DIGEST})
    ApprovalStore(busy.approvals).approve_study(read_study(SHIPPED / "demo.yaml").to_json())
    assert "approved since" in page_file(Looking(busy).look())


def test_withdrawn_code_is_told_as_the_last_order_and_as_withdrawn(busy):
    store = ApprovalStore(busy.approvals)
    (code,) = store.standing().approved("code")
    running(busy)
    name = {"kind": "train", "study": STUDY_DIGEST, "phase": 0, "round": 3, "attempt": 1}
    log = site_log(busy.root, site="alpha")
    log.write("order-answered", **name, seconds=1.0)
    store.withdraw(code.digest)
    log.write("code-refused", code="code-not-approved", bundle=code.digest)
    content = Looking(busy).look()
    text = page_file(content)
    assert content["order"]["state"] == "refused" and content["order"]["bundle"] == code.digest
    assert '<div class="tile bad"><b>refused</b><span>last order' in text
    assert "<code>code-not-approved</code>: nothing of the order was read" in text and ">done<" not in text
    assert "<b>Orders are refused:</b> no code is approved since" in text and "when it was withdrawn" in text
    assert [each["digest"] for each in content["withdrawn"]["code"]] == [code.digest]
    assert '"soft">withdrawn' in text
    store.pending.keep_code(b"bundle")
    text = " ".join(page_file(Looking(busy).look()).split())
    assert "then approve it with the command above.</p>" in text and "approve it:</p>" not in text
    store.approve_code(b"bundle")
    text = page_file(Looking(busy).look())
    assert "Orders are refused" not in text and '"soft">withdrawn' not in text
    assert "its coordinator resumes it: tell them" in text


def test_the_command_that_approves_stands_where_it_is_named(bare):
    text = " ".join(page_file(Looking(bare).look()).split())
    assert 'then approve it:</p> <div class="command"><code id="command-approve"' in text


def test_parts_are_said_not_to_add_up_only_where_there_are_parts(busy):
    content = Looking(busy).look()
    phase = {"phase": 0, "task": "ecg_mae", "answers": 6, "open": 0, "epsilon": 2.0}
    study = {"name": "heart", "study": "ab" * 32, "epsilon": 2.0, "phases": [phase]}
    told = "Epsilons of parts do not add up: together they would be more than the whole."
    one = {**content["budget"], "spent": 2.0, "reserved": 0.0, "left": 2.0, "studies": [study]}
    assert told not in page_file({**content, "budget": one})
    assert told in page_file({**content, "budget": {**one, "studies": [study, study]}})
    two = {**study, "phases": [phase, {**phase, "phase": 1}]}
    assert told in page_file({**content, "budget": {**one, "studies": [two]}})


def test_a_refused_order_is_not_refused_twice_in_one_line(busy):
    site_log(busy.root, site="alpha").write("order-reached", kind="train", study="ab" * 32, phase=0, round=9)
    log = site_log(busy.root, site="alpha")
    for event, more in (("refusal-left", {}), ("order-answered", {"seconds": 0.5})):
        log.write(event, kind="train", study="ab" * 32, phase=0, round=9, **more)
    text = page_file(Looking(busy).look())
    assert "refused</span>, after" in text


def test_a_written_page_loads_nothing_and_stays_private(busy, client, browser, tmp_path):
    path = tmp_path / "page.html"
    assert client("status", busy.root, "--page", path).code == 0
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    again = client("status", busy.root, "--page", path)
    assert again.code == 2 and "--replace" in again.err
    assert client("status", busy.root, "--page", path, "--replace").code == 0
    with opened(browser, path.as_uri()) as page:
        assert page.complaints == [] and page.asked == [path.as_uri()]
        assert page.locator("script, button").count() == 0
        assert "Stays in the building" in page.locator("header").inner_text()
        page.emulate_media(media="print")
        assert len(page.pdf()) > 10_000
    content = Looking(busy).look()
    assert "<script" not in page_file(content) and said(content) in page_file(content)


def test_options_that_do_not_go_together_are_refused(bare, client, tmp_path):
    assert client("status", bare.root, "--port", 8000).code == 2
    assert client("status", bare.root, "--open").code == 2
    assert client("status", bare.root, "--page", tmp_path / "none" / "page.html").code == 2
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        ended = client("status", bare.root, "--web", "--port", taken.getsockname()[1])
        assert ended.code == 2 and "cannot be served" in ended.err


CONTRASTS = """() => {
  const bend = (v) => (v /= 255) <= .03928 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4;
  const light = (c) => { const [r, g, b] = c.map(bend);
    return .2126 * r + .7152 * g + .0722 * b; };
  const parse = (text) => text.match(/[\\d.]+/g).map(Number);
  const ground = (each) => { for (let e = each; e; e = e.parentElement) {
    const c = parse(getComputedStyle(e).backgroundColor);
    if (c.length < 4 || c[3] > .99) return c.slice(0, 3); }
    return [255, 255, 255]; };
  const found = [];
  for (const each of document.querySelectorAll("main *, header *, footer *")) {
    if (![...each.childNodes].some((n) => n.nodeType === 3 && n.textContent.trim())) continue;
    if (each.closest("svg, .hidden, [hidden]") || !each.getClientRects().length) continue;
    const a = light(parse(getComputedStyle(each).color).slice(0, 3)), b = light(ground(each));
    const ratio = (Math.max(a, b) + .05) / (Math.min(a, b) + .05);
    found.push({ text: each.textContent.trim().slice(0, 40), ratio });
  }
  return found;
}"""


def test_commands_of_many_studies_do_not_bury_the_page(bare):
    store, demo = ApprovalStore(bare.approvals), read_study(SHIPPED / "demo.yaml")
    studies = [demo.model_copy(update={"seed": number}) for number in range(5)]
    for study in studies:
        store.approve_study(study.to_json())
    page = page_file(Looking(bare).look())
    folded = page.index('id="earlier-approvals"')
    places = [page.index(f"--withdraw {study.digest[:16]}") for study in studies]
    assert [place < folded for place in places] == [False, False, True, True, True]
    assert places[4] < places[3] < places[2] and "2 earlier studies" in page
