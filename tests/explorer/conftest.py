"""What tests of pages share: Chromium, and windows of the explorer in which nothing may go wrong."""

import shutil

import pytest
from steer_workspace import TOKEN


@pytest.fixture(scope="module")
def browser():
    """Chromium without a network of its own; of one module, since the thread has Playwright's event loop as long as it runs."""
    if shutil.which("chromium") is None:
        pytest.skip("needs Debian's chromium; CI installs it")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as p:
        options = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
        browser = p.chromium.launch(executable_path=shutil.which("chromium"), args=options)
        yield browser
        browser.close()


@pytest.fixture
def explore(browser):
    """`explore(address, hash)`: a page of the explorer at `address` after '#', signed in; `window.copied` is what it last copied.

    It has a window of its own, made with `options`, or the one of `explore.window()` that it is opened `within`. None may have
    script errors or dialogs.
    """
    windows, trouble = [], []

    def window(**options):
        windows.append(browser.new_context(**options))
        return windows[-1]

    def visit(address, hash="#/", within=None, **options):
        page = (within or window(**options)).new_page()
        page.set_default_timeout(20_000)
        page.add_init_script("navigator.clipboard.writeText = t => { window.copied = t; return Promise.resolve(); }")
        page.on("pageerror", lambda e: trouble.append(str(e)))
        page.on("dialog", lambda d: trouble.append(d.message) or d.dismiss())
        page.goto(f"{address}/?token={TOKEN}")
        page.goto(f"{address}/{hash}")
        return page

    visit.window = window
    yield visit
    for context in windows:
        context.close()
    assert trouble == []
