"""``for_each:`` in Airflow: the items, which of them an instance is for, and the task that lists them at run time.

Every instance finds its item by its map index, in a mapped group as in a mapped task, so steps and any other operator
are mapped alike. Items that the document says are in the serialized Dag; others are listed by a task of ours.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseOperator
from airflow.sdk.exceptions import AirflowFailException

from edgewright.errors import EdgewrightError
from edgewright.operators.values import pull
from edgewright.spec.markers import decode, item_at, pure_item, pure_param
from edgewright.spec.pipeline import Reference, Template

if TYPE_CHECKING:
    from airflow.sdk import Context

#: Key under which the listing task leaves the items.
ITEMS_KEY = "items"
#: What tells instances apart in Airflow's pages, unless the task says otherwise.
LABEL = "{{ item_label }}"


@dataclass(frozen=True)
class Items:
    """What a task runs once for each of.

    Attributes:
        values: The items, where the document says them.
        task: Id of the task that lists them at run time, where it does not.
    """

    values: tuple[Any, ...] | None = None
    task: str | None = None

    def enter(self, context: Any) -> Any:
        """Return the item of the instance at hand, and make ``item`` known to its templates."""
        from edgewright.steps.mapping import label

        if "item_label" not in context:
            instance = context["ti"]
            values = self.values
            if values is None:
                values = instance.xcom_pull(task_ids=self.task, key=ITEMS_KEY, map_indexes=-1)
            context["item"] = values[instance.map_index]
            context["item_label"] = label(context["item"])
        return context["item"]

    def serialize(self) -> Any:
        """Return how the items are shown in a serialized Dag."""
        return {"task": self.task} if self.values is None else list(self.values)


@dataclass(frozen=True)
class ItemValue:
    """A template of a mapped task's operator: ``{{ item.x }}`` alone is typed, anything else is text."""

    text: str
    items: Items

    def resolve(self, context: Any) -> Any:
        """Return the value for the instance at hand."""
        item = self.items.enter(context)
        path = pure_item(self.text)
        if path is None:
            return context["task"].get_template_env().from_string(self.text).render(context)
        try:
            return item_at(item, path)
        except KeyError as error:
            raise AirflowFailException(f"{self.text}: the item has no {error.args[0]!r}") from None

    def serialize(self) -> dict[str, str]:
        """Return how the value is shown in a serialized Dag."""
        return {"$t": self.text}


class ItemsOperator(BaseOperator):
    """Lists the items that another task of the pipeline runs once for each of.

    Args:
        source: The source of ``for_each:`` with markers, as JSON (Airflow cannot read a mapping back).
        of: Id of the task or group that is mapped.
    """

    template_fields = ()
    ui_color = "#f5f5f5"

    def __init__(self, *, source: str, of: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.source = source
        self.of = of

    @classmethod
    def get_serialized_fields(cls) -> frozenset[str]:
        """Return the names of what a serialized Dag holds of this operator."""
        base: frozenset[str] = super().get_serialized_fields()  # type: ignore[no-untyped-call]
        return frozenset(base | {"source", "of"})

    def execute(self, context: Context) -> list[dict[str, Any]]:
        """Keep the items, and return one empty mapping for each: what Airflow maps over."""
        from edgewright.steps.mapping import items_of, label

        def value_of(source: Reference | Template) -> Any:
            if isinstance(source, Reference):
                return pull(context, source)
            return context["params"][pure_param(source.text) or ""]

        try:
            items = items_of(decode(json.loads(self.source)), value_of, f"{self.of}.for_each")
        except EdgewrightError as error:
            raise AirflowFailException(str(error)) from None
        for index, item in enumerate(items):
            self.log.info("item %d: %s", index, label(item))
        context["ti"].xcom_push(key=ITEMS_KEY, value=items)
        return [{} for _ in items]


def uses_item(value: Any) -> bool:
    """Whether a parsed value has a template that speaks of the item."""
    if isinstance(value, Template):
        return "item" in value.text
    if isinstance(value, Mapping):
        return any(map(uses_item, value.values()))
    return isinstance(value, list) and any(map(uses_item, value))
