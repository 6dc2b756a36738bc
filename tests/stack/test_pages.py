"""Edgewright's pages in Airflow's web UI: what they show, and to whom."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from stack_support import Stack

pytestmark = [pytest.mark.stack, pytest.mark.timeout(600)]


def test_no_page_without_a_login(stack: Stack, first_run: dict[str, Any]) -> None:
    base = stack.urls["airflow"]
    for path in ("/", "/api/overview", "/runs/bracelet/first/quality", "/runs/bracelet/first/quality/outputs/report"):
        assert httpx.get(f"{base}/edgewright{path}").status_code == 401, path
        forged = {"Authorization": "Bearer not.a.token"}
        assert httpx.get(f"{base}/edgewright{path}", headers=forged).status_code == 403, path


def test_the_overview_lists_pipelines_models_and_services(stack: Stack, first_run: dict[str, Any]) -> None:
    with stack.airflow("viewer") as client:
        document = client.get("/edgewright/api/overview").json()
        page = client.get("/edgewright/")
    pipeline = next(entry for entry in document["pipelines"] if entry["dag_id"] == "bracelet")
    assert pipeline["last_run"]["state"] in ("success", "failed", "running")
    model = next(entry for entry in document["models"]["items"] if entry["name"] == "bracelet")
    champions = [version for version in model["versions"] if "champion" in version["aliases"]]
    assert len(champions) == 1
    assert set(champions[0]["variants"]) == {"sklearn", "onnx", "onnx-int8"}
    assert champions[0]["metrics"]
    assert document["services"][0]["models"][0]["name"] == "bracelet"
    assert page.headers["content-security-policy"].startswith("default-src 'none'")
    assert "bracelet" in page.text


def test_a_tasks_page_leads_to_its_report(stack: Stack, first_run: dict[str, Any]) -> None:
    with stack.airflow("viewer") as client:
        page = client.get("/edgewright/runs/bracelet/first/quality")
        assert "accuracy" in page.text
        report = client.get("/edgewright/runs/bracelet/first/quality/outputs/report")
        assert report.status_code == 200
        assert "sandbox" in report.headers["content-security-policy"]
        escape = client.get("/edgewright/runs/bracelet/first/quality/outputs/report/%2e%2e/%2e%2e/x")
        assert escape.status_code == 404
        assert client.get("/edgewright/runs/bracelet/never/quality").status_code == 404


def test_operator_links_point_to_what_answers(stack: Stack, first_run: dict[str, Any]) -> None:
    with stack.airflow() as client:
        path = "/api/v2/dags/bracelet/dagRuns/first/taskInstances/{}/links"
        links = {**client.get(path.format("quality")).json()["extra_links"]}
        model = client.get(path.format("model")).json()["extra_links"]
        assert client.get(links["Report"]).status_code == 200
        assert client.get(links["Artifacts"]).status_code == 200
        assert httpx.get(model["MLflow run"].split("#")[0]).status_code == 200


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """A headless Chromium of this machine."""
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("no Chromium on this machine: the pages were not looked at in a browser")
    from playwright.sync_api import sync_playwright

    flags = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update",
             "--disable-sync", "--no-first-run", "--disable-quic"]  # fmt: skip
    with sync_playwright() as playwright:
        found = playwright.chromium.launch(executable_path=chromium, args=flags)
        yield found
        found.close()


@pytest.mark.browser
def test_the_page_shows_inside_of_airflows_own_ui(
    stack: Stack, first_run: dict[str, Any], browser: Any, tmp_path_factory: pytest.TempPathFactory
) -> None:
    import json
    from pathlib import Path

    password = json.loads(Path(stack.status["login_file"]).read_text())["admin"]
    page = browser.new_page(viewport={"width": 1400, "height": 900})
    page.goto(stack.urls["airflow"])
    page.get_by_label("username").or_(page.locator("input[name=username]")).first.fill("admin")
    page.locator("input[type=password]").first.fill(password)
    page.get_by_role("button", name="Sign in").click()
    page.wait_for_load_state("networkidle")
    page.goto(f"{stack.urls['airflow']}/plugin/edgewright")
    frame = page.frame_locator("iframe")
    frame.get_by_role("heading", name="Edgewright").wait_for(timeout=30_000)
    assert frame.get_by_text("bracelet").first.is_visible()
    assert frame.get_by_role("heading", name="Models").is_visible()
    shot = tmp_path_factory.getbasetemp() / "edgewright-page.png"
    page.screenshot(path=str(shot), full_page=True)
    assert shot.stat().st_size > 10_000
    # the frame itself may neither leave its place nor open windows
    with page.expect_popup(timeout=60_000) as opened:
        frame.get_by_role("link", name="MLflow").first.click()
    assert opened.value.url.startswith(stack.urls["mlflow"])
    frame.get_by_role("link", name="bracelet", exact=True).first.click()
    page.wait_for_url("**/dags/bracelet", timeout=60_000)
