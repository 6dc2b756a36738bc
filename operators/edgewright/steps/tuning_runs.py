"""The trials of a search in MLflow: a run each, beneath the run of the task, with their comparison."""

from __future__ import annotations

import csv
import logging
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgewright.errors import Unavailable
from edgewright.registry.connection import Connection
from edgewright.steps.context import StepContext
from edgewright.steps.reports import Report, Table
from edgewright.steps.sweeps import PARENT
from edgewright.steps.tracking import IDENTITY, TrackedRun

if TYPE_CHECKING:
    from edgewright.steps.tuning import Found, Trial

log = logging.getLogger("edgewright.steps")

#: Tag of a trial's run: its number.
TRIAL = "edgewright.trial"


class TrialRuns:
    """Keeps a run for each trial of one task.

    Args:
        context: The train step.
        parent: The task's own run, under way.
    """

    def __init__(self, context: StepContext, parent: TrackedRun) -> None:
        self._identity = f"{context.request.identity.key}/trials"
        self._parent = parent
        self._connection = Connection(context.request.tracking_uri) if parent.run_id else None
        self._there: set[int] | None = None

    def try_to_add(self, trials: list[Trial]) -> None:
        """Make the runs that lack; a server that is away for a moment must not end a long search."""
        try:
            self.add(trials)
        except Unavailable as error:
            log.warning("the runs of trials wait: %s", error.message)

    def add(self, trials: list[Trial]) -> None:
        """Make the runs that lack.

        Raises:
            Unavailable: MLflow does not answer.
        """
        if self._connection is None:
            return
        with self._connection.calls("take the runs of trials") as client:
            if self._there is None:
                self._there = self._adopted(client, {trial.number for trial in trials})
            for trial in trials:
                if trial.number not in self._there and trial.same_as is None:
                    self._make(client, trial)
                    self._there.add(trial.number)

    def _adopted(self, client: Any, numbers: set[int]) -> set[int]:
        """Put the runs of an earlier try beneath this try's run; those of trials that nobody knows go."""
        which = f"tags.`{IDENTITY}` = '{self._identity}'"
        there: set[int] = set()
        for run in client.search_runs([self._parent.experiment_id], which, max_results=5000):
            number = int(run.data.tags[TRIAL])
            if number in numbers and number not in there and run.info.status != "RUNNING":
                client.set_tag(run.info.run_id, PARENT, self._parent.run_id)
                there.add(number)
            else:
                client.delete_run(run.info.run_id)
        return there

    def _make(self, client: Any, trial: Trial) -> None:
        from mlflow.entities import Metric, Param

        now = int(time.time() * 1000)
        tags = {PARENT: self._parent.run_id, IDENTITY: self._identity, TRIAL: str(trial.number)}
        if trial.error:
            tags["edgewright.error"] = trial.error[:5000]
        started = now - int(trial.seconds * 1000)
        made = client.create_run(self._parent.experiment_id, start_time=started, tags=tags,
                                 run_name=f"trial {trial.number + 1}")  # fmt: skip
        client.log_batch(
            made.info.run_id,
            params=[Param(name, str(value)) for name, value in trial.values.items()],
            metrics=[Metric(name, value, now, 0) for name, value in trial.metrics.items()],
        )
        client.set_terminated(made.info.run_id, status="FAILED" if trial.error else "FINISHED")


def write_report(found: Found, folder: Path) -> None:
    """Write what a search tried and scored: ``runs.csv``, ``comparison.png`` and a page, the best trial first."""
    from edgewright.steps.plots import comparison
    from edgewright.steps.tuning import is_loss

    sign = 1 if is_loss(found.metric) else -1
    measured = sorted((trial for trial in found.trials if not trial.error),
                      key=lambda trial: (sign * trial.metrics[found.metric], trial.number))  # fmt: skip
    failed = [trial for trial in found.trials if trial.error]
    names, scores = list(found.best.values), sorted({name for trial in measured for name in trial.metrics})
    with (folder / "runs.csv").open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(["trial", *names, *scores, "seconds", "error"])
        for trial in [*measured, *failed]:
            cells = [trial.values[name] for name in names] + [trial.metrics.get(name, "") for name in scores]
            table.writerow([trial.number + 1, *cells, trial.seconds, trial.error])
    varying: dict[str, list[str | None]] = {name: [str(trial.values[name]) for trial in measured] for name in names
               if len({trial.values[name] for trial in measured}) > 1}  # fmt: skip
    picture = comparison(found.metric, [trial.metrics[found.metric] for trial in measured], varying)
    rows = [[trial.number + 1, *(trial.values[name] for name in names), trial.metrics[found.metric], trial.seconds]
            for trial in measured]  # fmt: skip
    tables = [Table("Trials", ("trial", *names, found.metric, "seconds"), rows, note=found.note)]
    if failed:
        rows = [[trial.number + 1, *(str(trial.values[name]) for name in names), trial.error] for trial in failed]
        tables.append(Table("Failed", ("trial", *names, "why"), rows))
    report = Report("Hyperparameter search", "means over folds of the part train", tables=tables)
    report.charts["comparison"] = picture
    report.data = {"metric": found.metric, "best": found.best.values, "score": found.best.metrics[found.metric]}
    report.write(folder)
