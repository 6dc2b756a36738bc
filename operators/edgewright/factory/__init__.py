"""From a validated pipeline to an Airflow Dag; the Dag bundle; the adapter for Airflow 3.4."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from edgewright.factory.dag import build_dag, dag_from_yaml
    from edgewright.factory.loader import load_dags
    from edgewright.factory.stub import load_stub

__all__ = ["build_dag", "dag_from_yaml", "load_dags", "load_stub"]


def __getattr__(name: str) -> Any:
    if name in ("build_dag", "dag_from_yaml"):
        from edgewright.factory import dag as module
    elif name == "load_dags":
        from edgewright.factory import loader as module  # type: ignore[no-redef]
    elif name == "load_stub":
        from edgewright.factory import stub as module  # type: ignore[no-redef]
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(module, name)
