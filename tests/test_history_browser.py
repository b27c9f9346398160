"""The pages of runs in a real browser: hostile text runs nothing, and output comes by itself."""

from collections.abc import Iterator

import httpx
import pytest
from playwright.sync_api import Page, sync_playwright

from tests.fixtures_accounts import PASSWORD, Account
from tests.stack import Stack
from tests.test_history_http import ended, submit

pytestmark = pytest.mark.browser
CHROMIUM = "/usr/bin/chromium"
ATTACK = "<script>document.title='owned'</script><img src=x onerror=\"document.title='owned'\">"
HOSTILE = 'echo "$ATTACK"; printf \'\\033]0;x\\007\\033[31m%s\\n\' "$ATTACK"; echo "$ATTACK" >&2'


@pytest.fixture
def page(stack: Stack, accounts: dict[str, Account]) -> Iterator[Page]:
    """Carol's, logged in by the form. What a page's policy refuses fails the test."""
    refused: list[str] = []
    with sync_playwright() as playwright:
        # Tests run as root, for which Chromium has no sandbox of its own.
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        tab = browser.new_page(base_url=stack.base_url)
        tab.set_default_timeout(60_000)
        tab.on("console", lambda told: refused.append(told.text) if told.type == "error" else None)
        tab.on("pageerror", lambda error: refused.append(str(error)))
        tab.goto("/login")
        tab.fill("#id_username", accounts["carol"].name)
        tab.fill("#id_password", PASSWORD)
        tab.click("main button")
        tab.wait_for_url("**/account/")
        yield tab
        browser.close()
    assert refused == []


@pytest.fixture
def carol(accounts: dict[str, Account]) -> Iterator[httpx.Client]:
    with accounts["carol"].client() as client:
        yield client


def test_hostile_text_runs_nothing_in_a_browser(
    page: Page, carol: httpx.Client, busybox_reference: str
) -> None:
    given = {"env": [f"ATTACK={ATTACK}"], "labels": {"attack": ATTACK}}
    exec_id = submit(carol, busybox_reference, HOSTILE, **given)
    ended(carol, exec_id)
    for path in (f"/runs/{exec_id}/", "/runs/", "/"):
        page.goto(path)
        assert "owned" not in page.title()
        assert page.locator("main img, main script").count() == 0
    page.goto(f"/runs/{exec_id}/")
    assert page.inner_text("pre.output >> nth=0").count(ATTACK) == 2


def test_output_comes_by_itself_and_the_page_tells_the_end(
    page: Page, carol: httpx.Client, busybox_reference: str
) -> None:
    # It goes on until the page has shown what it printed first, and is cancelled then.
    script = f"ATTACK='{ATTACK.replace(chr(39), chr(34))}'; {HOSTILE}; sleep 300"
    exec_id = submit(carol, busybox_reference, script, limits={"wall_clock_secs": 300})
    page.goto(f"/runs/{exec_id}/")
    page.wait_for_selector("pre[data-stream=stdout] .a-c1")
    assert "<script>" in page.inner_text("pre[data-stream=stdout]")
    assert "owned" not in page.title()
    assert page.locator("main img, main script").count() == 0
    page.click("text=Cancel…")
    page.click("main button:has-text('Cancel')")
    page.wait_for_selector(".state:has-text('cancelled')")
    page.wait_for_selector("pre.output:not([data-stream]) .a-c1")


def test_runs_are_chosen_and_deleted_by_keyboard(
    page: Page, carol: httpx.Client, busybox_reference: str
) -> None:
    exec_id = submit(carol, busybox_reference, "true")
    ended(carol, exec_id)
    page.goto("/runs/")
    page.focus(f"input[value={exec_id}]")
    page.keyboard.press("Space")
    page.focus("button[value=delete]")
    page.keyboard.press("Enter")
    page.wait_for_selector("h1:has-text('Delete: 1 run?')")
    page.focus("main button")
    page.keyboard.press("Enter")
    page.wait_for_selector(f".messages:has-text('Deleted: {exec_id}')")
    assert carol.get(f"/api/v1/executions/{exec_id}/").status_code == 404
