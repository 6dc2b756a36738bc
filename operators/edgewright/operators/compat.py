"""Everything of Airflow that is private in 3.3, untyped, or moves in 3.4: one place to look at when Airflow changes."""

from __future__ import annotations

from typing import Any

from airflow.sdk import DAG, BaseOperator, literal
from airflow.sdk.bases.xcom import BaseXCom

#: Key under which a task's return value stands in XCom.
RETURN_KEY: str = BaseXCom.XCOM_RETURN_KEY
#: Type of what ``airflow.sdk.literal()`` returns.
LITERAL: type[Any] = type(literal(None))


def dag_of(operator: BaseOperator) -> DAG | None:
    """Return the Dag of an operator, or ``None`` where it has none yet (``operator.dag`` raises then)."""
    return operator.dag if operator.has_dag() else None  # type: ignore[no-untyped-call]


def is_unmapped(operator: BaseOperator) -> bool:
    """Whether Airflow made this operator from a mapped one, to run one of its instances; the Dag is complete then."""
    return bool(getattr(operator, "_BaseOperator__from_mapped", False))


def operator_class_of(task: Any) -> type[Any] | None:
    """Return the class of a task, mapped or not."""
    found = getattr(task, "operator_class", type(task))
    return found if isinstance(found, type) else None
