"""Buttons on a task's page: its MLflow run, its report, its artifacts.

A link's address is made from the result document at the end of the task (also of one whose gate failed) and kept in
XCom by Airflow; the web server imports nothing of ours to show it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlencode, urlsplit

from airflow.configuration import conf
from airflow.sdk import BaseOperatorLink

from edgewright.installation import Installation

if TYPE_CHECKING:
    from airflow.sdk import BaseOperator
    from airflow.sdk.types import TaskInstanceKey

#: Where the plugin serves the pages of runs.
_RUNS = "/edgewright/runs"


def task_address(identity: dict[str, Any], place: str = "") -> str:
    """Return the address of a task's page, or of something below it; relative to the site where it has no other."""
    base = Installation.load().urls.get("airflow", "").rstrip("/") or _site_path()
    path = "/".join(quote(str(identity[name]), safe="") for name in ("dag_id", "run_id", "task_id"))
    index = identity.get("map_index", -1)
    query = f"?{urlencode({'map_index': index})}" if index is not None and index >= 0 else ""
    return f"{base}{_RUNS}/{path}{place}{query}"


def _site_path() -> str:
    """Return the path that Airflow has on its site: behind a proxy it may not be the root."""
    return urlsplit(conf.get("api", "base_url", fallback="")).path.rstrip("/")


class _ResultLink(BaseOperatorLink):
    """A link that needs the result of the task that has just ended."""

    name = ""

    def get_link(self, operator: BaseOperator, *, ti_key: TaskInstanceKey) -> str:
        """Return the address, or nothing where the result holds nothing to look at."""
        result = getattr(operator, "result", None)
        return self.address(result) if isinstance(result, dict) else ""

    def address(self, result: dict[str, Any]) -> str:
        """Return the address for a result document."""
        raise NotImplementedError


class MlflowLink(_ResultLink):
    """The MLflow run of a step that has one."""

    name = "MLflow run"

    @property
    def xcom_key(self) -> str:
        """Key under which Airflow keeps the address."""
        return "edgewright_mlflow_run"

    def address(self, result: dict[str, Any]) -> str:
        """Return the page of the run in MLflow."""
        base = Installation.load().urls.get("mlflow", "").rstrip("/")
        run, experiment = (result["tags"].get(name) for name in ("mlflow_run_id", "mlflow_experiment_id"))
        return f"{base}/#/experiments/{experiment}/runs/{run}" if base and run and experiment else ""


class ReportLink(_ResultLink):
    """The report of a step that writes one."""

    name = "Report"

    @property
    def xcom_key(self) -> str:
        """Key under which Airflow keeps the address."""
        return "edgewright_report"

    def address(self, result: dict[str, Any]) -> str:
        """Return the page of the first report."""
        names = [name for name, ref in result["outputs"].items() if ref["kind"] == "report"]
        return task_address(result["identity"], f"/outputs/{quote(names[0], safe='')}") if names else ""


class ArtifactsLink(_ResultLink):
    """Everything that a step made."""

    name = "Artifacts"

    @property
    def xcom_key(self) -> str:
        """Key under which Airflow keeps the address."""
        return "edgewright_artifacts"

    def address(self, result: dict[str, Any]) -> str:
        """Return the page of the task's result."""
        return task_address(result["identity"])
