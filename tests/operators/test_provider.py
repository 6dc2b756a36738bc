"""The package as Airflow sees it: a provider with operators and links, and a plugin."""

from __future__ import annotations

from edgewright.operators import links
from edgewright.operators.provider import get_provider_info


def test_airflow_lists_the_provider_and_its_links():
    from airflow.providers_manager import ProvidersManager

    manager = ProvidersManager()
    assert "edgewright" in manager.providers
    wanted = {f"edgewright.operators.links.{name}" for name in ("MlflowLink", "ReportLink", "ArtifactsLink")}
    assert wanted <= set(manager.extra_links_class_names)


def test_what_the_provider_names_exists():
    import importlib

    info = get_provider_info()
    for entry in (*info["operators"], *info["bundles"]):
        for module in entry["python-modules"]:
            importlib.import_module(module)


def test_addresses_keep_odd_names_apart(home, monkeypatch):
    identity = {"dag_id": "a", "run_id": "manual__2026-01-01T00:00:00+00:00", "task_id": "g.t", "map_index": 2}
    assert links.task_address(identity, "/outputs/report") == (
        "/edgewright/runs/a/manual__2026-01-01T00%3A00%3A00%2B00%3A00/g.t/outputs/report?map_index=2"
    )


def test_a_result_without_report_or_run_has_no_such_links(home):
    result = {"outputs": {}, "tags": {}, "identity": {"dag_id": "a", "run_id": "r", "task_id": "t", "map_index": -1}}
    assert links.ReportLink().address(result) == ""
    assert links.MlflowLink().address(result) == ""
    assert links.ArtifactsLink().address(result) == "/edgewright/runs/a/r/t"


def test_addresses_below_a_path_of_the_site(home, monkeypatch):
    monkeypatch.setenv("AIRFLOW__API__BASE_URL", "https://ml.example/airflow/")
    identity = {"dag_id": "a", "run_id": "r", "task_id": "t", "map_index": -1}
    assert links.task_address(identity) == "/airflow/edgewright/runs/a/r/t"
