"""The page at / in a real browser: it works, shows nothing as markup, and keeps its secrets."""

from __future__ import annotations

import importlib.util
import shutil
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any
from urllib.parse import quote

import pytest
import requests

from connectome_dagster.local.server import LocalServer

if shutil.which("chromium") is None:
    pytest.skip("chromium is not installed (Debian's package chromium)", allow_module_level=True)
if importlib.util.find_spec("websockets") is None:
    pytest.skip("websockets, which dagster-webserver brings, is not there", allow_module_level=True)

from tests.browser.chromium import Browser, Tab, running_chromium

READ, WRITE = "read-credential-of-the-tests", "write-credential-of-the-tests"
MOVIES = [{"title": "Movie ABC", "amount": 10}, {"title": "Movie XYZ", "amount": 39}]
HOSTILE = "</script></pre><script>window.struck = 1</script><img src=x onerror='window.struck = 2'>"

SHOWN_CALL = "[...document.querySelectorAll('.snippet')].filter((one) => one.checkVisibility())"
ROWS = "[...document.querySelectorAll('#requests tr')]"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with running_chromium() as running:
        yield running


@pytest.fixture
def server() -> Iterator[LocalServer]:
    with LocalServer(["movies"], read_credential=READ, write_credential=WRITE) as running:
        running.seed("movies", MOVIES)
        yield running


@pytest.fixture
def tab(browser: Browser, server: LocalServer) -> Iterator[Tab]:
    with browser.tab(server.base_url) as opened:
        yield opened
        assert opened.complaints() == []


def read(server: LocalServer, collection: str = "movies") -> None:
    url = f"{server.base_url}/collection/read/{READ}/{collection}"
    requests.get(url, timeout=10).raise_for_status()


def text(tab: Tab) -> str:
    return str(tab.evaluate("document.documentElement.outerHTML"))


def click(tab: Tab, selector: str) -> None:
    tab.evaluate(f"document.querySelector({selector!r}).click()")


def the_shown_call(tab: Tab) -> str:
    assert tab.evaluate(f"{SHOWN_CALL}.length") == 1
    return str(tab.evaluate(f"{SHOWN_CALL}[0].querySelector('code').textContent"))


# ---- what it shows


def test_documents_are_text_whatever_is_in_them(server: LocalServer, browser: Browser) -> None:
    name = HOSTILE.replace("/", "")
    server.seed(name, [{"_id": HOSTILE, HOSTILE: [HOSTILE], "bidi": "a\u202eb\u2028\x00"}])
    address = quote(name, safe="")
    with browser.tab(f"{server.base_url}/?collection={address}") as tab:
        shown = tab.evaluate("document.querySelector('.documents').innerText")
        read(server, address)
        tab.wait_for(f"{ROWS}.some((row) => row.innerText.includes('onerror'))")

        assert shown.count("window.struck = 1") == 3
        assert "a\\u202eb\\u2028\\u0000" in shown
        assert tab.evaluate("window.struck") is None
        assert tab.complaints() == []


def test_the_browser_asks_nobody_else_for_anything(server: LocalServer, tab: Tab) -> None:
    requested = [event["request"]["url"] for event in tab.events("Network.requestWillBeSent")]

    assert requested
    assert all(url.startswith((server.base_url, "data:")) for url in requested)


def test_a_script_that_got_into_the_page_would_not_run(
    browser: Browser, server: LocalServer
) -> None:
    with browser.tab(server.base_url) as tab:
        tab.evaluate(
            "document.body.insertAdjacentHTML('beforeend', '<img src=x onerror=\"struck = 1\">');"
            "const script = document.createElement('script'); script.textContent = 'struck = 2';"
            "document.body.append(script)"
        )

        assert tab.evaluate("window.struck") is None
        assert any("Content Security Policy" in entry["text"] for entry in tab.complaints())


