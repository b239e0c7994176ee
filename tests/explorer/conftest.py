"""What tests of pages share: Chromium, and windows of the explorer in which nothing may go wrong."""

import pytest
from steer_workspace import TOKEN


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
