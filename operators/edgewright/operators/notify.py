"""``notify:`` in Airflow: callbacks that tell people and programs, by Airflow's own notifiers.

Delivery: a callback runs once, after the task's last try, in the task's process (or in the Dag processor where that
process died). One that fails is an error in the task's log and changes nothing else; who must not miss anything
watches the registry or Airflow's API.
"""

from __future__ import annotations

import datetime
import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edgewright.spec.notify import DEFAULT_MOMENTS, NAMES, NOTICES
from edgewright.spec.pipeline import Pipeline
from edgewright.spec.steps import STEPS
from edgewright.steps.code import importable

log = logging.getLogger("edgewright.operators")
_SECONDS = 10


@dataclass
class Told:
    """Callbacks that a document's ``notify:`` adds.

    Attributes:
        tasks: By step (``""``: any operator), then by the task's argument.
        dag: By the Dag's argument.
    """

    tasks: dict[str, dict[str, list[Any]]] = field(default_factory=dict)
    dag: dict[str, list[Any]] = field(default_factory=dict)

    @classmethod
    def of(cls, pipeline: Pipeline) -> Told:
        """Return those of a pipeline."""
        told = cls()
        for entry in pipeline.notify:
            kind = next(kind for kind in (*NOTICES, "uses") if kind in entry)
            given = entry.get("when") or DEFAULT_MOMENTS
            moments = frozenset([given] if isinstance(given, str) else given)
            notice = Notice(kind, _config(kind, entry), moments, pipeline.dag_id, pipeline.folder)
            told._add(notice, pipeline)
        return told

    def _add(self, notice: Notice, pipeline: Pipeline) -> None:
        if notice.moments & {"failure", "gate"}:
            for uses in {task.uses or "" for task in pipeline.tasks}:
                if "failure" in notice.moments or (uses in STEPS and STEPS[uses].metrics):
                    self.tasks.setdefault(uses, {}).setdefault("on_failure_callback", []).append(notice.failed)
        if "failure" in notice.moments:
            self.dag.setdefault("on_failure_callback", []).append(notice.run_failed)
        if "publish" in notice.moments:
            self.tasks.setdefault("publish", {}).setdefault("on_success_callback", []).append(notice.published)
        if "success" in notice.moments:
            self.dag.setdefault("on_success_callback", []).append(notice.run_succeeded)


def _config(kind: str, entry: Mapping[str, Any]) -> dict[str, Any]:
    if kind == "uses":
        return {"uses": entry["uses"], "with": entry.get("with") or {}}
    return NOTICES[kind].model_validate(entry[kind]).model_dump()


@dataclass(frozen=True)
class Notice:
    """One entry of ``notify:``: what is said, and how.

    Attributes:
        kind: ``email``, ``slack``, ``kafka``, or ``uses`` for a notifier by its dotted path.
        config: Its arguments.
        moments: What it tells of.
        dag_id: The pipeline.
        folder: Its folder, where a notifier of its own may be.
    """

    kind: str
    config: Mapping[str, Any]
    moments: frozenset[str]
    dag_id: str
    folder: Path

    def failed(self, context: Any) -> None:
        """Tell of a task that failed for good; of a refused gate only once."""
        result = getattr(context.get("task"), "result", None) or {}
        refused = [gate for gate in result.get("gates", ()) if not gate["passed"]]
        moment = "gate" if refused and "gate" in self.moments else "failure"
        if moment not in self.moments:
            return
        reason = str(context.get("exception") or "").strip() or "see the task's log"
        what = "a gate refused" if refused else "failed"
        self._tell(moment, context, f"{self.dag_id}: task {context['ti'].task_id} {what}: {reason}", reason=reason,
                   metrics=result.get("metrics"))  # fmt: skip

    def run_failed(self, context: Any) -> None:
        """Tell of a run that failed by itself; that a task failed was told by the task."""
        reason = str(context.get("reason") or "")
        if reason != "task_failure":
            self._tell("failure", context, f"{self.dag_id}: the run failed: {reason or 'see Airflow'}", reason=reason)

    def run_succeeded(self, context: Any) -> None:
        """Tell of a run that succeeded."""
        self._tell("success", context, f"{self.dag_id}: the run succeeded")

    def published(self, context: Any) -> None:
        """Tell of a version that was not registered before."""
        result = getattr(context.get("task"), "result", None) or {}
        tags = result.get("tags", {})
        if tags.get("registration") == "reused":
            return  # it was told when it was made
        model, version, alias = tags.get("model_name"), tags.get("model_version"), tags.get("alias")
        message = f"{self.dag_id}: {model} version {version} was published" + (f" as {alias}" if alias else "")
        self._tell("publish", context, message, model=model, version=version, alias=alias,
                   metrics=result.get("metrics"))  # fmt: skip

    # -- saying it ----------------------------------------------------------------------------------------------

    def _tell(self, event: str, context: Any, message: str, **more: Any) -> None:
        run = context.get("dag_run")
        instance = context.get("ti")
        said = {
            "event": event,
            "message": message,
            "dag_id": self.dag_id,
            "run_id": context.get("run_id") or getattr(run, "run_id", None),
            "task_id": getattr(instance, "task_id", None),
            "time": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            **more,
        }
        try:
            getattr(self, f"_{self.kind}")(said, context)
        except Exception as error:  # whatever a mail server does, the task's outcome stands
            log.error("nobody was told by %s: %s: %s", self.kind, type(error).__name__, error)
        else:
            log.info("told by %s: %s", self.kind, message)

    def _words(self, said: Mapping[str, Any], template: str | None) -> str:
        import jinja2.sandbox

        if template is None:
            return str(said["message"])
        env = jinja2.sandbox.SandboxedEnvironment(undefined=jinja2.StrictUndefined)
        return env.from_string(template).render({**dict.fromkeys(NAMES), **said})

    def _email(self, said: Mapping[str, Any], context: Any) -> None:
        import html

        from airflow.providers.smtp.notifications.smtp import SmtpNotifier

        text = self._words(said, self.config["text"])
        subject = self._words(said, self.config["subject"]) if self.config["subject"] else text.splitlines()[0][:200]
        SmtpNotifier(
            to=self.config["to"],
            from_email=self.config["sender"],
            subject=subject,
            html_content=f"<pre>{html.escape(text)}</pre>",
            smtp_conn_id=self.config["connection"],
        ).notify(context)

    def _slack(self, said: Mapping[str, Any], context: Any) -> None:
        from airflow.providers.slack.notifications.slack import SlackNotifier

        SlackNotifier(
            slack_conn_id=self.config["connection"],
            channel=self.config["channel"],
            text=self._words(said, self.config["text"]),
        ).notify(context)  # type: ignore[no-untyped-call]

    def _kafka(self, said: Mapping[str, Any], context: Any) -> None:
        from airflow.providers.apache.kafka.hooks.produce import KafkaProducerHook

        producer = KafkaProducerHook(kafka_config_id=self.config["connection"]).get_producer()
        failures: list[Any] = []
        producer.produce(
            self.config["topic"],
            key=self.dag_id,
            value=json.dumps(said, sort_keys=True),
            on_delivery=lambda error, _: failures.append(error) if error else None,
        )
        if producer.flush(_SECONDS) or failures:
            raise ConnectionError(f"the broker did not take the message: {failures or 'no answer'}")

    def _uses(self, said: Mapping[str, Any], context: Any) -> None:
        import importlib

        module, _, name = self.config["uses"].rpartition(".")
        with importable(self.folder):
            notifier = getattr(importlib.import_module(module), name)(**self.config["with"])
            notifier({**context, **{key: value for key, value in said.items() if key not in context}})