@pytest.mark.parametrize("width", [320, 390, 768, 1200])
def test_nothing_is_wider_than_the_screen(
    browser: Browser, server: LocalServer, width: int
) -> None:
    server.seed("x" * 200, [{"name" * 50: "value" * 100}])
    read(server, "x" * 200)
    with browser.tab(f"{server.base_url}/?collection={'x' * 200}", width=width) as tab:
        click(tab, "#reveal")
        tab.wait_for("document.body.innerText.includes('Hide credentials')")
        for language in ("python", "curl", "javascript", "dagster"):
            click(tab, f"[value=in-{language}]")
            root = "document.documentElement"
            assert tab.evaluate("window.innerWidth") == width
            assert tab.evaluate(f"{root}.scrollWidth") <= tab.evaluate(f"{root}.clientWidth")


CONTRAST = """
(selector) => {
  const numbers = (color) => color.match(/[\\d.]+/g).map(Number);
  const light = (color) => numbers(color).slice(0, 3).map((one) => one / 255)
    .map((one) => (one <= 0.04045 ? one / 12.92 : ((one + 0.055) / 1.055) ** 2.4))
    .reduce((sum, one, place) => sum + one * [0.2126, 0.7152, 0.0722][place], 0);
  const text = document.querySelector(selector);
  let behind = text;
  while (numbers(getComputedStyle(behind).backgroundColor)[3] === 0) behind = behind.parentElement;
  const pair = [getComputedStyle(text).color, getComputedStyle(behind).backgroundColor];
  const [dark, bright] = pair.map(light).sort((one, other) => one - other);
  return (bright + 0.05) / (dark + 0.05);
}
"""
TEXTS = """
h1; h1 span; nav a[aria-current]; nav .count; .documents pre; .documents .key; .documents .mark;
.credential; code; .endpoint; button; fieldset span; th; .good; .warn; td small; .pulse
"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_can_be_read_in_light_and_dark(
    browser: Browser, server: LocalServer, scheme: str
) -> None:
    read(server)
    requests.get(f"{server.base_url}/collection/read/{WRITE}/movies", timeout=10)
    with browser.tab(server.base_url, scheme=scheme) as tab:
        background = tab.evaluate("getComputedStyle(document.body).backgroundColor")
        for selector in TEXTS.split(";"):
            contrast = tab.evaluate(f"({CONTRAST})({selector.strip()!r})")
            # The least that WCAG 2 takes for text at level AA (1.4.3).
            assert contrast >= 4.5, selector

    assert (max(map(int, background[4:-1].split(", "))) < 60) is (scheme == "dark")


# ---- the calls


def test_one_call_in_one_language_is_shown_at_a_time(tab: Tab) -> None:
    assert the_shown_call(tab).startswith("import os\n\nimport requests\n")

    click(tab, "[value=in-curl]")
    assert the_shown_call(tab).startswith("curl ")

    click(tab, "[value=call-batchdelete]")
    assert "--request DELETE" in the_shown_call(tab)


def test_the_chosen_language_stays_when_another_collection_is_opened(
    server: LocalServer, tab: Tab
) -> None:
    click(tab, "[value=in-dagster]")
    tab.open(f"{server.base_url}/?collection=movies#again")
    tab.command("Page.reload")
    tab.wait_for("document.readyState === 'complete'")

    assert the_shown_call(tab).startswith("import dagster as dg\n")


def test_calls_can_be_chosen_and_credentials_shown_with_the_keyboard(tab: Tab) -> None:
    reached = []
    for _ in range(12):
        tab.press("Tab", 9)
        reached.append(
            tab.evaluate("document.activeElement.value || document.activeElement.innerText")
        )
        if reached[-1] == "in-python":
            break
    tab.press("ArrowRight", 39)

    assert reached[0] == "Skip to the collection"
    assert "Show credentials" in reached
    assert reached[-2:] == ["call-readwithquery", "in-python"]
    assert the_shown_call(tab).startswith("curl ")


def test_what_is_copied_reads_the_credential_from_the_environment(tab: Tab) -> None:
    tab.allow_clipboard()

    click(tab, ".snippet button")
    tab.wait_for("document.querySelector('.snippet button').textContent === 'Copied'")
    copied = tab.evaluate("navigator.clipboard.readText()")

    assert copied == the_shown_call(tab)
    assert 'credential = os.environ["CONNECTOME_READ_CREDENTIAL"]' in copied


def test_what_is_copied_holds_the_credential_once_it_is_shown(tab: Tab) -> None:
    tab.allow_clipboard()

    click(tab, "#reveal")
    tab.wait_for(f"document.body.innerText.includes({WRITE!r})")
    click(tab, ".snippet button")
    tab.wait_for("document.querySelector('.snippet button').textContent === 'Copied'")
    copied = tab.evaluate("navigator.clipboard.readText()")

    assert f'credential = "{READ}"' in copied
    assert WRITE not in copied


def test_the_credentials_are_on_the_page_only_while_they_are_shown(tab: Tab) -> None:
    before = tab.evaluate("document.querySelector('.api').innerHTML")
    assert READ not in text(tab)
    assert WRITE not in text(tab)

    click(tab, "#reveal")
    tab.wait_for(f"document.body.innerText.includes({READ!r})")
    assert "••••" not in tab.evaluate("document.querySelector('.api').innerText")
    click(tab, "#reveal")

    assert READ not in text(tab)
    assert WRITE not in text(tab)
    assert tab.evaluate("document.querySelector('.api').innerHTML") == before


@pytest.mark.parametrize("verb", ["batchwrite", "updatewithupsert", "readwithquery", "batchdelete"])
def test_the_javascript_call_runs_in_a_browser_once_the_credential_is_shown(
    server: LocalServer, tab: Tab, verb: str
) -> None:
    click(tab, "[value=in-javascript]")
    click(tab, f"[value=call-{verb}]")
    click(tab, "#reveal")
    tab.wait_for("document.body.innerText.includes('Hide credentials')")
    call = the_shown_call(tab).replace("console.log(await response.json());", "")

    tab.evaluate(call, replMode=True)

    answer = tab.evaluate("response.json()")
    expected: dict[str, Any] = {
        "batchwrite": {"inserted": 2},
        "updatewithupsert": {"matched": 0, "modified": 0, "upserted": 1},
        "readwithquery": server.documents("movies"),
        "batchdelete": {"deleted": 0},
    }
    assert answer == expected[verb]


# ---- what is new


def test_new_requests_appear_at_the_top_and_the_others_stay_the_same_rows(
    server: LocalServer, tab: Tab
) -> None:
    read(server)
    tab.wait_for(f"{ROWS}.length === 1 && {ROWS}[0].innerText.includes('read')")
    tab.evaluate(f"window.first = {ROWS}[0]; first.mark = 'mine'")

    requests.get(f"{server.base_url}/collection/read/{WRITE}/movies", timeout=10)
    tab.wait_for(f"{ROWS}.length === 2")

    assert tab.evaluate(f"{ROWS}[1] === window.first && window.first.mark") == "mine"
    assert tab.evaluate(f"{ROWS}.map((row) => row.cells[3].innerText)") == ["403", "200"]


def test_nothing_on_the_page_is_touched_as_long_as_nothing_happens(tab: Tab) -> None:
    answers = "performance.getEntriesByType('resource').filter((one) => one.name.includes('now'))"
    tab.wait_for(f"{answers}.length >= 1")
    tab.evaluate(
        "window.changes = 0; new MutationObserver((list) => (changes += list.length))"
        ".observe(document.documentElement, {subtree: true, childList: true, attributes: true,"
        " characterData: true})"
    )
    before = tab.evaluate(f"{answers}.length")

    tab.wait_for(f"{answers}.length >= {before} + 2")

    assert tab.evaluate("window.changes") == 0


def test_documents_and_counts_follow_what_is_written(server: LocalServer, tab: Tab) -> None:
    tab.evaluate("window.link = document.querySelector('nav a'); link.focus()")

    requests.post(
        f"{server.base_url}/collection/write/{WRITE}/movies",
        json={"title": "Movie NEW"},
        timeout=10,
    )
    tab.wait_for("document.querySelector('nav .count').innerText === '3'")
    tab.wait_for("document.querySelector('.documents').innerText.includes('Movie NEW')")
    assert tab.evaluate("document.activeElement === window.link")

    server.add_collection("another")
    tab.wait_for("document.querySelector('nav').innerText.includes('another')")
    assert tab.evaluate("document.activeElement.innerText").startswith("movies")


def count_what_is_asked(tab: Tab) -> None:
    """From now on, when the page has caught up and waits for its next turn."""
    resources = "performance.getEntriesByType('resource')"
    tab.wait_for(f"{resources}.some((one) => one.name.includes('/page/documents'))")
    tab.evaluate(
        "window.asked = 0; const really = fetch;"
        "window.fetch = (...all) => { window.asked += 1; return really(...all); };"
    )


# Longer than the page's own rhythm: a timer that would have asked has had its turn.
ONE_TURN = "new Promise((done) => setTimeout(done, 2500))"


def test_a_paused_page_asks_nothing_and_catches_up_when_it_is_resumed(
    server: LocalServer, tab: Tab
) -> None:
    count_what_is_asked(tab)
    click(tab, "#pause")
    read(server)
    tab.evaluate(ONE_TURN)
    assert tab.evaluate("window.asked") == 0

    click(tab, "#pause")

    tab.wait_for(f"{ROWS}[0].innerText.includes('200')")


def test_a_hidden_page_asks_nothing_and_catches_up_when_it_is_seen_again(
    server: LocalServer, tab: Tab
) -> None:
    count_what_is_asked(tab)
    tab.evaluate(
        "window.away = true;"
        "Object.defineProperty(document, 'hidden', {get: () => window.away});"
        "document.dispatchEvent(new Event('visibilitychange'))"
    )
    read(server)
    tab.evaluate(ONE_TURN)
    assert tab.evaluate("window.asked") == 0

    tab.evaluate("window.away = false; document.dispatchEvent(new Event('visibilitychange'))")

    tab.wait_for(f"{ROWS}[0].innerText.includes('200')")


def test_the_page_says_when_the_server_is_gone_and_when_it_is_back(browser: Browser) -> None:
    with ExitStack() as stack:
        with LocalServer(["movies"], read_credential=READ, write_credential=WRITE) as server:
            tab = stack.enter_context(browser.tab(server.base_url))
            first = tab.evaluate("document.body.dataset.token")
        tab.wait_for("document.querySelector('#pulse').innerText === 'does not answer'")

        port = int(server.base_url.rpartition(":")[2])
        with LocalServer(["movies"], port=port, read_credential=READ, write_credential=WRITE):
            another = f"![undefined, {first!r}].includes(document.body?.dataset.token)"
            tab.wait_for(f"{another} && document.readyState === 'complete'")
            click(tab, "#reveal")
            tab.wait_for(f"document.body.innerText.includes({READ!r})")


def test_the_page_reads_well_without_its_script(browser: Browser, server: LocalServer) -> None:
    read(server)
    with browser.tab("about:blank#") as tab:
        tab.command("Emulation.setScriptExecutionDisabled", value=True)
        tab.command("Page.navigate", url=server.base_url)
        tab.wait_for("document.querySelector('.documents') !== null")

        assert "Movie ABC" in tab.evaluate("document.body.innerText")
        assert tab.evaluate(f"{ROWS}.length") == 1
        buttons = "[...document.querySelectorAll('button')]"
        assert tab.evaluate(f"{buttons}.filter((one) => one.checkVisibility()).length") == 0
