"""``notify:``: who is told when a run fails, a gate refuses, a model is published or a run succeeds."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import Field

from edgewright.spec.code import check_operator
from edgewright.spec.faults import Faults, Path, listing, near
from edgewright.spec.jinja import check_template
from edgewright.spec.signatures import check_arguments
from edgewright.spec.step_config import check_model
from edgewright.spec.steps.base import StepConfig
from edgewright.spec.values import Values

#: What people are told about, in words.
MOMENTS = {
    "failure": "a task failed for good, or the run ran out of time",
    "gate": "a gate refused",
    "publish": "a model's version was published",
    "success": "the run succeeded",
}
DEFAULT_MOMENTS = ("failure", "gate")
#: What templates of messages know.
NAMES = (
    "dag_id", "run_id", "task_id", "reason", "model", "version", "alias", "metrics", "time", "event", "message",
)  # fmt: skip
_DOTTED = re.compile(r"^[A-Za-z_]\w*(\.[A-Za-z_]\w*)+$")
Text = Annotated[
    str | None,
    Field(description="Jinja template of the message; {{ message }} is what is said otherwise.", min_length=1),
]


class EmailNotice(StepConfig):
    """An e-mail, by Airflow's SMTP notifier."""

    to: Annotated[str | list[str], Field(description="Who gets it.", min_length=1)]
    sender: Annotated[str | None, Field(alias="from", description="Default: that of the connection.")] = None
    connection: Annotated[str, Field(description="Airflow connection of the mail server.")] = "smtp_default"
    subject: Annotated[str | None, Field(description="Jinja template. Default: the first line of the message.")] = None
    text: Text = None


class SlackNotice(StepConfig):
    """A message in a Slack channel, by Airflow's Slack notifier."""

    channel: Annotated[str, Field(description="Channel or user.", min_length=1, examples=["#ml-alerts"])]
    connection: Annotated[str, Field(description="Airflow connection of Slack.")] = "slack_api_default"
    text: Text = None


class KafkaNotice(StepConfig):
    """A JSON message on a Kafka topic, for programs."""

    topic: Annotated[str, Field(description="Name of the topic.", min_length=1)]
    connection: Annotated[str, Field(description="Airflow connection of the brokers.")] = "kafka_default"


NOTICES: dict[str, type[StepConfig]] = {"email": EmailNotice, "slack": SlackNotice, "kafka": KafkaNotice}
Moment = Literal["failure", "gate", "publish", "success"]


def read_notify(value: Any, values: Values, faults: Faults, *, thorough: bool = False) -> tuple[dict[str, Any], ...]:
    """Return who is told what, after noting what is wrong with it.

    Args:
        value: Value of ``notify:``.
        values: Parser of values; the arguments of a notifier by dotted path may read files.
        faults: Where to note.
        thorough: Hold arguments of a notifier by dotted path against its source, too.
    """
    if value is None:
        return ()
    if not isinstance(value, list):
        faults.add(("notify",), "must be a list", allowed='[{slack: {channel: "#ml"}, when: [failure]}]', code="type")
        return ()
    return tuple(
        entry
        for index, entry in enumerate(value)
        if _check_entry(entry, ("notify", index), values, faults, thorough=thorough)
    )


def _check_entry(entry: Any, path: Path, values: Values, faults: Faults, *, thorough: bool) -> bool:
    kinds = (*NOTICES, "uses")
    if not isinstance(entry, dict) or sum(kind in entry for kind in kinds) != 1:
        faults.add(path, "names one way to tell people", allowed=f"one of {listing(kinds)}, and when:", code="type")
        return False
    kind = next(kind for kind in kinds if kind in entry)
    for key in entry:
        if key not in (kind, "when", *(("with",) if kind == "uses" else ())):
            faults.unknown_key((*path, key), (*kinds, "when"))
    _check_moments(entry.get("when"), (*path, "when"), faults)
    if kind != "uses":
        check_model(NOTICES[kind], entry[kind], (*path, kind), faults)
        for name in ("subject", "text") if thorough and isinstance(entry[kind], dict) else ():
            if isinstance(template := entry[kind].get(name), str) and name in NOTICES[kind].model_fields:
                check_template(template, (*path, kind, name), faults, names=NAMES)
        return True
    if not isinstance(entry["uses"], str) or not _DOTTED.match(entry["uses"]):
        faults.add((*path, "uses"), "a notifier is named by its dotted path",
                   allowed="such as airflow.providers.smtp.notifications.smtp.SmtpNotifier", code="type")  # fmt: skip
        return False
    check_operator(entry["uses"], values.folder, (*path, "uses"), faults)
    if not isinstance(entry.get("with", {}), dict):
        faults.add((*path, "with"), "must be a mapping of arguments", code="type")
        return False
    _check_literal(entry.get("with", {}), (*path, "with"), faults)
    if thorough:
        check_arguments(entry["uses"], entry.get("with", {}), values.folder, (*path, "with"), faults)
    return True


def _check_literal(value: Any, path: Path, faults: Faults) -> None:
    """Note markers: a notifier gets its arguments as they stand, and renders those of its own that are templates."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        if isinstance(key, str) and key.startswith("$"):
            faults.add((*path, key), f"{key} is no marker here", allowed="text; a notifier renders templates by itself",
                       code="marker", key=True)  # fmt: skip
        else:
            _check_literal(item, (*path, key), faults)


def _check_moments(value: Any, path: Path, faults: Faults) -> None:
    if value is None:
        return
    for index, moment in enumerate(value if isinstance(value, list) else [value]):
        if not isinstance(moment, str) or moment not in MOMENTS:
            place = (*path, index) if isinstance(value, list) else path
            faults.add(place, f"{moment!r} is no moment to tell of", allowed=f"allowed are: {listing(MOMENTS)}",
                       suggestion=near(moment, MOMENTS), code="value")  # fmt: skip
