"""Edgewright in a notebook: the data, gates, registry and pipelines of an installation, without Airflow.

    import edgewright.sdk as ew

    data = ew.dataset("bracelet")                     # the newest dataset of that pipeline
    with ew.start_run("bracelet", name="trees") as run:
        model = RandomForestClassifier().fit(data.X("train"), data.y("train"))
        kept = run.keep(model, data)
    verdict = ew.evaluate(kept, data, pipeline="dags/bracelet")
    if verdict.passed:
        ew.register(kept, name="bracelet")            # as challenger
    ew.trigger("bracelet", params={"alpha": 0.01}, wait=True)

Everything happens in the installation that ``EDGEWRIGHT_HOME`` or the working directory points to. docs/sdk.md.
"""

from __future__ import annotations

from edgewright.cli.dataset_versions import DatasetVersion, dataset, datasets
from edgewright.sdk.judging import Verdict, evaluate, register
from edgewright.sdk.runs import KeptModel, Run, start_run
from edgewright.sdk.triggering import Started, trigger

__all__ = [
    "DatasetVersion",
    "KeptModel",
    "Run",
    "Started",
    "Verdict",
    "dataset",
    "datasets",
    "evaluate",
    "register",
    "start_run",
    "trigger",
]
