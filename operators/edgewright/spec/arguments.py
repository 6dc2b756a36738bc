"""Arguments of Dags and tasks that Airflow knows, with their types.

A static table, so that reading a pipeline imports no Airflow.
"""

from __future__ import annotations

import datetime
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from edgewright.spec.faults import Faults, Path, listing, near

_SHORT = re.compile(r"^(?=\d)(?:(\d+)w)?(?:(\d+)d)?(?:(\d+)h)?(?:(\d+)m)?(?:(\d+)s)?$")
_ISO = re.compile(r"^P(?=[\dWDT])(?:(\d+)W)?(?:(\d+)D)?(?:T(?=[\dHMS])(?:(\d+)H)?(?:(\d+)M)?(?:(\d+)S)?)?$")
_DOTTED = re.compile(r"^[A-Za-z_]\w*(\.[A-Za-z_]\w*)+$")
TRIGGER_RULES = (
    "all_success", "all_failed", "all_done", "all_done_min_one_success", "all_done_setup_success", "all_skipped",
    "one_success", "one_failed", "one_done", "none_failed", "none_failed_min_one_success", "none_skipped", "always",
)  # fmt: skip
_LONGEST = 86_399_999_999_999  # what a timedelta can hold
#: What holds for a step of a YAML pipeline unless the task says otherwise. Only faults of the system are tried again.
STEP_DEFAULTS: dict[str, Any] = {
    "retries": 2,
    "retry_delay": datetime.timedelta(seconds=10),
    "retry_exponential_backoff": 2.0,
    "max_retry_delay": datetime.timedelta(minutes=10),
}
WEIGHT_RULES = ("absolute", "downstream", "upstream")


class Invalid(ValueError):
    """A value is not of its type; the text says what is allowed."""


def duration(value: Any) -> datetime.timedelta:
    """Read ``90`` (seconds), ``5m``, ``1h30m`` or ISO 8601 ``PT5M``."""
    if isinstance(value, (int, float)) and not isinstance(value, bool) and value >= 0:
        return datetime.timedelta(seconds=min(value, _LONGEST))
    match = (_SHORT.match(value) or _ISO.match(value)) if isinstance(value, str) else None
    if match is None:
        raise Invalid('seconds, "5m", "1h30m" or ISO 8601 such as "PT5M"')
    weeks, days, hours, minutes, seconds = (int((group or "0")[:15]) for group in match.groups())
    try:
        return datetime.timedelta(weeks=weeks, days=days, hours=hours, minutes=minutes, seconds=seconds)
    except OverflowError:
        raise Invalid("a duration of less than 2.7 million years") from None


def moment(value: Any) -> datetime.datetime:
    """Read a date or a time; without a zone it is UTC."""
    try:
        found = datetime.datetime.fromisoformat(value) if isinstance(value, str) else None
    except ValueError:
        found = None
    if found is None:
        raise Invalid("a date such as 2026-01-01 or a time such as 2026-01-01T03:00:00+01:00")
    return found if found.tzinfo else found.replace(tzinfo=datetime.UTC)


def text(value: Any) -> str:
    """Take text."""
    if not isinstance(value, str):
        raise Invalid("text (quote it)")
    return value


def boolean(value: Any) -> bool:
    """Take ``true`` or ``false``."""
    if not isinstance(value, bool):
        raise Invalid("true or false")
    return value


def mapping(value: Any) -> dict[str, Any]:
    """Take a mapping."""
    if not isinstance(value, dict):
        raise Invalid("a mapping")
    return value


#: Settings of Jinja that a document can give, and the JSON type of each.
JINJA_SETTINGS = {
    **dict.fromkeys(
        ("block_start_string", "block_end_string", "variable_start_string", "variable_end_string",
         "comment_start_string", "comment_end_string", "line_statement_prefix", "line_comment_prefix",
         "newline_sequence"),
        "string",
    ),
    **dict.fromkeys(("trim_blocks", "lstrip_blocks", "keep_trailing_newline", "autoescape"), "boolean"),
}  # fmt: skip


