"""What the Edgewright page shows: pipelines, models, services. Each part says by itself why it is empty."""

from __future__ import annotations

from typing import Any

import httpx
from airflow.api_fastapi.app import get_auth_manager
from airflow.api_fastapi.auth.managers.models.base_user import BaseUser
from airflow.models.dag import DagModel, DagTag
from airflow.models.dagrun import DagRun
from airflow.models.taskinstance import TaskInstance
from airflow.utils.session import create_session
from sqlalchemy import select

from edgewright.errors import EdgewrightError
from edgewright.installation import Installation
from edgewright.spec.steps.evaluate import METRICS

TAG = "edgewright"
#: Versions that are shown of each model, the newest first.
VERSIONS = 10


def collect(user: BaseUser) -> dict[str, Any]:
    """Return the page's document for one user.

    Args:
        user: Who asks; pipelines that this user may not see are left out.
    """
    installation = Installation.load()
    return {
        "pipelines": pipelines(user),
        "models": _or_reason(lambda: models(installation)),
        "services": services(installation),
        "urls": installation.urls,
    }


def _or_reason(function: Any) -> dict[str, Any]:
    try:
        return {"items": function(), "reason": None}
    except EdgewrightError as error:
        return {"items": [], "reason": str(error)}


def pipelines(user: BaseUser) -> list[dict[str, Any]]:
    """Return the Dags that were made from YAML, each with its last run and that run's tasks."""
    allowed = get_auth_manager().get_authorized_dag_ids(user=user, method="GET")
    with create_session() as session:
        query = (
            select(DagModel)
            .join(DagTag, DagTag.dag_id == DagModel.dag_id)
            .where(DagTag.name == TAG, DagModel.is_stale.is_(False))
            .order_by(DagModel.dag_id)
        )
        dags = [dag for dag in session.scalars(query).unique() if dag.dag_id in allowed]
        return [_pipeline(session, dag) for dag in dags]


def _pipeline(session: Any, dag: DagModel) -> dict[str, Any]:
    runs = select(DagRun).where(DagRun.dag_id == dag.dag_id).order_by(DagRun.id.desc())
    last = session.scalars(runs.limit(1)).first()
    document: dict[str, Any] = {
        "dag_id": dag.dag_id,
        "description": dag.description or "",
        "schedule": dag.timetable_summary,
        "paused": bool(dag.is_paused),
        "import_errors": bool(dag.has_import_errors),
        "last_run": None,
    }
    if last is not None:
        tasks = session.execute(
            select(TaskInstance.task_id, TaskInstance.map_index, TaskInstance.state, TaskInstance.start_date)
            .where(TaskInstance.dag_id == dag.dag_id, TaskInstance.run_id == last.run_id)
            .order_by(TaskInstance.start_date.is_(None), TaskInstance.start_date, TaskInstance.task_id)
        ).all()
        document["last_run"] = {
            "run_id": last.run_id,
            "state": str(last.state),
            "type": str(last.run_type),
            "started": last.start_date.isoformat(timespec="seconds") if last.start_date else None,
            "ended": last.end_date.isoformat(timespec="seconds") if last.end_date else None,
            "seconds": (last.end_date - last.start_date).total_seconds() if last.end_date and last.start_date else None,
            "tasks": [{"task_id": t.task_id, "map_index": t.map_index, "state": str(t.state or "none")} for t in tasks],
        }
    return document


def models(installation: Installation) -> list[dict[str, Any]]:
    """Return the registered models with their newest versions.

    Raises:
        Unavailable: MLflow does not answer.
    """
    from edgewright.registry import Registry

    registry = Registry(installation.tracking_uri)
    found = []
    for model in registry.models():
        versions = sorted(registry.versions(model.name), key=lambda version: int(version.version), reverse=True)
        found.append({"name": model.name, "versions": [_version(version) for version in versions[:VERSIONS]]})
    return found


def _version(version: Any) -> dict[str, Any]:
    # what was measured on held-out rows; the rest (training, each variant) stands in MLflow and in the model card
    metrics = {name: version.tags[f"metric.{name}"] for name in METRICS if f"metric.{name}" in version.tags}
    return {
        "version": version.version,
        "aliases": list(version.aliases),
        "digest": version.digest,
        "created": str(version.created or ""),
        "variants": [name for name in version.tags.get("targets", "").split(",") if name],
        "metrics": metrics,
        "run_id": version.run_id,
    }


def services(installation: Installation) -> list[dict[str, Any]]:
    """Return each prediction service with what it serves, or why it does not answer."""
    found = []
    for name, service in installation.services.items():
        entry: dict[str, Any] = {"name": name, "url": service.url, "models": [], "reason": None}
        token = service.token()
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        try:
            answer = httpx.get(f"{service.url}/admin/models", headers=headers, timeout=2.0)
            answer.raise_for_status()
            entry["models"] = answer.json().get("models", [])
        except (httpx.HTTPError, ValueError) as error:
            entry["reason"] = f"does not answer: {error}"
        found.append(entry)
    return found
