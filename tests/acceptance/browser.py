"""A real Chromium for the tests: Debian's, driven by Playwright. Where there is none they are skipped, but in CI."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

#: what is waited for comes at once, but not on a machine that has much else to do
_WAIT_MILLISECONDS = 60_000
#: no sandbox, for tests run as root, too, and only at pages of ours; no talk of its own to the network
_ARGUMENTS = (
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync"),
)


@contextmanager
def chromium() -> Iterator[Browser]:
    program = shutil.which("chromium") or shutil.which("chromium-browser")
    if program is None:
        said = "there is no Chromium here; on Debian and Ubuntu: apt-get install chromium"
        if os.environ.get("CI") == "true":
            pytest.fail(said)
        pytest.skip(said)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=_ARGUMENTS)
        try:
            yield browser
        finally:
            browser.close()


@contextmanager
def watched_page(browser: Browser, url: str, **options: object) -> Iterator[Page]:
    """A page of this server whose scripts must not fail, nor be refused by the page's own policy."""
    context = browser.new_context(base_url=url, **options)  # type: ignore[arg-type]
    page = context.new_page()
    page.set_default_timeout(_WAIT_MILLISECONDS)
    expect.set_options(timeout=_WAIT_MILLISECONDS)  # of itself five seconds
    wrong: list[str] = []
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("console", lambda message: wrong.append(message.text) if message.type == "error" else None)
    try:
        yield page
        assert wrong == []
    finally:
        context.close()