def jinja_settings(value: Any) -> dict[str, Any]:
    """Take arguments of Jinja's environment."""
    kinds = {"string": str, "boolean": bool}
    if not isinstance(value, dict) or not all(
        isinstance(setting, kinds.get(JINJA_SETTINGS.get(name, ""), ())) for name, setting in value.items()
    ):
        raise Invalid(f"a mapping of {listing(JINJA_SETTINGS, 20)}")
    return value


def texts(value: Any) -> list[str]:
    """Take a list of texts."""
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise Invalid("a list of texts")
    return value


_ASSET_KEYS = ("name", "uri", "group", "extra")


def asset_fault(value: Any) -> str | None:
    """Return what an asset may be, if a value is none: text, ``{name, uri, group, extra}`` or ``{alias}``."""
    if isinstance(value, str):
        return None if value else "a URI or a name"
    if isinstance(value, dict) and "alias" in value:
        wrong = set(value) - {"alias", "group"} or not all(isinstance(item, str) and item for item in value.values())
        return "{alias: NAME, group: GROUP}" if wrong else None
    if not isinstance(value, dict) or not ("name" in value or "uri" in value) or set(value) - set(_ASSET_KEYS):
        return "a URI or a name as text, {name: ..., uri: ..., group: ..., extra: {...}}, or {alias: NAME}"
    for key in ("name", "uri", "group"):
        if key in value and not (isinstance(value[key], str) and value[key]):
            return f"{key} must be text"
    return None if isinstance(value.get("extra", {}), dict) else "extra must be a mapping"


def assets(value: Any) -> list[Any]:
    """Take a list of assets."""
    if not isinstance(value, list):
        raise Invalid("a list of assets, such as [s3://bucket/key]")
    for item in value:
        if (problem := asset_fault(item)) is not None:
            raise Invalid(f"a list of assets, each {problem}")
    return value


def text_or_texts(value: Any) -> str | list[str]:
    """Take a text or a list of them."""
    return value if isinstance(value, str) else texts(value)


def callables(value: Any) -> str | list[str]:
    """Take dotted paths of functions."""
    for item in value if isinstance(value, list) else [value]:
        if not isinstance(item, str) or not _DOTTED.match(item):
            raise Invalid("the dotted path of a function, such as package.module.function, or a list of them")
    return value  # type: ignore[no-any-return]


@dataclass(frozen=True)
class Integer:
    """Takes whole numbers that are not below a limit."""

    minimum: int

    def __call__(self, value: Any) -> int:
        """Return the number."""
        if not isinstance(value, int) or isinstance(value, bool) or value < self.minimum:
            raise Invalid(f"a whole number, at least {self.minimum}")
        return value


def number_or_boolean(value: Any) -> float | bool:
    """Take a number or a boolean."""
    if not isinstance(value, (int, float)):
        raise Invalid("true, false or a number")
    return value


@dataclass(frozen=True)
class OneOf:
    """Takes one of some names."""

    names: tuple[str, ...]

    def __call__(self, value: Any) -> str:
        """Return the name."""
        if value not in self.names:
            raise Invalid(f"one of {listing(self.names, 20)}")
        return str(value)


Reader = Callable[[Any], Any]

