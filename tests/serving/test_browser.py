"""The pages in a real browser, with nothing but the service to load from."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator

import pytest
from playwright.sync_api import Page, sync_playwright
from support.prediction_service import ServiceProcess

pytestmark = pytest.mark.browser


@pytest.fixture
def page() -> Iterator[Page]:
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("no Chromium is installed")
    with sync_playwright() as playwright:
        arguments = ["--no-sandbox"] if os.getuid() == 0 else []
        browser = playwright.chromium.launch(executable_path=chromium, args=arguments)
        yield browser.new_page()
        browser.close()


def test_the_landing_page_lists_the_models(answering: ServiceProcess, page: Page) -> None:
    page.goto(answering.url + "/")
    page.wait_for_selector("table")
    assert "bracelet (default)" in page.inner_text("table")
    assert "city" in page.inner_text("table")


def test_the_form_predicts_and_shows_faults(answering: ServiceProcess, page: Page) -> None:
    errors: list[str] = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.goto(answering.url + "/docs")
    form = page.locator("form[data-try='/invocations']")
    form.get_by_label("chol").fill("300")
    form.get_by_label("ca").fill("")
    form.get_by_role("button").click()
    page.wait_for_selector("[data-answer='/invocations'].good")
    assert '"predictions"' in page.inner_text("[data-answer='/invocations']")
    form.get_by_label("chol").fill("high")
    form.get_by_role("button").click()
    page.wait_for_selector("[data-answer='/invocations'].bad")
    assert "row 0: column chol: expected a number, got 'high'" in page.inner_text("[data-answer='/invocations']")
    assert errors == []
    assert all(url.startswith(answering.url) for url in asked)
