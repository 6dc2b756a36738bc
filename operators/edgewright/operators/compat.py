"""Everything of Airflow that is private in 3.3, untyped, or moves in 3.4: one place to look at when Airflow changes."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator
from typing import Any

from airflow.sdk import DAG, BaseOperator, TaskGroup, XComArg, literal
from airflow.sdk.bases.xcom import BaseXCom
from airflow.sdk.definitions._internal.contextmanager import DagContext
from airflow.sdk.definitions._internal.expandinput import ListOfDictsExpandInput
from airflow.sdk.definitions.mappedoperator import MappedOperator, OperatorPartial
from airflow.sdk.definitions.param import ParamsDict
from airflow.sdk.definitions.taskgroup import MappedTaskGroup

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


@functools.cache
def arguments_of(operator_class: type[BaseOperator]) -> frozenset[str]:
    """Return the names of all arguments that an operator takes, those of its bases included."""
    found: set[str] = set()
    for base in operator_class.__mro__:
        found |= getattr(vars(base).get("__init__"), "_BaseOperatorMeta__param_names", set())
    return frozenset(found)


class StepPartial(OperatorPartial):
    """``partial()`` of a step: a mapped task comes after every task whose output its arguments take.

    Airflow looks for outputs in arguments that are template fields; a step's arguments are gathered in one.
    """

    @classmethod
    def of(cls, partial: OperatorPartial) -> StepPartial:
        """Return a partial as this kind."""
        partial._expand_called = True  # the other one takes over
        return cls(operator_class=partial.operator_class, kwargs=partial.kwargs, params=partial.params)

    def _expand(self, expand_input: Any, *, strict: bool) -> MappedOperator:
        mapped = super()._expand(expand_input, strict=strict)
        for name, value in self.kwargs.items():
            if isinstance(value, BaseOperator):
                mapped.set_upstream(value)
            elif name not in ("dag", "task_group"):
                XComArg.apply_upstream_relationship(mapped, value)
        return mapped


def mapped_group(items: Any, **arguments: Any) -> TaskGroup:
    """Return a group that runs once for each of some items; Airflow itself makes one from a decorated function only.

    Args:
        items: A list of mappings, or the output of a task that returns one.
        arguments: Those of ``TaskGroup``.
    """
    return MappedTaskGroup(expand_input=ListOfDictsExpandInput(items), **arguments)


def start_run(dag_id: str, run_id: str, conf: dict[str, Any]) -> bool:
    """Start a run from within a task; return ``False`` where there is one of that id.

    What ``TriggerDagRunOperator`` does, without a task of its own for each run.
    """
    from airflow.sdk.exceptions import AirflowRuntimeError, ErrorType
    from airflow.sdk.execution_time import task_runner
    from airflow.sdk.execution_time.comms import ErrorResponse, TriggerDagRun

    message = TriggerDagRun(dag_id=dag_id, run_id=run_id, conf=conf)
    answer = task_runner.SUPERVISOR_COMMS.send(message)
    if not isinstance(answer, ErrorResponse):
        return True
    if answer.error == ErrorType.DAGRUN_ALREADY_EXISTS:
        return False
    raise AirflowRuntimeError(answer)


@contextlib.contextmanager
def without_params() -> Iterator[None]:
    """Let Airflow copy no params of the Dag into a task of a step.

    It copies them deeply, three times a task; a step takes its params from the run, where the Dag's count anyway.
    """
    dag = DagContext.get_current()
    assert dag is not None, "tasks are built inside of their Dag's with"
    params = dag.params
    object.__setattr__(dag, "params", ParamsDict())  # past the converter, which would validate them again
    try:
        yield
    finally:
        object.__setattr__(dag, "params", params)