TASK_ARGUMENTS: dict[str, Reader] = {
    "retries": Integer(0),
    "retry_delay": duration,
    "retry_exponential_backoff": number_or_boolean,
    "max_retry_delay": duration,
    "execution_timeout": duration,
    "trigger_rule": OneOf(TRIGGER_RULES),
    "weight_rule": OneOf(WEIGHT_RULES),
    "priority_weight": Integer(-(2**31)),
    "pool": text,
    "pool_slots": Integer(1),
    "queue": text,
    "owner": text,
    "executor": text,
    "executor_config": mapping,
    "run_as_user": text,
    "resources": mapping,
    "depends_on_past": boolean,
    "ignore_first_depends_on_past": boolean,
    "wait_for_past_depends_before_skipping": boolean,
    "wait_for_downstream": boolean,
    "do_xcom_push": boolean,
    "multiple_outputs": boolean,
    "render_template_as_native_obj": boolean,
    "allow_nested_operators": boolean,
    "logger_name": text,
    "max_active_tis_per_dag": Integer(1),
    "max_active_tis_per_dagrun": Integer(1),
    "start_date": moment,
    "end_date": moment,
    "doc": text,
    "doc_md": text,
    "doc_json": text,
    "doc_yaml": text,
    "doc_rst": text,
    "task_display_name": text,
    "map_index_template": text,
    "email": text_or_texts,
    "email_on_failure": boolean,
    "email_on_retry": boolean,
    "on_execute_callback": callables,
    "on_failure_callback": callables,
    "on_success_callback": callables,
    "on_retry_callback": callables,
    "on_skipped_callback": callables,
    "inlets": assets,
    "outlets": assets,
}

#: What Airflow's classes take and a document cannot give, with what to write instead.
REFUSED_ARGUMENTS: dict[str, str] = {
    "task_id": "write id:",
    "dag": "a task belongs to the Dag of its document",
    "dag_id": "a task belongs to the Dag of its document",
    "task_group": "write the task below tasks: of its group",
    "default_args": "write templates: and extends:",
    "params": 'params: belong to the document; a task reads them by {$t: "{{ params.NAME }}"}',
    "upstream": "write needs:",
    "depends_on": "write needs:",
    "dependencies": "write needs:",
    "operator": "write uses:",
    "args": "write with:",
    "sla": "Airflow 3 has no SLAs; write execution_timeout:",
    "pre_execute": "callables cannot be written in a document",
    "post_execute": "callables cannot be written in a document",
}

#: The same for a Dag.
REFUSED_DAG_ARGUMENTS: dict[str, str] = {
    "default_args": "write templates: and extends:",
    "schedule_interval": "write schedule:",
    "timetable": "write schedule: {uses: ..., with: {...}}",
    "concurrency": "write max_active_tasks:",
    "sla_miss_callback": "Airflow 3 has no SLAs; write dagrun_timeout:",
    "user_defined_macros": "callables cannot be written in a document",
    "user_defined_filters": "callables cannot be written in a document",
    "steps": "write tasks:",
    "jobs": "write tasks:",
}

#: Arguments that only steps have.
STEP_ARGUMENTS: dict[str, Reader] = {"cache": OneOf(("use", "refresh", "off"))}

DAG_ARGUMENTS: dict[str, Reader] = {
    "description": text,
    "start_date": moment,
    "end_date": moment,
    "catchup": boolean,
    "max_active_runs": Integer(1),
    "max_active_tasks": Integer(1),
    "max_consecutive_failed_dag_runs": Integer(0),
    "dagrun_timeout": duration,
    "tags": texts,
    "owner_links": mapping,
    "access_control": mapping,
    "doc_md": text,
    "dag_display_name": text,
    "is_paused_upon_creation": boolean,
    "render_template_as_native_obj": boolean,
    "template_searchpath": text_or_texts,
    "jinja_environment_kwargs": jinja_settings,
    "fail_fast": boolean,
    "disable_bundle_versioning": boolean,
    "rerun_with_latest_version": boolean,
    "on_failure_callback": callables,
    "on_success_callback": callables,
}


def read_arguments(values: dict[str, Any], table: dict[str, Reader], path: Path, faults: Faults) -> dict[str, Any]:
    """Return typed arguments; what is not of its type is noted at its place."""
    found: dict[str, Any] = {}
    for name, value in values.items():
        reader = table[name]
        try:
            found[name] = reader(value)
        except Invalid as error:
            suggestion = near(value, reader.names) if isinstance(reader, OneOf) else None
            shown = repr(value) if len(repr(value)) <= 60 else f"{repr(value)[:57]}..."
            faults.add((*path, name), f"{shown} is not allowed here", allowed=f"allowed: {error}",
                       suggestion=suggestion, code="type")  # fmt: skip
    return found
